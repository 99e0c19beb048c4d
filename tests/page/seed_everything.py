"""Logs something for each of MLflow's pages: run by conftest.py with stock MLflow's own client."""

import io
import json
import os
import wave

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import mlflow
import numpy as np
from mlflow.tracing.attachments import Attachment
from mlflow.utils.rest_utils import http_request

API = "/api/3.0/mlflow"
client = mlflow.MlflowClient()
host = client._tracking_client.store.get_host_creds()


def post(path: str, **body: object) -> dict[str, dict[str, str]]:
    answer = http_request(host, path, "POST", json=body, max_retries=0)
    assert answer.ok, f"{path}: {answer.text}"
    made: dict[str, dict[str, str]] = answer.json()
    return made


figure, axes = plt.subplots(figsize=(4, 3))
axes.plot([1, 3, 2])


def drawn(kind: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind)
    return file.getvalue()


sound = io.BytesIO()
with wave.open(sound, "wb") as recorded:
    recorded.setnchannels(1)
    recorded.setsampwidth(2)
    recorded.setframerate(8000)
    recorded.writeframes(bytes(8000))

SHAPES = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"name": "Bern"},
            "geometry": {"type": "Point", "coordinates": [7.44, 46.95]},
        }
    ],
}
FILES = {
    "picture.png": drawn("png"),
    "picture.jpg": drawn("jpg"),
    "drawing.svg": drawn("svg"),
    "paper.pdf": drawn("pdf"),
    "sound.wav": sound.getvalue(),
    "report.html": b"<!doctype html><style>h1 { color: teal }</style><h1>A report</h1>",
    "scripted.html": b"<p>as it is</p><script>document.body.innerText = 'changed'</script>",
    "table.csv": b"store,churn\nBern,0.12\n",
    "shapes.geojson": json.dumps(SHAPES).encode(),
    "values.json": b'{"one": [1, 2, 3]}',
    "notes.md": b"# Notes\n\nOf *May*.\n",
    "conda.yaml": b"name: env\n",
    "code.py": b"print('hello')\n",
    "script.js": b"window.marked = true",
    "plain.txt": b"Only text.\n",
    "bytes.bin": bytes(range(256)),
}

experiment = mlflow.set_experiment("everything").experiment_id
with mlflow.start_run(run_name="every kind of file") as run:
    for name, content in FILES.items():
        with open(name, "wb") as file:
            file.write(content)
        mlflow.log_artifact(name)
        os.unlink(name)
    mlflow.log_params({"one": 1})
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_image(np.full((8, 8, 3), 60 * step, dtype=np.uint8), key="steps", step=step)
    mlflow.log_table({"question": ["a"], "answer": ["b"]}, "evaluated.json")
    mlflow.log_input(mlflow.data.from_numpy(np.zeros((2, 2)), name="zeros"), context="train")
    mlflow.set_tag("mlflow.note.content", "# Title\n\n[a link](https://example.com)\n")
    model = mlflow.pyfunc.log_model(
        name="doubler", python_model=os.environ["MODEL"], pip_requirements=["mlflow"]
    )
with mlflow.start_run(run_name="another") as other:
    mlflow.log_params({"one": 2})
    mlflow.log_metric("loss", 0.5)
for _ in range(2):
    mlflow.register_model(model.model_uri, "everything")


@mlflow.trace(span_type="CHAT_MODEL")
def chat(messages: list[dict[str, str]]) -> dict[str, str]:
    mlflow.update_current_trace(
        metadata={"mlflow.trace.session": "session-1", "mlflow.trace.user": "somebody"}
    )
    span = mlflow.get_current_active_span()
    if span is not None:
        files = {
            "paper.pdf": "application/pdf",
            "picture.png": "image/png",
            "sound.wav": "audio/wav",
        }
        span.set_attributes({"size": 1})
        span.set_inputs(
            {
                "messages": messages,
                "files": [
                    Attachment(content_type=kind, content_bytes=FILES[name])
                    for name, kind in files.items()
                ],
            }
        )
    return {"role": "assistant", "content": "An *answer*."}


for question in ("First?", "Second?"):
    chat([{"role": "user", "content": question}])
mlflow.flush_trace_async_logging()
trace = str(mlflow.get_last_active_trace_id())
mlflow.log_feedback(trace_id=trace, name="helpful", value=True)
mlflow.genai.register_prompt("greeting", "Say hello to {{name}}.")
mlflow.genai.register_prompt("greeting", "Greet {{name}}.")

secret = post(
    f"{API}/gateway/secrets/create",
    secret_name="key",
    secret_value={"api_key": "sk-0123456789"},
    provider="openai",
)["secret"]["secret_id"]
definition = post(
    f"{API}/gateway/model-definitions/create",
    name="model", secret_id=secret, provider="openai", model_name="m",
)["model_definition"]["model_definition_id"]  # fmt: skip
part = {"model_definition_id": definition, "linkage_type": "PRIMARY", "weight": 1.0}
endpoint = post(f"{API}/gateway/endpoints/create", name="chat", model_configs=[part])["endpoint"]
# MLflow's own examples: sessions, evaluations, datasets, judges, prompts.
demo = post("/ajax-api/3.0/mlflow/demo/generate")
dataset = post(f"{API}/datasets/create", name="questions", experiment_ids=[demo["experiment_id"]])

print(
    json.dumps(
        {
            "experiment": experiment,
            "run": run.info.run_id,
            "other": other.info.run_id,
            "model": model.model_id,
            "trace": trace,
            "endpoint": endpoint["endpoint_id"],
            "demo": demo["experiment_id"],
        }
    )
)
