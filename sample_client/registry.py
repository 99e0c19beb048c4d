"""The model registry: two versions, and an alias for the version in use.

A service that uses the model loads `models:/gallery-line@champion`, without naming a version.
"""

import os
import re
import sys
from unittest.mock import patch

import mlflow
import numpy as np
from sklearn.linear_model import LinearRegression

NAME, ALIAS = "gallery-line", "champion"


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


def register(slope: float) -> str:
    """Registers a model, and returns the new version's number."""
    x = np.arange(10.0).reshape(-1, 1)
    with mlflow.start_run(run_name=f"slope {slope}"):
        logged = mlflow.sklearn.log_model(
            LinearRegression().fit(x, slope * x.ravel()), name="line", input_example=x[:2],
            registered_model_name=NAME, pip_requirements=["scikit-learn"],
        )  # fmt: skip
    return str(logged.registered_model_version)


def in_use() -> float:
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@{ALIAS}")
    return round(float(model.predict(np.array([[10.0]]))[0]), 3)


connect()
client = mlflow.MlflowClient()
for slope in (2.0, 3.0):
    version = register(slope)
    client.set_registered_model_alias(NAME, ALIAS, version)
    print(f"{NAME}@{ALIAS} is version {version} now, and says {in_use()} for 10")
