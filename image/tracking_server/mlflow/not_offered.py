"""Refuses requests for MLflow's background jobs and workspaces, which this server doesn't offer."""

import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.gate.body_limits import replayed
from tracking_server.gate.refusals import refuse

_EVALUATE_YOURSELF = (
    "mlflow.genai.evaluate(data=mlflow.search_traces(...), scorers=[...]) in your own program"
)
_OFF = "This server doesn't run jobs, because its setting `jobs` is off"

_JUDGE = f"{_OFF}, so judges don't run here: have `jobs` set to true, or call {_EVALUATE_YOURSELF}"
_DETECT = (
    f"{_OFF}, so issues aren't detected here: have `jobs` set to true, or call {_EVALUATE_YOURSELF}"
)
_SCHEDULE = (
    f"{_OFF}, so new traces aren't evaluated automatically: set the sample rate to 0, or have "
    f"`jobs` set to true; or call {_EVALUATE_YOURSELF}"
)
_OPTIMIZE = (
    "This server doesn't optimize prompts, because it has no litellm: call "
    "mlflow.genai.optimize_prompts(...) in your own program"
)
_SUBMIT = (
    "This server doesn't accept jobs by their name: start them in MLflow's page, or do the work in "
    "your own program, with MLflow's client"
)
_KEY = (
    "This server detects issues only with an endpoint of its gateway, not with a provider's API "
    "key: create an endpoint with that key, and select it"
)
_WORKSPACES = (
    "This server doesn't offer workspaces: unset MLFLOW_WORKSPACE, and separate teams by "
    "experiments, or by a stack for each team"
)

_ISSUES = "/ajax-api/3.0/mlflow/issues/invoke"

OFFERED = {
    ("POST", "/ajax-api/3.0/mlflow/scorer/invoke"): _JUDGE,
    ("POST", "/ajax-api/3.0/mlflow/genai/evaluate/invoke"): _JUDGE,
    ("POST", _ISSUES): _DETECT,
}
"""The routes that start a job with the setting `jobs`."""

NEVER_OFFERED = {
    ("POST", "/api/3.0/mlflow/prompt-optimization/jobs"): _OPTIMIZE,
    ("POST", "/ajax-api/3.0/mlflow/prompt-optimization/jobs"): _OPTIMIZE,
    ("POST", "/ajax-api/3.0/jobs/"): _SUBMIT,
}
"""The other routes that start a job. Still others read, cancel or delete jobs, which a database
that was moved here can have."""

_ONLINE_SCORING = "/mlflow/scorers/online-config"
_WORKSPACE_ROUTES = ("/api/3.0/mlflow/workspaces/", "/ajax-api/3.0/mlflow/workspaces/")


class NotOffered:
    """Returns 501 with the reason, before anything is written; passes on all other requests.

    Bodies arrive in one message.
    """

    def __init__(self, app: ASGIApp, *, jobs: bool) -> None:
        self.app, self._jobs = app, jobs
        self._refused = NEVER_OFFERED if jobs else NEVER_OFFERED | OFFERED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        reason = self._refused.get((method, path), "") or _workspace_problem(scope)
        if not reason and (look := self._look(method, path)):
            body = (await receive())["body"]
            receive = replayed(body, receive)
            reason = look(_fields(body))
        if reason:
            await refuse(send, 501, reason)
        else:
            await self.app(scope, receive, send)

    def _look(self, method: str, path: str) -> Callable[[dict[str, Any]], str] | None:
        """Returns the function that says why a request with these fields is refused."""
        if self._jobs:
            return _key_problem if (method, path) == ("POST", _ISSUES) else None
        return _rate_problem if method == "PUT" and path.endswith(_ONLINE_SCORING) else None


def _workspace_problem(scope: Scope) -> str:
    path = scope["path"]
    if path.endswith("/mlflow/server-info"):  # clients ask here whether there are workspaces
        return ""
    if (f"{path}/".startswith(_WORKSPACE_ROUTES) and scope["method"] != "OPTIONS") or any(
        name == b"x-mlflow-workspace" and value.strip() for name, value in scope["headers"]
    ):
        return _WORKSPACES
    return ""


def _rate_problem(fields: dict[str, Any]) -> str:
    try:
        return _SCHEDULE if float(fields.get("sample_rate", 0)) else ""
    except (ValueError, TypeError):
        return ""  # MLflow itself refuses it


def _key_problem(fields: dict[str, Any]) -> str:
    return "" if fields.get("endpoint_name") and not fields.get("secret_id") else _KEY


def _fields(body: bytes) -> dict[str, Any]:
    """Returns the fields of a JSON object, none for a request that MLflow itself refuses."""
    try:
        fields: Any = json.loads(body)
        if isinstance(fields, str):  # MLflow accepts JSON that is encoded twice
            fields = json.loads(fields)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
