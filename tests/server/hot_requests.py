"""Sequences of requests for the hot routes: mostly ordinary ones, some that MLflow refuses.

Each is a method, the end of its path and its fields. A run or experiment is named by a placeholder,
since its id differs from server to server.
"""

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

RUN, OTHER_RUN, DELETED_RUN = "{run}", "{other}", "{deleted}"
MODEL = "{model}"
EXPERIMENT = "{experiment}"

Request = tuple[str, str, dict[str, Any]]

LARGEST, SMALLEST = 2**63 - 1, -(2**63)

RUNS = st.sampled_from([RUN] * 6 + [OTHER_RUN] * 2 + [DELETED_RUN, "0" * 32, "", "a b", 7, None])
KEYS = st.sampled_from(
    ["a", "b", "c", "val/loss", "x y", "m-1", "k:2", "_"] * 4
    + ["", "/a", "a//b", "../a", "a/./b", ".", "é", "k" * 250, "k" * 251, "a\0", "a\n", 5, None]
)
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-5, 5),
    st.sampled_from(["NaN", "Infinity", "-Infinity", 0.0, -0.0, 1e308, 5e-324, 2**53 + 1]),
    st.sampled_from(["1.5", "nan", "x", "", None, True, [], 10**400, float("nan"), float("inf")]),
)
TIMES = st.one_of(
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0, -1, LARGEST, LARGEST + 1, "2", "x", 1.0, 1.5, None, True]),
)
# Runs that start at the same time are in the order of their ids, which differ.
STARTS = st.one_of(*[st.integers(10, LARGEST)] * 5, st.sampled_from([-5, "7", 8.0, None]))
STEPS = st.one_of(
    st.integers(-1, 2),
    st.integers(-1, 2),
    st.sampled_from([LARGEST, SMALLEST, LARGEST + 1, "1", 1.0, 0.5, None, False]),
)
TEXTS = st.one_of(
    st.sampled_from(["x", "y", "", "\x7f", '"\\', "ü", "\U0001f600", "</script>"]),
    st.text(max_size=5),
    st.sampled_from(["v" * 6000, "v" * 6001, "v" * 8001, "a\0b", "\ud800", 5, None, True, ["x"]]),
)


