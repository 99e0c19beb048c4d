"""scikit-learn with autologging: parameters, metrics, figures and the model."""

import os
import re
import sys
from unittest.mock import patch

import mlflow
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
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
mlflow.sklearn.autolog()
features, species = load_iris(return_X_y=True, as_frame=True)
train, test, train_species, test_species = train_test_split(features, species, random_state=0)
with mlflow.start_run(run_name="random forest") as run:
    forest = RandomForestClassifier(n_estimators=20, max_depth=3, random_state=0)
    forest.fit(train, train_species)
    # Autolog also logs this value, as RandomForestClassifier_score_test.
    print(f"accuracy {forest.score(test, test_species):.2f}")

[model] = mlflow.search_logged_models(
    filter_string=f"source_run_id='{run.info.run_id}'", output_format="list"
)
again = mlflow.sklearn.load_model(model.model_uri)
print(
    f"read back, the model says {again.predict(test[:3])}, and right is {test_species[:3].values}"
)
