"""Run by test_google_login.py in stock MLflow's own environment, with the plug-in installed."""

import os
import sys
import tempfile
from pathlib import Path

import mlflow
import mlflow_google_login

mlflow_google_login.IAM_CREDENTIALS = os.environ["IAM_CREDENTIALS"]
client = mlflow.MlflowClient()
mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_text("proxied", "notes.txt")
    copy = client.download_artifacts(run.info.run_id, "notes.txt", folder)
    text = Path(copy).read_text()
history = client.get_metric_history(run.info.run_id, "loss")
sys.exit((text, len(history)) != ("proxied", 20))
