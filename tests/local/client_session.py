"""Run by test_stack.py in stock MLflow's own environment, as a user's script."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

done: dict[str, object] = {}
client = mlflow.MlflowClient()
mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])

with mlflow.start_run() as run, tempfile.TemporaryDirectory() as name:
    run_id = run.info.run_id
    folder = Path(name)
    names = ["plain.txt", "with space.txt", "ünïcode.txt", "100%.txt", "a+b.txt", "hash#.txt"]
    (folder / "in" / "deep" / "er").mkdir(parents=True)
    for number, file in enumerate(names):
        (folder / "in" / "deep" / "er" / file).write_text(str(number))
    mlflow.log_artifacts(str(folder / "in"))
    found = {
        file: Path(client.download_artifacts(run_id, f"deep/er/{file}", name)).read_text()
        for file in names
    }
    done["odd names"] = found == {file: str(number) for number, file in enumerate(names)}

    large = folder / "large 50% ü+.bin"
    content = os.urandom(12 << 20)
    large.write_bytes(content)
    mlflow.log_artifact(str(large))
    (folder / "copy").mkdir()
    copy = Path(client.download_artifacts(run_id, large.name, str(folder / "copy")))
    done["large file"] = (
        hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(content).digest()
    )

    listed = {(info.path, info.is_dir, info.file_size) for info in client.list_artifacts(run_id)}
    done["listing"] = listed == {("deep", True, None), (large.name, False, len(content))}

get_artifact_repository(client.get_run(run_id).info.artifact_uri).delete_artifacts("deep")
done["deleting"] = [info.path for info in client.list_artifacts(run_id)] == [large.name]

model = f"model of {os.environ['MLFLOW_EXPERIMENT_NAME']}"
client.create_registered_model(model)
version = client.create_model_version(model, source=f"runs:/{run_id}/deep", run_id=run_id)
client.set_registered_model_alias(model, "champion", version.version)
done["registry"] = client.get_model_version_by_alias(model, "champion").version == version.version


@mlflow.trace
def answer(question: str) -> str:
    with mlflow.start_span("think") as span:
        span.set_attribute("depth", 2)
    return question.upper()


answer("why")
mlflow.flush_trace_async_logging()
traces = mlflow.search_traces(return_type="list")
done["traces"] = [span.name for trace in traces for span in trace.data.spans] == ["answer", "think"]

for number in range(25):
    with mlflow.start_run(run_name=f"run {number}"):
        mlflow.log_metrics({"score": number})
done["search"] = len(mlflow.search_runs(filter_string="metrics.score >= 0"))

client.delete_run(run_id)
try:
    client.log_param(run_id, "late", 1)
    done["deleting"] = False
except MlflowException:
    client.restore_run(run_id)

print(json.dumps(done))
