"""A run with parameters, a metric over steps, a tag, a file and a figure's data."""

import os
import re
import sys
from unittest.mock import patch

import mlflow


def connect() -> None:
    """Fails at once if the server can't be used: MLflow would write files or retry for minutes."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    for name in names:
        if not os.getenv(name):
            sys.exit(f"{name} is not set: ask who runs the server, or source .local/env")
    if not re.match(r"https://|http://(localhost|127\.0\.0\.1)(:\d+)?(/|$)", os.environ[names[0]]):
        sys.exit(f"{names[0]}={os.environ[names[0]]} lacks https:// (http:// only on localhost)")
    try:
        with patch.dict(os.environ, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"):
            mlflow.set_experiment(os.getenv("MLFLOW_EXPERIMENT_NAME", "gallery"))
    except mlflow.MlflowException as error:
        why = " ".join(str(error).split())[:300]
        if error.get_http_status_code() == 401:
            why = f"wrong username or password: set {names[1]} and {names[2]}"
        sys.exit(f"{os.environ[names[0]]}: {why}")


connect()
with mlflow.start_run(run_name="plain"):
    mlflow.log_params({"learning_rate": 0.1, "steps": 20})
    mlflow.set_tag("purpose", "gallery")
    weight = 5.0
    for step in range(20):
        gradient = 2 * (weight - 2)
        weight -= 0.1 * gradient
        mlflow.log_metrics({"loss": (weight - 2) ** 2, "weight": weight}, step=step)
    mlflow.log_text(f"The weight is {weight:.3f}, and 2 is right.\n", "notes/result.txt")
    mlflow.log_dict({"weight": weight}, "result.json")
