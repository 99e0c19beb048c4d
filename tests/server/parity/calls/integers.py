"""Integers that are too large for the columns that they are compared with or stored in."""

from collections.abc import Iterator

from tests.server.parity.call import Call, delete, get, patch, post

_EXPERIMENTS, _RUNS = "/api/2.0/mlflow/experiments", "/api/2.0/mlflow/runs"
_MODELS, _VERSIONS = "/api/2.0/mlflow/logged-models", "/api/2.0/mlflow/model-versions"
_TRACES = "/api/3.0/mlflow/traces"
_SCORERS = "/api/3.0/mlflow/scorers"
_PROMPT = "prompt-$mark"

LARGE = (99_999_999_999, -99_999_999_999, 10**22)
"""Larger than INTEGER on both sides of zero, and larger than BIGINT."""


def _place(experiment: object) -> dict[str, object]:
    return {
        "type": "MLFLOW_EXPERIMENT",
        "mlflow_experiment": {"experiment_id": str(experiment)},
    }


def _calls(number: int) -> Iterator[Call]:
    name = str(number)
    own = {"experiment_ids": ["$experiment"]}
    tag = {"experiment_id": name, "key": "k"}
    yield get(f"{_EXPERIMENTS}/get", 404, experiment_id=name)
    yield post(f"{_EXPERIMENTS}/update", {"experiment_id": name, "new_name": "x"}, 404)
    yield post(f"{_EXPERIMENTS}/delete", {"experiment_id": name}, 404)
    yield post(f"{_EXPERIMENTS}/restore", {"experiment_id": name}, 404)
    yield post(f"{_EXPERIMENTS}/set-experiment-tag", {**tag, "value": "v"}, 404)
    yield post(f"{_EXPERIMENTS}/delete-experiment-tag", tag, 404)
    yield post(f"{_RUNS}/create", {"experiment_id": name}, 404)
    yield post(f"{_RUNS}/search", {"experiment_ids": ["$experiment", name], "max_results": 1})
    for condition in ("metrics.m > ", "attributes.start_time > ", "attributes.end_time = "):
        yield post(f"{_RUNS}/search", {**own, "filter": f"{condition}{number}", "max_results": 1})
    metric = {"run_id": "$run", "key": f"large {number}", "value": 1, "timestamp": 1}
    yield post(f"{_RUNS}/log-metric", {**metric, "step": number})
    yield post(f"{_RUNS}/log-metric", {**metric, "timestamp": abs(number)})
    yield post(f"{_RUNS}/log-metric", {**metric, "value": number})
    yield get(
        "/api/2.0/mlflow/metrics/get-history-bulk-interval",
        run_ids=["$run"],
        metric_key="m",
        start_step=min(0, number),
        end_step=max(0, number),
        max_results=9,
    )
    yield post(_MODELS, {"experiment_id": name, "name": "m"}, 404)
    yield post(f"{_MODELS}/search", {"experiment_ids": [name]})
    yield post(f"{_MODELS}/search", {**own, "filter": f"creation_timestamp < {number}"})
    version = {"name": _PROMPT, "version": name}
    yield patch(f"{_VERSIONS}/update", {**version, "description": "d"}, 404)
    yield get(f"{_VERSIONS}/get", 404, **version)
    yield get(f"{_VERSIONS}/search", filter=f"name = '{_PROMPT}' AND version_number > {number}")
    yield post(
        "/ajax-api/2.0/mlflow/experiments/search-datasets",
        {"experiment_ids": [name]},
    )
    yield post(f"{_TRACES}/search", {"locations": [_place(name)]})
    for field in ("timestamp_ms", "execution_time_ms"):
        searched = {"locations": [_place("$experiment")], "filter": f"{field} = {number}"}
        yield post(f"{_TRACES}/search", searched)
    yield get(f"{_SCORERS}/list", 404, experiment_id=name)
    yield delete(
        f"{_SCORERS}/delete",
        {"experiment_id": "$experiment", "name": "none", "version": number},
        404,
    )


CALLS: list[Call] = [call for number in LARGE for call in _calls(number)]
