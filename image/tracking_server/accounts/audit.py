"""Adds to the access log which object a request changes, and none of the request's content."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from starlette.types import Scope

from tracking_server.gate.access_log import LOG_FIELDS
from tracking_server.gate.viewer_policy import may_view

LONGEST = 256
"""Characters of a logged name."""

_CHANGE: ContextVar[dict[str, str] | None] = ContextVar("change", default=None)
"""The entry of the log about the current request's change, None if the request only reads."""

_PREFIX = re.compile(r"/(?:(?:ajax-)?api/[0-9.]+/(?:mlflow/)?)?")
_ARTIFACT = re.compile(
    r"(mlflow-artifacts/(?:mpu/)?[a-z-]+)/(?:([0-9]+)/(?:models/(m-[0-9a-f]+)|([0-9a-f]{32}))?)?.*",
    re.DOTALL,
)

_NAMES = {
    "run_id": "run",
    "run_uuid": "run",
    "experiment_id": "experiment",
    "model_id": "model",
    "trace_id": "trace",
    "request_id": "trace",
    # Of changes to accounts:
    "username": "account",
    "role_id": "role",
    "resource_type": "resource_type",
    "resource_id": "resource",
    "resource_pattern": "resource",
    "permission": "permission",
}
"""The fields of a request that say what it changes, and their names in the log."""

_MODELS = ("registered-models/", "model-versions/")


def begin(scope: Scope) -> None:
    """Log this request as a change, unless it only reads."""
    if may_view(scope["method"], scope["path"]):
        return
    action = _PREFIX.sub("", scope["path"], count=1)
    change = {"action": action[:LONGEST]}
    if found := _ARTIFACT.fullmatch(action):
        change["action"] = found[1]
        ids = zip(("experiment", "model", "run"), found.groups()[1:], strict=True)
        change |= {name: id_ for name, id_ in ids if id_}
    scope.setdefault(LOG_FIELDS, {})["change"] = change
    _CHANGE.set(change)


def add(**ids: str) -> None:
    """Log what the current request changes."""
    if (change := _CHANGE.get()) is not None:
        change.update(ids)


def add_fields(fields: Mapping[str, Any]) -> None:
    """Log those of a request's fields that say what it changes."""
    if (change := _CHANGE.get()) is None:
        return
    names = _NAMES | {"name": "model"} if change["action"].startswith(_MODELS) else _NAMES
    for key in fields.keys() & names:
        if type(value := fields[key]) in (str, int):
            change[names[key]] = str(value)[:LONGEST]
