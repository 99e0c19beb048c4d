"""Experiments, runs, metrics, parameters, tags, inputs, logged models."""

from tests.server.parity.call import Call, delete, get, keys, patch, post, text

_EXPERIMENTS = "/api/2.0/mlflow/experiments"
_RUNS = "/api/2.0/mlflow/runs"
_METRICS = "/api/2.0/mlflow/metrics"
_MODELS = "/api/2.0/mlflow/logged-models"

_DATASET = {
    "name": "d",
    "digest": "0123",
    "source_type": "local",
    "source": text({"uri": "/data"}),
    "schema": text({"mlflow_colspec": [{"name": "x", "type": "long"}]}),
    "profile": text({"num_rows": 2}),
}

EXPERIMENTS = [
    post(
        f"{_EXPERIMENTS}/create",
        {"name": "first $mark", "tags": keys(team="a")},
        keep={"experiment": "experiment_id"},
    ),
    post(f"{_EXPERIMENTS}/create", {"name": "first $mark"}, 400),
    post(f"{_EXPERIMENTS}/create", {"name": ""}, 400),
    post(f"{_EXPERIMENTS}/create", {"name": "second $mark"}, keep={"other": "experiment_id"}),
    post(f"{_EXPERIMENTS}/create", {"name": "third $mark", "artifact_location": "gs://b#f"}, 400),
    get(f"{_EXPERIMENTS}/get", experiment_id="$experiment"),
    get(f"{_EXPERIMENTS}/get", 404, experiment_id="987654"),
    get(f"{_EXPERIMENTS}/get-by-name", experiment_name="first $mark"),
    get(f"{_EXPERIMENTS}/get-by-name", 404, experiment_name="ä none"),
    get(f"{_EXPERIMENTS}/search", max_results=2, order_by="name ASC", filter="name LIKE '%$mark'"),
    post(f"{_EXPERIMENTS}/search", {"max_results": 1, "filter": "name LIKE '%$mark'"}),
    post(f"{_EXPERIMENTS}/search", {"filter": "nonsense"}, 400),
    post(f"{_EXPERIMENTS}/update", {"experiment_id": "$other", "new_name": "renamed $mark"}),
    post(
        f"{_EXPERIMENTS}/set-experiment-tag",
        {"experiment_id": "$experiment", "key": "k", "value": "ü"},
    ),
    post(f"{_EXPERIMENTS}/delete-experiment-tag", {"experiment_id": "$experiment", "key": "k"}),
    post(
        f"{_EXPERIMENTS}/delete-experiment-tag", {"experiment_id": "$experiment", "key": "k"}, 404
    ),
    post(f"{_EXPERIMENTS}/delete", {"experiment_id": "$other"}),
    post(f"{_EXPERIMENTS}/restore", {"experiment_id": "$other"}),
]

