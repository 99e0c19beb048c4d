"""A session in a client's environment, on the server that MLFLOW_TRACKING_URI names.

`make` logs one of everything. `show` prints all of it, so that two servers can be compared. `more`
continues logging there, and `read` reads what clients of an older server logged.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import mlflow.genai
from mlflow.entities import Metric, Param, RunTag, ViewType

EXPERIMENT = "moving"
MODEL = "mover"


class Doubler(mlflow.pyfunc.PythonModel):
    def predict(self, context: Any, model_input: list[float]) -> list[float]:
        return [2 * number for number in model_input]


@mlflow.trace
def answer(question: str) -> str:
    with mlflow.start_span("think", span_type="CHAIN") as span:
        span.set_attribute("depth", 2)
        span.add_event(mlflow.entities.SpanEvent("halfway"))
    return question.upper()


def make() -> None:
    client = mlflow.MlflowClient()
    mlflow.set_experiment(EXPERIMENT)
    mlflow.set_experiment_tag("team", "vision")
    for number in (1, 2):
        with mlflow.start_run(run_name=f"run {number}", description="a note") as run:
            client.log_batch(
                run.info.run_id,
                metrics=[Metric("loss", 1 / step, 1000 + step, step) for step in range(1, 6)]
                + [Metric("odd", float("nan"), 1000, 0), Metric("huge", float("inf"), 1000, 0)],
                params=[Param("number", str(number)), Param("long", "ü" * 500)],
                tags=[RunTag("kept", "yes")],
            )
            mlflow.log_text("inner", "deep/er/with space.txt")
            mlflow.log_text(str(number), "plain.txt")
            mlflow.pyfunc.log_model(
                name="doubler", python_model=Doubler(), registered_model_name=MODEL
            )
            with mlflow.start_run(run_name=f"child of {number}", nested=True):
                mlflow.log_metric("loss", number)
    with mlflow.start_run(run_name="deleted") as run:
        pass
    client.delete_run(run.info.run_id)
    client.update_registered_model(MODEL, description="doubles")
    client.set_registered_model_tag(MODEL, "stage", "test")
    client.set_registered_model_alias(MODEL, "champion", "1")
    client.set_model_version_tag(MODEL, "2", "checked", "no")
    client.update_model_version(MODEL, "2", description="the second")
    answer("why")
    mlflow.flush_trace_async_logging()
    trace = mlflow.search_traces(return_type="list")[0]
    mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True, rationale="short")
    mlflow.set_trace_tag(trace.info.trace_id, "kept", "yes")
    mlflow.genai.register_prompt(name="greeting", template="Hello {{name}}", commit_message="first")
    mlflow.genai.set_prompt_alias("greeting", alias="live", version=1)


def _files(client: mlflow.MlflowClient, run_id: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(client.download_artifacts(run_id, "", name))
        return {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def _history(client: mlflow.MlflowClient, run_id: str, key: str) -> list[Any]:
    # A file store keeps a value that is logged twice as two; a database has no infinity.
    found = client.get_metric_history(run_id, key)
    return sorted({(m.step, m.timestamp, str(min(m.value, sys.float_info.max))) for m in found})


def show() -> None:
    client = mlflow.MlflowClient()
    seen: dict[str, Any] = {}
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment
    seen["experiment"] = {k: v for k, v in experiment.tags.items() if not k.startswith("mlflow.")}
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    by_id = {run.info.run_id: run.info.run_name for run in runs}
    for run in runs:
        name = run.info.run_name
        seen[f"{name}: info"] = [run.info.status, run.info.lifecycle_stage]
        seen[f"{name}: user"] = run.info.user_id
        seen[f"{name}: times"] = [run.info.start_time, run.info.end_time]
        seen[f"{name}: params"] = run.data.params
        seen[f"{name}: metrics"] = {
            key: _history(client, run.info.run_id, key) for key in sorted(run.data.metrics)
        }
        seen[f"{name}: tags"] = {
            k: v for k, v in run.data.tags.items() if k in ("kept", "mlflow.note.content")
        }
        seen[f"{name}: parent"] = by_id.get(run.data.tags.get("mlflow.parentRunId", ""))
        if run.info.lifecycle_stage == "active":
            seen[f"{name}: files"] = _files(client, run.info.run_id)
        seen[f"{name}: models"] = len(run.outputs.model_outputs) if run.outputs else 0
        seen[f"{name}: id"] = run.info.run_id
    models = client.search_logged_models([experiment.experiment_id])
    seen["logged models"] = sorted(
        [model.model_id, model.name, str(model.status), by_id.get(model.source_run_id)]
        for model in models
    )
    model = client.get_registered_model(MODEL)
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    seen["model"] = [model.description, model.tags, aliases]
    for version in client.search_model_versions(f"name='{MODEL}'"):
        run = by_id.get(version.run_id)
        seen[f"version {version.version}"] = [
            *(version.description, version.tags, version.status, version.creation_timestamp, run),
            mlflow.pyfunc.load_model(f"models:/{MODEL}/{version.version}").predict([21.0]),
        ]
    for trace in client.search_traces(locations=[experiment.experiment_id]):
        seen["trace"] = [
            *(trace.info.trace_id, trace.info.request_time, trace.info.tags.get("kept")),
            [[given.name, given.value, given.rationale] for given in trace.info.assessments],
        ]
        for span in trace.data.spans:
            events = [event.name for event in span.events]
            seen[f"span {span.name}"] = [
                *(span.span_type, span.attributes.get("depth"), events, span.inputs, span.outputs)
            ]
    prompt = mlflow.genai.load_prompt("prompts:/greeting@live")
    seen["prompt"] = [prompt.template, prompt.version, prompt.commit_message]
    print(json.dumps(seen, sort_keys=True))


def more() -> None:
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment("after the move"))
    client.log_metric(run.info.run_id, "loss", 1)
    client.log_text(run.info.run_id, "more", "more.txt")
    source = f"runs:/{run.info.run_id}/more"
    assert int(client.create_model_version(MODEL, source, run.info.run_id).version) == 3


def read() -> None:
    folder = mlflow.artifacts.download_artifacts("mlflow-artifacts:/7/run")
    print(json.dumps(Path(folder, "model").read_text()))


{"make": make, "show": show, "more": more, "read": read}[sys.argv[1]]()
