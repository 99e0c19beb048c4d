"""runs/get and runs/search as MLflow answers them, but that the answer is written in one go."""

from flask import Flask, Response, current_app, request

from tracking_server.mlflow import internals
from tracking_server.mlflow.proto_json import to_json


def answer_at_once(flask: Flask) -> None:
    """Answer them in place of MLflow's views, after everything that it checks before a view."""
    messages = internals.run_messages()

    @internals.error_answers
    def respond(message: "internals.MakeMessage") -> Response:
        return Response(to_json(message()), mimetype="application/json")

    @flask.before_request
    def answer() -> Response | None:
        if request.method == "OPTIONS":  # which Flask answers without the view
            return None
        message = messages.get(current_app.view_functions.get(request.endpoint or ""))
        return respond(message) if message else None