def objects(
    required: dict[str, Any], optional: dict[str, Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Returns objects; one in twenty lacks a required field, another one has an unknown field."""

    @st.composite
    def draw(draw: st.DrawFn) -> dict[str, Any]:
        made = draw(st.fixed_dictionaries(required, optional=optional))
        change = draw(st.integers(0, 19))
        if change == 0 and made:
            made.pop(draw(st.sampled_from(sorted(made))))
        elif change == 1:
            made[draw(st.sampled_from(["unknown", "run_uuid", "runId", "model_id"]))] = "x"
        return made

    return draw()


METRIC = {"key": KEYS, "value": NUMBERS, "timestamp": TIMES}
DATASETS = st.sampled_from(["d", "e", "d" * 501, "", 5, None])
MODELS = st.sampled_from([MODEL] * 6 + ["m-" + "0" * 32, "", 5, None])
PAIR = {"key": KEYS, "value": TEXTS}
OF_MODEL = {"model_id": MODELS, "dataset_name": DATASETS, "dataset_digest": DATASETS}
TAG_KEYS = st.one_of(KEYS, KEYS, KEYS, st.just("mlflow.runName"))
TAG = {"key": TAG_KEYS, "value": TEXTS}
FILTERS = st.sampled_from(
    [
        "",
        "metrics.a > 0",
        "metrics.a != 0 and params.a = 'x'",
        "params.a LIKE '%x%'",
        "params.b ILIKE 'X'",
        "tags.a = 'x'",
        "tags.a IS NULL",
        "params.a IS NOT NULL and metrics.`val/loss` <= 1",
        "attributes.status = 'FINISHED'",
        "attributes.start_time > 1",
        "attributes.start_time > 99999999999999999999",
        "attributes.run_name = 'r'",
        "attributes.run_id IN ('a', 'b')",
        "datasets.name = 'x'",
        "metrics.a > 'x'",
        "nonsense",
        "tags.a = 'x' or tags.a = 'y'",
        None,
        5,
    ]
)
ORDERS = st.sampled_from(
    [
        [],
        ["metrics.a"],
        ["metrics.a DESC", "params.a ASC"],
        ["tags.a"],
        ["start_time"],
        ["attributes.status", "attributes.start_time DESC"],
        ["metrics.a", "metrics.a"],
        ["run_name"],
        ["nonsense desc"],
        "metrics.a",
        [5],
        None,
    ]
)
TOKEN = "eyJvZmZzZXQiOiAxfQ=="
MANY = st.one_of(st.integers(1, 4), st.sampled_from([0, -1, 1000, 50001, "2", "x", None]))

REQUESTS: st.SearchStrategy[Request] = st.one_of(
    *(
        st.tuples(st.just(method), st.just(path), fields)
        for method, path, fields in (
            (
                "POST",
                "runs/log-metric",
                objects(
                    {"run_id": RUNS, **METRIC},
                    {"step": STEPS, "run_uuid": RUNS, **OF_MODEL},
                ),
            ),
            ("POST", "runs/log-parameter", objects({"run_id": RUNS, **PAIR}, {})),
            ("POST", "runs/set-tag", objects({"run_id": RUNS, **TAG}, {})),
            (
                "POST",
                "runs/log-batch",
                objects(
                    {"run_id": RUNS},
                    {
                        "metrics": st.lists(
                            objects(METRIC, {"step": STEPS, "run_id": RUNS, **OF_MODEL}),
                            max_size=4,
                        ),
                        "params": st.lists(objects(PAIR, {}), max_size=2),
                        "tags": st.lists(objects(TAG, {}), max_size=2),
                    },
                ),
            ),
            (
                "POST",
                "runs/create",
                objects(
                    {"experiment_id": st.sampled_from([EXPERIMENT] * 5 + ["99", "x", "", 0])},
                    {
                        "user_id": TEXTS,
                        "run_name": TEXTS,
                        "start_time": STARTS,
                        "tags": st.lists(objects(TAG, {}), max_size=3),
                    },
                ),
            ),
            (
                "POST",
                "runs/update",
                objects(
                    {"run_id": RUNS},
                    {
                        "status": st.sampled_from(
                            ["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED", "x", 3, None]
                        ),
                        "end_time": TIMES,
                        "run_name": TEXTS,
                    },
                ),
            ),
            ("GET", "runs/get", objects({"run_id": RUNS}, {"run_uuid": RUNS})),
            (
                "POST",
                "runs/search",
                objects(
                    {"experiment_ids": st.sampled_from([[EXPERIMENT]] * 9 + [[], ["x"], ["0"]])},
                    {
                        "filter": FILTERS,
                        "order_by": ORDERS,
                        "max_results": MANY,
                        "run_view_type": st.sampled_from(
                            ["ACTIVE_ONLY", "DELETED_ONLY", "ALL", "x"]
                        ),
                        "page_token": st.sampled_from([TOKEN, "", "x"]),
                    },
                ),
            ),
            (
                "GET",
                "metrics/get-history",
                objects(
                    {"run_id": RUNS, "metric_key": KEYS},
                    {"max_results": MANY, "page_token": st.sampled_from([TOKEN, "", "x"])},
                ),
            ),
            (
                "GET",
                "experiments/get",
                objects({"experiment_id": st.sampled_from([EXPERIMENT, "99", "x", ""])}, {}),
            ),
            (
                "GET",
                "experiments/get-by-name",
                objects({"experiment_name": st.sampled_from(["{name}", "none", ""])}, {}),
            ),
        )
    )
)

SEQUENCES = st.lists(REQUESTS, min_size=1, max_size=12)


def generated(count: int) -> settings:
    """Returns settings for so many examples, which aren't kept or made smaller."""
    return settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
