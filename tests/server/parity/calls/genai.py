"""Evaluation datasets, scorers, label schemas, review queues, issues, optimization, jobs, demo."""

from tests.server.parity.call import Call, delete, get, patch, post, put, text

_API = "/api/3.0/mlflow"
_PAGE = "/ajax-api/3.0/mlflow"
_DATASETS, _SCORERS = f"{_API}/datasets", f"{_API}/scorers"
_SCHEMAS, _QUEUES = f"{_API}/label-schemas", f"{_API}/review-queues"
_ISSUES, _PROMPTS = f"{_API}/issues", f"{_API}/prompt-optimization/jobs"

_TRACE = "tr-0000000000000000000000000000$mark"

DATASETS = [
    post(
        f"{_DATASETS}/create",
        {"name": "d $mark", "experiment_ids": ["$experiment"], "tags": text({"a": "b"})},
        keep={"dataset": "dataset.dataset_id"},
    ),
    post(f"{_DATASETS}/create", {}, 400),
    *(
        post(f"{_DATASETS}/$dataset/records", {"records": text([record])})
        for record in (
            {"inputs": {"q": "2+2"}, "expectations": {"a": 4}, "tags": {"k": "v"}},
            {"inputs": {"q": "3+3", "deep": {"x": [1, None]}}, "expectations": {"a": 6}},
            {
                "inputs": {"q": "of a trace"},
                "source": {"source_type": "TRACE", "source_data": {"trace_id": "tr-1"}},
            },
            {"inputs": {"q": "2+2"}, "expectations": {"b": 5}},
        )
    ),
    post(f"{_DATASETS}/$dataset/records", {}, 400),
    get(f"{_DATASETS}/$dataset/records", max_results=2, keep={"page": "next_page_token"}),
    get(f"{_DATASETS}/$dataset/records", max_results=2, page_token="$page"),
    get(f"{_DATASETS}/$dataset"),
    get(f"{_DATASETS}/d-missing", 404),
    get(f"{_DATASETS}/$dataset/experiment-ids"),
    post(f"{_DATASETS}/$dataset/add-experiments", {"experiment_ids": ["$other"]}),
    post(f"{_DATASETS}/$dataset/remove-experiments", {"experiment_ids": ["$other"]}),
    patch(f"{_DATASETS}/$dataset/tags", {"tags": text({"c": "d", "e": "f"})}),
    delete(f"{_DATASETS}/$dataset/tags/e"),
    get(f"{_DATASETS}/search", filter_string="name = 'd $mark'"),
    post(f"{_DATASETS}/search", {"experiment_ids": ["$experiment"], "order_by": ["name DESC"]}),
    post(f"{_DATASETS}/search", {"filter_string": "nonsense"}, 400),
    delete(f"{_DATASETS}/$dataset/records", {"dataset_record_ids": ["dr-missing"]}),
]

_JUDGE = {
    "name": "judge",
    "aggregations": [],
    "mlflow_version": "3.17.2",
    "serialization_version": 1,
    "instructions_judge_pydantic_data": {
        "instructions": "Is {{ outputs }} right?",
        "model": "gateway:/chat-$mark",
    },
}
_BUILTIN = {
    "name": "safety",
    "aggregations": [],
    "mlflow_version": "3.17.2",
    "serialization_version": 1,
    "builtin_scorer_class": "Safety",
    "builtin_scorer_pydantic_data": {"name": "safety", "model": "openai:/gpt-4o"},
}
_CODE = {"name": "c", "call_source": "return 1", "call_signature": "()", "original_func_name": "c"}