RUNS = [
    post(
        f"{_RUNS}/create",
        {
            "experiment_id": "$experiment",
            "run_name": "one",
            "user_id": "u",
            "start_time": 1,
            "tags": keys(stage="train"),
        },
        keep={"run": "run.info.run_id"},
    ),
    post(
        f"{_RUNS}/create",
        {"experiment_id": "$experiment", "run_name": "two", "start_time": 2},
        keep={"run2": "run.info.run_id"},
    ),
    post(f"{_RUNS}/create", {"experiment_id": "987654"}, 404),
    post(f"{_RUNS}/log-metric", {"run_id": "$run", "key": "m", "value": 0.5, "timestamp": 1}),
    post(
        f"{_RUNS}/log-metric",
        {"run_id": "$run", "key": "m", "value": "NaN", "timestamp": 2, "step": 1},
    ),
    post(
        f"{_RUNS}/log-metric",
        {"run_id": "$run", "key": "m", "value": "Infinity", "timestamp": 3, "step": 2},
    ),
    post(f"{_RUNS}/log-metric", {"run_id": "$run", "key": "m", "value": "text"}, 400),
    post(f"{_RUNS}/log-parameter", {"run_id": "$run", "key": "p", "value": "1"}),
    post(f"{_RUNS}/log-parameter", {"run_id": "$run", "key": "p", "value": "2"}, 400),
    post(f"{_RUNS}/set-tag", {"run_id": "$run", "key": "t", "value": "ä"}),
    post(f"{_RUNS}/set-tag", {"run_id": "$run", "key": "gone", "value": "1"}),
    post(f"{_RUNS}/delete-tag", {"run_id": "$run", "key": "gone"}),
    post(f"{_RUNS}/delete-tag", {"run_id": "$run", "key": "gone"}, 404),
    post(
        f"{_RUNS}/log-batch",
        {
            "run_id": "$run",
            "metrics": [
                {"key": "loss", "value": 1 / (step + 1), "timestamp": step, "step": step}
                for step in range(20)
            ],
            "params": keys(depth="3", width="4"),
            "tags": keys(x="y"),
        },
    ),
    post(
        f"{_RUNS}/log-batch",
        {"run_id": "$run", "params": [{"key": f"p{n}", "value": "v"} for n in range(101)]},
        400,
    ),
    post(
        f"{_RUNS}/log-inputs",
        {
            "run_id": "$run",
            "datasets": [{"tags": keys(**{"mlflow.data.context": "train"}), "dataset": _DATASET}],
        },
    ),
    post(
        f"{_RUNS}/log-model",
        {
            "run_id": "$run",
            "model_json": text(
                {
                    "artifact_path": "model",
                    "run_id": "r",
                    "utc_time_created": "2026-01-01 00:00:00.0",
                    "flavors": {"python_function": {"loader_module": "m"}},
                }
            ),
        },
    ),
    post(f"{_RUNS}/log-model", {"run_id": "$run", "model_json": "{"}, 400),
    post(
        f"{_RUNS}/update",
        {"run_id": "$run", "status": "FINISHED", "end_time": 9, "run_name": "one again"},
    ),
    get(f"{_RUNS}/get", run_id="$run"),
    get(f"{_RUNS}/get", 404, run_id="missing"),
    get(f"{_RUNS}/get", 400),
    post(
        f"{_RUNS}/search",
        {
            "experiment_ids": ["$experiment"],
            "filter": "metrics.loss < 0.5 AND params.depth = '3' AND tags.t = 'ä'",
            "order_by": ["metrics.loss DESC"],
        },
    ),
    post(
        f"{_RUNS}/search",
        {"experiment_ids": ["$experiment"], "max_results": 1, "order_by": ["start_time ASC"]},
        keep={"page": "next_page_token"},
    ),
    post(
        f"{_RUNS}/search",
        {
            "experiment_ids": ["$experiment"],
            "max_results": 1,
            "order_by": ["start_time ASC"],
            "page_token": "$page",
        },
    ),
    post(f"{_RUNS}/search", {"experiment_ids": ["$experiment"], "filter": "metrics."}, 400),
    post(f"{_RUNS}/search", {"experiment_ids": ["$experiment"], "run_view_type": "ALL"}),
    get(f"{_METRICS}/get-history", run_id="$run", metric_key="loss"),
    get(f"{_METRICS}/get-history", run_id="$run", metric_key="m", max_results=2),
    get(f"{_METRICS}/get-history", 400, run_id="$run", metric_key="m", max_results=0),
    get(
        "/ajax-api/2.0/mlflow/metrics/get-history-bulk",
        run_id=["$run", "$run2"],
        metric_key="loss",
        max_results=5,
    ),
    get("/ajax-api/2.0/mlflow/metrics/get-history-bulk", 400),
    get(
        f"{_METRICS}/get-history-bulk-interval",
        run_ids=["$run", "$run2"],
        metric_key="loss",
        start_step=2,
        end_step=9,
        max_results=3,
    ),
    get(f"{_METRICS}/get-history-bulk-interval", 400, run_ids="$run", metric_key="m", start_step=1),
    post(
        "/ajax-api/2.0/mlflow/experiments/search-datasets",
        {"experiment_ids": ["$experiment"]},
    ),
    post("/api/2.0mlflow/experiments/search-datasets", {"experiment_ids": ["0"]}, 404),
    post(f"{_RUNS}/delete", {"run_id": "$run2"}),
    post(f"{_RUNS}/set-tag", {"run_id": "$run2", "key": "k", "value": "v"}, 400),
    post(f"{_RUNS}/restore", {"run_id": "$run2"}),
    post(
        "/ajax-api/2.0/mlflow/runs/create-promptlab-run",
        {
            "experiment_id": "$experiment",
            "run_name": "prompt",
            "prompt_template": "say {{word}}",
            "prompt_parameters": keys(word="four"),
            "model_route": "r",
            "model_parameters": keys(temperature="0.1"),
            "model_input": "say four",
            "model_output": "four",
            "model_output_parameters": keys(latency="1"),
            "mlflow_version": "3.0",
            "start_time": 3,
        },
        keep={"prompt_run": "run.info.run_id"},
    ),
    post("/ajax-api/2.0/mlflow/runs/create-promptlab-run", {"experiment_id": "0"}, 400),
    get("/ajax-api/2.0/mlflow/gateway-proxy", gateway_path="api/2.0/endpoints"),
    post("/ajax-api/2.0/mlflow/gateway-proxy", {"gateway_path": "gateway/x/invocations"}),
]

