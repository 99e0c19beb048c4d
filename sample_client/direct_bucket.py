"""Artifacts without the server: with `artifacts: direct`, the client writes to the bucket itself.

Requires Google credentials that may write there: gcloud auth application-default login.
"""

import os
import re
import sys
from unittest.mock import patch

import mlflow
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage


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
try:
    google = storage.Client()
except GoogleAuthError:
    sys.exit("There are no Google credentials here: gcloud auth application-default login")
with mlflow.start_run(run_name="direct") as run:
    folder = run.info.artifact_uri
    if not folder.startswith("gs://"):
        sys.exit(
            f"This experiment's artifacts go through the server ({folder}): take a new "
            "MLFLOW_EXPERIMENT_NAME, made since `pulumi config set artifacts direct`"
        )
    mlflow.log_text("From here to the bucket.\n", "notes/direct.txt")

# The same file, as Google's tools see it.
bucket, _, path = folder.removeprefix("gs://").partition("/")
text = google.bucket(bucket).blob(f"{path}/notes/direct.txt").download_as_text()
print(f"{folder}/notes/direct.txt: {text}", end="")
