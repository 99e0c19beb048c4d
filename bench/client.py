"""Transfers one file with MLflow's own client, run by its own Python; prints the seconds.

    client.py up RUN FILE
    client.py down RUN NAME FOLDER

The client's settings and its login are in the environment. Starting Python and importing MLflow are
not counted.
"""

import sys
import time

from mlflow import MlflowClient  # type: ignore[import-not-found]

client = MlflowClient()
direction, run, *rest = sys.argv[1:]
started = time.perf_counter()
if direction == "up":
    client.log_artifact(run, *rest)
else:
    client.download_artifacts(run, *rest)
print(time.perf_counter() - started)
