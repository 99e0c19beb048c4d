"""Checks that accounts need in addition to MLflow's permissions, for requests to its Flask app."""

import re
from typing import Any

from flask import Flask, Response, request
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.utils.mlflow_tags import MLFLOW_ARTIFACT_LOCATION, MLFLOW_TRACE_ARCHIVE_LOCATION

from tracking_server.accounts.identity import CALLER, Identity
from tracking_server.hot_routes.request import RUN_USER
from tracking_server.mlflow import auth_app, internals
from tracking_server.mlflow.request_limits import given_fields

_PATH = re.compile(r"/(?:ajax-)?api/[0-9.]+/mlflow/(.*)", re.DOTALL)

_LOCATIONS = frozenset({MLFLOW_ARTIFACT_LOCATION, MLFLOW_TRACE_ARCHIVE_LOCATION})
"""Tags of a trace that say where its files are; the server sets them."""


def enforce(flask: Flask) -> None:
    """Check each request after the caller's permissions, and before its view runs."""

    @internals.error_answers
    def check() -> Response | None:
        caller, path = CALLER.get(), _PATH.fullmatch(request.path)
        if caller and path and request.method == "POST":
            _check(path[1], caller)
        if caller and path and not caller.is_admin and request.method in ("POST", "PATCH", "PUT"):
            _keep_traces_locations(path[1])
        return None

    flask.before_request(check)


def _check(path: str, caller: Identity) -> None:
    if path == "runs/create":
        _own(caller.username)
    elif path == "runs/create-promptlab-run":
        # MLflow accepts no tags here.
        _object()["user_id"] = caller.username
    elif path in ("runs/set-tag", "runs/delete-tag"):
        _keep_user([given_fields()])
    elif path == "runs/log-batch":
        _keep_user(given_fields().get("tags"))
    elif caller.is_admin:
        return
    elif path == "experiments/create":
        fields = given_fields().items()
        if any(
            value and key.replace("_", "").lower() == "artifactlocation" for key, value in fields
        ):
            raise _denied(
                "Only an administrator may choose an experiment's artifact_location, since its "
                "owner may read everything in it: leave it out."
            )
    elif path == "model-versions/create" and not auth_app.is_own_source():
        raise _denied(
            "The source is in a bucket, and not in the artifacts of the run or the logged model "
            "that the request names. Name it in run_id or model_id, or use its artifact URI, for "
            "example runs:/RUN_ID/model."
        )


def _keep_traces_locations(path: str) -> None:
    if path.partition("/")[0] == "traces" and _has_location(given_fields()):
        raise _denied(
            f"The tags {' and '.join(sorted(_LOCATIONS))} say where a trace's files are, so only "
            "the server and administrators set them: leave them out."
        )


def _has_location(given: Any) -> bool:
    if isinstance(given, dict):
        return (
            not _LOCATIONS.isdisjoint(given)
            or given.get("key") in _LOCATIONS
            or any(map(_has_location, given.values()))
        )
    return isinstance(given, list) and any(map(_has_location, given))


def _own(username: str) -> None:
    """Make the caller the user of the run that this request creates."""
    fields = _object()
    fields.pop("userId", None)
    fields["user_id"] = username
    tags = fields.get("tags") or []
    if isinstance(tags, list):
        others = [tag for tag in tags if not _is_user(tag)]
        fields["tags"] = [*others, {"key": RUN_USER, "value": username}]


def _object() -> dict[str, Any]:
    """Returns the JSON object of the body, which MLflow's view gets too."""
    fields = request.get_json(force=True, silent=True)
    if not isinstance(fields, dict):
        raise MlflowException.invalid_parameter_value("The body must be a JSON object")
    return fields


def _keep_user(tags: Any) -> None:
    if isinstance(tags, list) and any(map(_is_user, tags)):
        raise _denied(
            f"The tag {RUN_USER} is the account that has created the run. It can't be changed."
        )


def _is_user(tag: Any) -> bool:
    return isinstance(tag, dict) and tag.get("key") == RUN_USER


def _denied(text: str) -> MlflowException:
    return MlflowException(text, PERMISSION_DENIED)
