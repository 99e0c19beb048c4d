"""Imports MLflow's Flask app as the server does."""

from flask import Flask
from tracking_server.artifacts.plugin import gcs_artifact_repository
from tracking_server.mlflow import internals


def import_flask() -> Flask:
    return internals.import_flask(gcs_repository=gcs_artifact_repository)