SCORERS = [
    post(
        f"{_SCORERS}/register",
        {"experiment_id": "$experiment", "name": "judge", "serialized_scorer": text(_JUDGE)},
        keep={"scorer": "scorer_id"},
    ),
    post(
        f"{_SCORERS}/register",
        {"experiment_id": "$experiment", "name": "safety", "serialized_scorer": text(_BUILTIN)},
    ),
    post(
        f"{_SCORERS}/register",
        {"experiment_id": "$experiment", "name": "c", "serialized_scorer": text(_CODE)},
        400,
    ),
    get(f"{_SCORERS}/list", experiment_id="$experiment"),
    get(f"{_SCORERS}/list", experiment_ids=["$experiment", "$other"]),
    get(f"{_SCORERS}/versions", experiment_id="$experiment", name="judge"),
    get(f"{_SCORERS}/get", experiment_id="$experiment", name="judge", version=1),
    get(f"{_SCORERS}/get", 404, experiment_id="$experiment", name="missing"),
    put(
        f"{_SCORERS}/online-config",
        {
            "experiment_id": "$experiment",
            "name": "judge",
            "sample_rate": 0.5,
            "filter_string": "status = 'OK'",
        },
    ),
    put(
        f"{_SCORERS}/online-config",
        {"experiment_id": "$experiment", "name": "judge", "sample_rate": 2},
        400,
    ),
    get(f"{_SCORERS}/online-configs", scorer_ids="$scorer"),
    get(f"{_SCORERS}/online-configs", 400),
]

REVIEWS = [
    post(
        f"{_SCHEMAS}/create",
        {
            "experiment_id": "$experiment",
            "name": "good",
            "type": "FEEDBACK",
            "input": {"categorical": {"options": ["yes", "no"], "multi_select": False}},
            "instruction": "Is it?",
            "enable_comment": True,
        },
        keep={"schema": "label_schema.schema_id"},
    ),
    post(f"{_SCHEMAS}/create", {"experiment_id": "$experiment", "name": "none"}, 400),
    get(f"{_SCHEMAS}/get", schema_id="$schema"),
    get(f"{_SCHEMAS}/get-by-name", experiment_id="$experiment", name="good"),
    get(f"{_SCHEMAS}/get-by-name", 404, experiment_id="$experiment", name="missing"),
    get(f"{_SCHEMAS}/list", experiment_id="$experiment", max_results=5),
    patch(
        f"{_SCHEMAS}/update",
        {"schema_id": "$schema", "instruction": "Is it now?", "input": {"text": {"max_length": 9}}},
        400,
    ),
    patch(f"{_SCHEMAS}/update", {"schema_id": "$schema", "instruction": "Is it now?"}),
    post(
        f"{_QUEUES}/create",
        {
            "experiment_id": "$experiment",
            "name": "queue",
            "queue_type": "CUSTOM",
            "users": ["u", "w"],
            "schema_ids": ["$schema"],
        },
        keep={"queue": "review_queue.queue_id"},
    ),
    post(f"{_QUEUES}/create", {"experiment_id": "$experiment", "name": "none"}, 400),
    post(f"{_QUEUES}/get-or-create-user", {"experiment_id": "$experiment", "user": "u"}),
    get(f"{_QUEUES}/get", queue_id="$queue"),
    get(f"{_QUEUES}/get-by-name", experiment_id="$experiment", name="queue"),
    get(f"{_QUEUES}/list", experiment_id="$experiment", max_results=5),
    post(f"{_QUEUES}/update", {"queue_id": "$queue", "update_users": True, "users": ["u"]}),
    post(
        f"{_QUEUES}/items/add",
        {"queue_id": "$queue", "item_type": "TRACE", "item_ids": [_TRACE]},
    ),
    post(f"{_QUEUES}/items/add", {"queue_id": "$queue", "item_ids": ["tr-missing"]}, 404),
    get(f"{_QUEUES}/items/list", queue_id="$queue", status="PENDING"),
    post(
        f"{_QUEUES}/items/set-status",
        {"queue_id": "$queue", "item_id": _TRACE, "status": "COMPLETE", "completed_by": "u"},
    ),
    post(f"{_QUEUES}/items/remove", {"queue_id": "$queue", "item_ids": [_TRACE]}),
    post(f"{_QUEUES}/delete", {"queue_id": "$queue"}),
    get(f"{_QUEUES}/get", 404, queue_id="$queue"),
    delete(f"{_SCHEMAS}/delete", {"schema_id": "$schema"}),
]

