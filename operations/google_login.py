"""Logs in to Google's front end of a stack whose `access` is iam or iap, as gcloud's account.

The sample client's plug-in does the same for MLflow's client: sample_client/google_login.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from operations import cli_tools
from operations.errors import OperationError
from operations.stack import CloudStack

# gcloud's variable for another address of an API: `gcloud topic configurations`.
_ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS"
_SECONDS = 20
_LARGEST = 100_000
_TOKEN_SECONDS = 600


def headers(stack: CloudStack) -> dict[str, str]:
    """Returns the headers that the front end requires, next to the server's own login."""
    address = str(stack.outputs["tracking_uri"])
    match stack.setting("access"):
        case "iam":
            return {"X-Serverless-Authorization": f"Bearer {_id_token(address)}"}
        case "iap":
            return {"Proxy-Authorization": f"Bearer {_signed_token(address)}"}
        case _:
            return {}


def _id_token(address: str) -> str:
    account, impersonated = _account()
    options = []
    # Cloud Run accepts a person's token although it is for gcloud itself.
    if _is_service_account(account):
        options.append(f"--audiences={address}")
    if impersonated:
        options.append("--include-email")
    return cli_tools.gcloud("auth", "print-identity-token", *options).strip()


def _signed_token(address: str) -> str:
    """Returns a JWT, which only a service account can sign.

    https://cloud.google.com/iap/docs/authentication-howto
    """
    account, _ = _account()
    if not _is_service_account(account):
        raise OperationError(
            "Identity-Aware Proxy lets commands in as a service account, and gcloud is logged in "
            f"as {account or 'nobody'}. Use one of the `invokers`, on which you and itself have "
            "the role Service Account Token Creator, for example "
            "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT=train@my-project.iam.gserviceaccount.com"
        )
    now = int(time.time())
    caller = {"iss": account, "sub": account, "aud": f"{address}/*"}
    claims = {**caller, "iat": now, "exp": now + _TOKEN_SECONDS}
    root = os.environ.get(_ENDPOINT) or "https://iamcredentials.googleapis.com/"
    request = urllib.request.Request(  # noqa: S310 Google's, or where gcloud is told it is
        f"{root.rstrip('/')}/v1/projects/-/serviceAccounts/{account}:signJwt",
        json.dumps({"payload": json.dumps(claims)}).encode(),
        {
            "Authorization": f"Bearer {cli_tools.gcloud('auth', 'print-access-token').strip()}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            return str(json.loads(answer.read(_LARGEST))["signedJwt"])
    except urllib.error.HTTPError as error:
        raise OperationError(
            f"{account} may not sign a token for Identity-Aware Proxy ({error.code}): it needs "
            "the role Service Account Token Creator on itself."
        ) from None
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise OperationError(f"IAM Credentials doesn't sign a token ({error})") from None


def _account() -> tuple[str, bool]:
    """Returns the account that gcloud acts as, and whether it impersonates it."""
    config: dict[str, Any] = cli_tools.gcloud_json("config", "list")
    impersonated = config.get("auth", {}).get("impersonate_service_account")
    return str(impersonated or config.get("core", {}).get("account", "")), bool(impersonated)


def _is_service_account(account: str) -> bool:
    return account.endswith(".gserviceaccount.com")
