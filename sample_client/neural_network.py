"""A neural network with two hidden layers, without a large framework: scikit-learn's own.

With Keras, PyTorch Lightning or Transformers, `mlflow.autolog()` also logs the loss of each epoch,
which this sample logs by hand.
"""

import os
import re
import sys
from unittest.mock import patch

import mlflow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


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
mlflow.sklearn.autolog()
images, digits = load_digits(return_X_y=True)
train, test, train_digits, test_digits = train_test_split(images / 16, digits, random_state=0)
with mlflow.start_run(run_name="neural network"):
    network = MLPClassifier((64, 32), early_stopping=True, max_iter=200, random_state=0)
    network.fit(train, train_digits)
    for epoch, loss in enumerate(network.loss_curve_):
        mlflow.log_metric("loss", loss, step=epoch)
    print(f"{len(network.loss_curve_)} epochs, accuracy {network.score(test, test_digits):.2f}")
