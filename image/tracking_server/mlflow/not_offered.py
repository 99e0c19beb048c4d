"""Refuses requests for MLflow's background jobs and workspaces, which this server doesn't offer."""

import json
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.gate.body_limits import replayed
from tracking_server.gate.refusals import refuse

_NO_JOBS = "This server doesn't run jobs"

_EVALUATE = (
    f"{_NO_JOBS}, so judges don't run here: run them in your own program, with "
    "mlflow.genai.evaluate(data=mlflow.search_traces(...), scorers=[...])"
)
_OPTIMIZE = (
    f"{_NO_JOBS}, so prompts aren't optimized here: call mlflow.genai.optimize_prompts(...) in "
    "your own program"
)
_DETECT = (
    f"{_NO_JOBS}, so issues aren't detected here: evaluate the traces in your own program, with "
    "mlflow.genai.evaluate(data=mlflow.search_traces(...), scorers=[...])"
)
_SCHEDULE = (
    f"{_NO_JOBS}, so new traces aren't evaluated automatically: set the sample rate to 0, and run "
    "mlflow.genai.evaluate(data=mlflow.search_traces(...), scorers=[...]) in your own program"
)
_SUBMIT = f"{_NO_JOBS}: do the work in your own program, with MLflow's client"
_WORKSPACES = (
    "This server doesn't offer workspaces: unset MLFLOW_WORKSPACE, and separate teams by "
    "experiments, or by a stack for each team"
)

JOBS = {
    ("POST", "/ajax-api/3.0/mlflow/scorer/invoke"): _EVALUATE,
    ("POST", "/ajax-api/3.0/mlflow/genai/evaluate/invoke"): _EVALUATE,
    ("POST", "/ajax-api/3.0/mlflow/issues/invoke"): _DETECT,
    ("POST", "/api/3.0/mlflow/prompt-optimization/jobs"): _OPTIMIZE,
    ("POST", "/ajax-api/3.0/mlflow/prompt-optimization/jobs"): _OPTIMIZE,
    ("POST", "/ajax-api/3.0/jobs/"): _SUBMIT,
}
"""The routes that start a job. Others read, cancel or delete jobs, which a database that was moved
here can have."""

_ONLINE_SCORING = "/mlflow/scorers/online-config"
_WORKSPACE_ROUTES = ("/api/3.0/mlflow/workspaces/", "/ajax-api/3.0/mlflow/workspaces/")


class NotOffered:
    """Returns 501 with the reason, before anything is written; passes on all other requests.

    Bodies arrive in one message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        reason = JOBS.get((method, path), "") or _workspace_problem(scope)
        if not reason and method == "PUT" and path.endswith(_ONLINE_SCORING):
            body = (await receive())["body"]
            receive = replayed(body, receive)
            reason = _SCHEDULE if _sample_rate(body) else ""
        if reason:
            await refuse(send, 501, reason)
        else:
            await self.app(scope, receive, send)


def _workspace_problem(scope: Scope) -> str:
    path = scope["path"]
    if path.endswith("/mlflow/server-info"):  # clients ask here whether there are workspaces
        return ""
    if (f"{path}/".startswith(_WORKSPACE_ROUTES) and scope["method"] != "OPTIONS") or any(
        name == b"x-mlflow-workspace" and value.strip() for name, value in scope["headers"]
    ):
        return _WORKSPACES
    return ""


def _sample_rate(body: bytes) -> float:
    """Returns the share of new traces to evaluate; 0 for a request that MLflow itself refuses."""
    try:
        fields: Any = json.loads(body)
        if isinstance(fields, str):  # MLflow accepts JSON that is encoded twice
            fields = json.loads(fields)
        return float(fields["sample_rate"])
    except (ValueError, KeyError, TypeError):
        return 0.0
