"""Logs the data that most page tests show: run by conftest.py with stock MLflow's own client."""

import json
import math
import os
import time

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import mlflow
from mlflow.entities import Metric, Param

EXPERIMENT = "churn-forecast"
STEPS = 60
client = mlflow.MlflowClient()
experiment = mlflow.set_experiment(EXPERIMENT)
# More experiments, so that the page has a list.
for name in ("demand-by-store", "image-quality", "support-answers"):
    client.create_experiment(name)


def curve(rate: float, depth: int) -> list[Metric]:
    now = int(time.time() * 1000)
    rows = []
    for step in range(STEPS):
        fit = 1 - math.exp(-step * rate * 4)
        wave = math.sin(step * 1.7 + depth) * 0.02
        rows += [
            Metric("loss", 0.9 - 0.07 * depth * fit - 0.3 * fit + wave, now + step, step),
            Metric("accuracy", 0.5 + 0.05 * depth * fit + 0.2 * fit - wave, now + step, step),
        ]
    return rows


runs = {}
for rate, depth in ((0.01, 2), (0.01, 4), (0.03, 2), (0.03, 4)):
    with mlflow.start_run(run_name=f"rate-{rate}-depth-{depth}") as run:
        parameters = {"learning_rate": rate, "depth": depth, "features": "all"}
        client.log_batch(
            run.info.run_id,
            metrics=curve(rate, depth),
            params=[Param(key, str(value)) for key, value in parameters.items()],
        )
        runs[run.info.run_name] = run.info.run_id

best = runs["rate-0.03-depth-4"]
with mlflow.start_run(run_id=best):
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.imshow([[41, 3], [5, 51]], cmap="Blues")
    axes.set_title("Confusion")
    mlflow.log_figure(figure, "plots/confusion.png")
    mlflow.log_text("Every store that opened in May is left out.\n", "notes.txt")
    mlflow.log_text("store,churn\nBern,0.12\nÖrebro,0.07\n", "tables/stores.csv")
    model = mlflow.pyfunc.log_model(
        name="churn", python_model=os.environ["MODEL"], pip_requirements=["mlflow"]
    )


@mlflow.trace
def answer(question: str) -> str:
    with mlflow.start_span("look up") as span:
        span.set_inputs({"query": question})
        span.set_outputs({"documents": 3})
    return f"Not yet: {question}"


answer("Will Bern churn?")
mlflow.flush_trace_async_logging()

print(json.dumps({"experiment": experiment.experiment_id, "best": best, "model": model.model_id}))
