"""XGBoost with autologging: the loss of each round, feature importance and the model."""

import os
import re
import sys
from unittest.mock import patch

import mlflow
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split


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
mlflow.xgboost.autolog()
features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
train, test, train_labels, test_labels = train_test_split(features, labels, random_state=0)
with mlflow.start_run(run_name="boosted trees"):
    # The metric validation_0-logloss gets each round's log loss on the test data.
    trees = xgboost.XGBClassifier(
        n_estimators=30, max_depth=3, learning_rate=0.3, early_stopping_rounds=5
    )
    trees.fit(train, train_labels, eval_set=[(test, test_labels)], verbose=False)
print(f"best after {trees.best_iteration} rounds, with a log loss of {trees.best_score:.3f}")
