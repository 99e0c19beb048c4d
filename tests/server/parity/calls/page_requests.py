"""The distinct requests that MLflow's page was seen to send in a browser, and what they need."""

import json
from pathlib import Path

from tests.server.parity.call import Call, keys, post

FILE = Path(__file__).with_suffix(".json")

_NAMES, _VERSIONS = "/api/2.0/mlflow/registered-models", "/api/2.0/mlflow/model-versions"
_SOURCE = "mlflow-artifacts:/$experiment/$run/artifacts/sub"


def _prompt(text: str) -> list[dict[str, str]]:
    return keys(**{"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": text})


# Objects like those that the page had found on its server.
PREPARED = [
    Call(
        method="PUT",
        path="/api/2.0/mlflow-artifacts/artifacts/$experiment/$run/artifacts/picture.png",
        content=b"PNG",
    ),
    post(f"{_NAMES}/create", {"name": "everything-$mark"}),
    *2
    * [
        post(
            f"{_VERSIONS}/create",
            {"name": "everything-$mark", "source": _SOURCE, "run_id": "$run"},
        )
    ],
    post(f"{_NAMES}/create", {"name": "greeting-$mark", "tags": _prompt("")[:1]}),
    *(
        post(
            f"{_VERSIONS}/create",
            {"name": "greeting-$mark", "source": "dummy-source", "tags": _prompt(text)},
        )
        for text in ("Say hello to {{name}}.", "Greet {{name}}.")
    ),
    post(
        "/api/3.0/mlflow/label-schemas/create",
        {
            "experiment_id": "$experiment",
            "name": "prepared",
            "type": "FEEDBACK",
            "input": {"pass_fail": {"positive_label": "yes", "negative_label": "no"}},
        },
        keep={"page_schema": "label_schema.schema_id"},
    ),
    post(
        "/api/3.0/mlflow/review-queues/create",
        {
            "experiment_id": "$experiment",
            "name": "prepared",
            "queue_type": "CUSTOM",
            "users": ["u"],
            "schema_ids": ["$page_schema"],
        },
        keep={"page_queue": "review_queue.queue_id"},
    ),
]

CALLS = [Call(**fields) for fields in json.loads(FILE.read_text())] if FILE.exists() else []
