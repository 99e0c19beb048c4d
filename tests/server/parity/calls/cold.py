"""First requests to a server: each needs a module that MLflow imports only for it."""

from tests.server.parity.call import Call, get, keys, post
from tests.server.parity.calls.traces import otlp, spans

_TRACE = "tr-2000000000000000000000000000$mark"
_PROMPTLAB = {
    "experiment_id": "0",
    "run_name": "prompt",
    "prompt_template": "say {{word}}",
    "prompt_parameters": keys(word="four"),
    "model_route": "r",
    "model_input": "say four",
    "mlflow_version": "3.0",
    "start_time": 1,
}

NATIVE: list[Call] = [
    otlp(spans(_TRACE, at=0), "application/json", x_mlflow_experiment_id="0"),
    get("/api/3.0/mlflow/server-info"),
    get("/api/3.0/mlflow/mcp-servers"),
    get("/ajax-api/3.0/mlflow/assistant/providers"),
    get("/gateway/mlflow/v1/models"),
    post("/gateway/missing/mlflow/invocations", {"messages": []}, 404),
    post("/ajax-api/3.0/jobs/search", {}),
    Call(method="PUT", path="/api/2.0/mlflow-artifacts/artifacts/cold/$mark.txt", content="x"),
    get("/api/2.0/mlflow-artifacts/artifacts/cold/missing", 404),
]

FLASK: list[Call] = [
    get("/"),
    get("/api/2.0/mlflow/experiments/search", max_results=1),
    post("/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"], "filter": "params.p = 'none'"}),
    post("/api/2.0/mlflow/runs/log-model", {"run_id": "r", "model_json": "{}"}, 400),
    post("/ajax-api/2.0/mlflow/runs/create-promptlab-run", _PROMPTLAB),
    post("/graphql", {"query": "{ nonsense }"}),
    post("/api/3.0/mlflow/datasets/search", {"filter_string": "name = '$mark'"}),
    get("/api/3.0/mlflow/prompt-optimization/jobs/search", experiment_id="0"),
    get("/api/3.0/mlflow/scorers/list", experiment_id="0"),
    get("/ajax-api/3.0/mlflow/jobs/missing", 404),
    get("/ajax-api/3.0/mlflow/gateway/supported-providers"),
]

CALLS: list[Call] = [*NATIVE, *FLASK]
