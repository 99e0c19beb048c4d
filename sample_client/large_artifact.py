"""A file of 500 MiB, which the client uploads to the bucket in parts and downloads again.

MLflow's client bypasses the server for files of MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE or more:
the server signs an address for each part. Smaller files go through the server. The sample needs
1 GiB of disk for a short time.
"""

import filecmp
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import mlflow
from mlflow.environment_variables import MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE

MEBIBYTE = 1 << 20


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


os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
connect()
with tempfile.TemporaryDirectory() as folder:
    large = Path(folder, "large.bin")
    size = MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE.get()
    block = os.urandom(MEBIBYTE)
    with large.open("wb") as file:
        for _ in range(-(-size // MEBIBYTE)):
            file.write(block)
    started = time.monotonic()
    with mlflow.start_run(run_name="large artifact") as run:
        mlflow.log_artifact(str(large))
    print(f"{large.stat().st_size >> 20} MiB up in {time.monotonic() - started:.1f} s")
    started = time.monotonic()
    copy = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="large.bin", dst_path=f"{folder}/copy"
    )
    print(f"and down in {time.monotonic() - started:.1f} s")
    if not filecmp.cmp(large, copy, shallow=False):
        sys.exit("The downloaded file differs from the uploaded one")
