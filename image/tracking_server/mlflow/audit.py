"""Adds to the access log which object a request changes in MLflow's Flask app."""

from flask import Flask, Response, request

from tracking_server.accounts import audit
from tracking_server.mlflow.request_limits import given_fields


def watch_changes(flask: Flask) -> None:
    """Log the ids in each request, and the id of an object that it creates."""

    def tell(response: Response) -> Response:
        if request.method in ("POST", "PUT", "PATCH", "DELETE"):
            audit.add_fields({**given_fields(), **(request.view_args or {})})
            if response.status_code < 400:
                audit.add(**_created(request.path, response))
        return response

    flask.after_request(tell)


def _created(path: str, response: Response) -> dict[str, str]:
    if path.endswith("/mlflow/experiments/create"):
        return {"experiment": response.get_json()["experiment_id"]}
    if path.endswith("/mlflow/runs/create"):
        return {"run": response.get_json()["run"]["info"]["run_id"]}
    if path.endswith("/mlflow/logged-models"):
        return {"model": response.get_json()["model"]["info"]["model_id"]}
    return {}