LOGGED_MODELS = [
    post(
        _MODELS,
        {
            "experiment_id": "$experiment",
            "name": "model",
            "model_type": "agent",
            "source_run_id": "$run",
            "params": keys(a="1"),
            "tags": keys(b="2"),
        },
        keep={"model": "model.info.model_id"},
    ),
    post(_MODELS, {"experiment_id": "987654", "name": "m"}, 404),
    post(f"{_MODELS}/$model/params", {"model_id": "$model", "params": keys(c="3")}),
    patch(f"{_MODELS}/$model/tags", {"tags": keys(d="4", e="5")}),
    delete(f"{_MODELS}/$model/tags/e"),
    delete(f"{_MODELS}/$model/tags/e", expected=404),
    post(
        f"{_RUNS}/log-metric",
        {
            "run_id": "$run",
            "key": "score",
            "value": 1,
            "timestamp": 1,
            "model_id": "$model",
            "dataset_name": "d",
            "dataset_digest": "0123",
        },
    ),
    post(f"{_RUNS}/log-inputs", {"run_id": "$run2", "models": [{"model_id": "$model"}]}),
    post(f"{_RUNS}/outputs", {"run_id": "$run", "models": [{"model_id": "$model", "step": 1}]}),
    patch(f"{_MODELS}/$model", {"model_id": "$model", "status": "LOGGED_MODEL_PENDING"}),
    patch(f"{_MODELS}/$model", {"model_id": "$model", "status": 2}),
    patch(f"{_MODELS}/$model", {"model_id": "$model"}, 400),
    get(f"{_MODELS}/$model"),
    get(f"{_MODELS}/m-missing", 404),
    post(
        f"{_MODELS}/search",
        {
            "experiment_ids": ["$experiment"],
            "filter": "metrics.score > 0",
            "datasets": [{"dataset_name": "d", "dataset_digest": "0123"}],
            "order_by": [{"field_name": "metrics.score", "ascending": False}],
        },
    ),
    post(f"{_MODELS}/search", {"experiment_ids": ["$experiment"], "max_results": 1}),
    get(f"{_RUNS}/get", run_id="$run"),
    post(
        _MODELS, {"experiment_id": "$experiment", "name": "b"}, keep={"dead": "model.info.model_id"}
    ),
    delete(f"{_MODELS}/$dead"),
    get(f"{_MODELS}/$dead", 404),
    get(f"{_MODELS}/$dead", allow_deleted="true"),
]

CALLS: list[Call] = [*EXPERIMENTS, *RUNS, *LOGGED_MODELS]
