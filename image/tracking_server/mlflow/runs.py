"""Handles runs/get and runs/search as MLflow does, but writes the response in one step."""

from flask import Flask, Response, current_app, request

from tracking_server.mlflow import internals
from tracking_server.mlflow.proto_json import to_json


def answer_at_once(flask: Flask) -> None:
    """Replace MLflow's two views, after all checks that run before a view."""
    messages = internals.run_messages()

    @internals.error_answers
    def respond(message: "internals.MakeMessage") -> Response:
        return Response(to_json(message()), mimetype="application/json")

    @flask.before_request
    def answer() -> Response | None:
        if request.method == "OPTIONS":  # Flask responds without the view
            return None
        message = messages.get(current_app.view_functions.get(request.endpoint or ""))
        return respond(message) if message else None