ISSUES = [
    post(
        _ISSUES,
        {
            "experiment_id": "$experiment",
            "name": "wrong",
            "description": "it is",
            "status": "pending",
            "severity": "high",
            "root_causes": ["a"],
            "categories": ["b"],
        },
        keep={"issue": "issue.issue_id"},
    ),
    post(_ISSUES, {"name": "wrong"}, 400),
    patch(f"{_ISSUES}/$issue", {"issue_id": "$issue", "status": "resolved", "severity": "low"}),
    get(f"{_ISSUES}/$issue"),
    get(f"{_ISSUES}/missing", 404),
    post(f"{_ISSUES}/search", {"experiment_id": "$experiment", "include_trace_count": True}),
    post(
        f"{_PAGE}/issues/invoke",
        {
            "experiment_id": "$experiment",
            "trace_ids": [_TRACE],
            "categories": ["c"],
            "provider": "openai",
            "model": "m",
        },
        # A valid request would start a run, and leave it active in its thread when it fails.
        400,
    ),
    post(f"{_PAGE}/issues/invoke", {"experiment_id": "$experiment"}, 400),
]

# Jobs are refused when they are submitted, because the server has no job runner.
JOBS = [
    post(
        f"{_PAGE}/scorer/invoke",
        {
            "experiment_id": "$experiment",
            "serialized_scorer": text(_JUDGE),
            "trace_ids": [_TRACE],
        },
        500,
    ),
    post(f"{_PAGE}/scorer/invoke", {"experiment_id": "$experiment"}, 400),
    post(
        f"{_PAGE}/genai/evaluate/invoke",
        {
            "experiment_id": "$experiment",
            "trace_ids": [_TRACE],
            "serialized_scorers": [text(_JUDGE)],
        },
        500,
    ),
    post(f"{_PAGE}/genai/evaluate/invoke", {"experiment_id": "$experiment"}, 400),
    post(
        _PROMPTS,
        {
            "experiment_id": "$experiment",
            "source_prompt_uri": "prompts:/prompt-$mark/1",
            "config": {
                "optimizer_type": "OPTIMIZER_TYPE_METAPROMPT",
                "dataset_id": "$dataset",
                "scorers": ["judge"],
                "optimizer_config_json": "{}",
            },
        },
        500,
    ),
    post(_PROMPTS, {"experiment_id": "$experiment"}, 400),
    get(f"{_PROMPTS}/search", experiment_id="$experiment"),
    post(f"{_PROMPTS}/search", {"experiment_id": "$experiment"}),
    get(f"{_PROMPTS}/missing", 404),
    post(f"{_PROMPTS}/missing/cancel", {}, 404),
    delete(f"{_PROMPTS}/missing", expected=404),
    get(f"{_PAGE}/jobs/missing", 404),
    patch(f"{_PAGE}/jobs/cancel/missing", expected=404),
    post("/ajax-api/3.0/jobs/search", {}),
    post("/ajax-api/3.0/jobs/search", {"statuses": ["PENDING"], "job_name": "invoke_scorer"}),
    post("/ajax-api/3.0/jobs/search", {"statuses": ["nonsense"]}, 422),
    post("/ajax-api/3.0/jobs/", {"job_name": "nonsense", "params": {}}, 400),
    post(
        "/ajax-api/3.0/jobs/",
        {
            "job_name": "optimize_prompts",
            "params": {
                "run_id": "r",
                "experiment_id": "0",
                "prompt_uri": "p",
                "dataset_id": "d",
                "optimizer_type": "gepa",
                "optimizer_config": None,
                "scorer_names": [],
            },
        },
        500,
    ),
    post("/ajax-api/3.0/jobs/", {}, 422),
    get("/ajax-api/3.0/jobs/missing", 404),
    patch("/ajax-api/3.0/jobs/cancel/missing", expected=404),
]

# All of them together take a minute.
DEMO = [
    post(f"{_PAGE}/demo/generate", {"features": ["prompts"]}),
    post(f"{_PAGE}/demo/generate", {"features": ["prompts"]}),
    post(f"{_PAGE}/demo/delete", {}),
]

CLEANED = [
    delete(f"{_SCORERS}/delete", {"experiment_id": "$experiment", "name": "safety"}),
    delete(f"{_DATASETS}/$dataset"),
]

CALLS: list[Call] = [*DATASETS, *SCORERS, *REVIEWS, *ISSUES, *DEMO]
