"""A sweep in two processes: a parent run, a child run for each attempt, a search for the best."""

import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

import mlflow
import numpy as np

DEGREES = [1, 2, 3, 5, 8, 13]


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


def attempt(degree: int, parent: str, experiment: str) -> None:
    """Runs in a separate process, with the address and the password from the environment."""
    random = np.random.default_rng(0)
    x, unseen = random.uniform(-1, 1, 40), random.uniform(-1, 1, 40)
    noisy, wanted = np.sin(3 * x) + random.normal(0, 0.1, 40), np.sin(3 * unseen)
    with mlflow.start_run(
        run_name=f"degree {degree}", experiment_id=experiment, parent_run_id=parent, nested=True
    ):
        mlflow.log_param("degree", degree)
        found = np.polyval(np.polyfit(x, noisy, degree), unseen)
        mlflow.log_metric("error", float(np.sqrt(np.mean((found - wanted) ** 2))))


if __name__ == "__main__":
    connect()
    with mlflow.start_run(run_name="sweep") as run:
        family = run.info.run_id, run.info.experiment_id
        # spawn, because MLflow has threads, which a fork wouldn't copy.
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            for done in [pool.submit(attempt, degree, *family) for degree in DEGREES]:
                done.result()
        [best] = mlflow.search_runs(
            filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'",
            order_by=["metrics.error"], max_results=1, output_format="list",
        )  # fmt: skip
        mlflow.log_param("best_degree", best.data.params["degree"])
    print(f"best: degree {best.data.params['degree']}, error {best.data.metrics['error']:.3f}")
