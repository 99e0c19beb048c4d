"""Keeps the gateway from sending a stored key anywhere but where the person who stored it intended.

MLflow's gateway keeps API keys that every user may use. MLflow also lets each user change the
address that a key is sent to, without knowing the key, and puts some settings into host names
unchecked.
"""

import json
import re
from collections.abc import Mapping

from flask import current_app, request
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from tracking_server.mlflow import internals

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

_PARTS_OF_ADDRESSES = {
    "vertex_location": (_LABEL, "us-central1"),
    "aws_region_name": (_LABEL, "us-east-1"),
    "vertex_project": (_NAME, "my-project"),
    "deployment_name": (_NAME, "gpt-4o"),
    "api_version": (_NAME, "2024-10-21"),
}
"""Settings that MLflow puts into an address, with a pattern for their values and an example."""

GOOGLE_TOKEN_ENDPOINT = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)


def check() -> None:
    """Check the current request, if it changes the gateway's configuration.

    Raises:
        MlflowException: if a key would be sent to another place than it was stored for.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    change = internals.gateway_change(view)
    if change is None:
        return
    kind, message = change
    # MLflow itself reports other missing fields.
    if kind == "create_secret":
        if not message.provider and message.secret_name and message.secret_value:
            raise _refused(
                "provider is missing: name the provider that the key is for, for example openai"
            )
        check_auth_config(message.auth_config)
        check_secret_value(message.secret_value)
    elif kind == "update_secret":
        check_auth_config(message.auth_config)
        check_secret_value(message.secret_value)
        _check_unmoved(message.secret_id, message.auth_config, bool(message.secret_value))
    elif kind == "create_model_definition":
        _check_provider(message.secret_id, message.provider)
    elif message.model_definition_id:
        definition = internals.gateway_model_definition(message.model_definition_id)
        _check_provider(
            message.secret_id or definition.secret_id or "",
            message.provider or definition.provider,
        )


def check_auth_config(auth_config: Mapping[str, str]) -> None:
    """Refuse values that would end a host name early, or add to an address.

    Raises:
        MlflowException: with the setting, its value and an example.
    """
    for name, (pattern, example) in _PARTS_OF_ADDRESSES.items():
        value = auth_config.get(name, "")
        if value and not pattern.fullmatch(value):
            raise _refused(f"{name} is {value[:100]!r}, wanted something like {example}")


def check_secret_value(secret_value: Mapping[str, str]) -> None:
    """Refuse a malformed Google key, or one that would ask another address for tokens.

    Raises:
        MlflowException: saying what is expected.
    """
    credentials = secret_value.get("vertex_credentials", "")
    if not credentials:
        return
    try:
        key = json.loads(credentials)
    except ValueError:
        key = None
    if not isinstance(key, dict) or key.get("type") != "service_account":
        raise _refused(
            "vertex_credentials must hold a service account's key file, which is JSON and begins "
            'with {"type": "service_account"'
        )
    if key.get("token_uri") != GOOGLE_TOKEN_ENDPOINT:
        raise _refused(
            f"token_uri in vertex_credentials must be {GOOGLE_TOKEN_ENDPOINT}, as in the key file "
            "from Google"
        )
    if key.get("universe_domain", "googleapis.com") != "googleapis.com":
        raise _refused("universe_domain in vertex_credentials must be googleapis.com")


def _check_unmoved(secret_id: str, auth_config: Mapping[str, str], has_value: bool) -> None:
    """Refuse to change a stored key's destination unless the key is given again."""
    # The page also sends unchanged settings; an empty map changes nothing.
    if has_value or not auth_config:
        return
    if dict(auth_config) != internals.gateway_secret(secret_id).auth_config:
        raise _refused(
            "auth_config changes where the stored key is sent, so the key must be given again: "
            'add secret_value, for example {"api_key": "..."}'
        )


def _check_provider(secret_id: str, provider: str) -> None:
    """Refuse a model definition that would send a secret's key to another provider."""
    if not (secret_id and provider):
        return  # MLflow refuses this itself
    meant_for = internals.gateway_secret(secret_id).provider or ""
    if not internals.same_provider(meant_for, provider):
        raise _refused(
            f"The secret is a key for {meant_for or 'an unknown provider'}, and can't be sent to "
            f"{provider[:60]!r}: create a secret with that provider's key"
        )


def _refused(text: str) -> MlflowException:
    return MlflowException(text, INVALID_PARAMETER_VALUE)
