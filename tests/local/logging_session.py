"""Logs runs from several threads at once with the real client, and reads them back.

Prints a JSON object: the number of runs, and the logged values that are missing.
"""

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
from mlflow import MlflowClient

RUNS, STEPS = 40, 8

mlflow.set_experiment("many instances")
client = MlflowClient()
experiment = client.get_experiment_by_name("many instances")
assert experiment is not None


def log(number: int) -> str:
    run = client.create_run(experiment.experiment_id, run_name=f"run {number}").info.run_id
    client.log_param(run, "number", number)
    for step in range(STEPS):
        client.log_metric(run, "loss", number + step, step=step)
    client.set_tag(run, "mlflow.runName", f"renamed {number}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "number.txt")
        file.write_text(str(number))
        client.log_artifact(run, str(file))
    client.set_terminated(run)
    return run


def missing(number: int, run: str) -> list[str]:
    found = client.get_run(run)
    artifact = Path(mlflow.artifacts.download_artifacts(run_id=run, artifact_path="number.txt"))
    losses = [(metric.step, metric.value) for metric in client.get_metric_history(run, "loss")]
    seen = {
        "state": (found.info.status, found.info.run_name, found.data.params),
        "losses": sorted(losses),
        "artifact": artifact.read_text(),
    }
    expected = {
        "state": ("FINISHED", f"renamed {number}", {"number": str(number)}),
        "losses": [(step, number + step) for step in range(STEPS)],
        "artifact": str(number),
    }
    return [f"{run}: {name}" for name in expected if seen[name] != expected[name]]


with ThreadPoolExecutor(RUNS) as threads:
    runs = list(threads.map(log, range(RUNS)))
    lost = [item for items in threads.map(missing, range(RUNS), runs) for item in items]
print(json.dumps({"runs": len(set(runs)), "lost": lost}))
