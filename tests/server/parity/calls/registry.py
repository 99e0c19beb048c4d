"""Registered models, their versions, prompts, webhooks."""

from tests.server.parity.call import Call, delete, get, keys, patch, post

_NAMES, _VERSIONS = "/api/2.0/mlflow/registered-models", "/api/2.0/mlflow/model-versions"
_HOOKS = "/api/2.0/mlflow/webhooks"
_SOURCE = "mlflow-artifacts:/$experiment/$run/artifacts/sub"

_PROMPT = keys(**{"mlflow.prompt.is_prompt": "true", "mlflow.prompt.text": "say {{word}}"})

WEBHOOKS = [
    post(
        _HOOKS,
        {
            "name": "hook-$mark",
            "url": "$upstream/hook",
            "description": "d",
            "secret": "canary",
            "events": [
                {"entity": "REGISTERED_MODEL", "action": "CREATED"},
                {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"},
            ],
        },
        keep={"hook": "webhook.webhook_id"},
    ),
    post(_HOOKS, {"name": "bad", "url": "ftp://x", "events": []}, 400),
    post(f"{_HOOKS}/$hook/test", {}),
    post(f"{_HOOKS}/$hook/test", {"event": {"entity": "REGISTERED_MODEL", "action": "CREATED"}}),
    get(f"{_HOOKS}/$hook"),
]

UNHOOKED = [
    patch(f"{_HOOKS}/$hook", {"description": "e", "status": "DISABLED"}),
    get(f"{_HOOKS}/$hook"),
    get(f"{_HOOKS}/missing", 404),
    get(_HOOKS, max_results=10),
    delete(f"{_HOOKS}/$hook"),
    delete(f"{_HOOKS}/$hook", expected=404),
]

MODELS = [
    post(f"{_NAMES}/create", {"name": "m $mark", "description": "d", "tags": keys(a="1")}),
    post(f"{_NAMES}/create", {"name": "m $mark"}, 400),
    post(f"{_NAMES}/create", {"name": "a/b"}, 400),
    get(f"{_NAMES}/get", name="m $mark"),
    get(f"{_NAMES}/get", 404, name="missing"),
    patch(f"{_NAMES}/update", {"name": "m $mark", "description": "e"}),
    post(f"{_NAMES}/set-tag", {"name": "m $mark", "key": "k", "value": "v"}),
    delete(f"{_NAMES}/delete-tag", {"name": "m $mark", "key": "k"}),
    post(
        f"{_VERSIONS}/create",
        {"name": "m $mark", "source": _SOURCE, "run_id": "$run", "tags": keys(b="2")},
    ),
    post(
        f"{_VERSIONS}/create",
        {"name": "m $mark", "source": "models:/$model", "model_id": "$model"},
    ),
    post(f"{_VERSIONS}/create", {"name": "m $mark", "source": "file:///etc"}, 400),
    post(f"{_VERSIONS}/create", {"name": "m $mark", "source": "gs://b/../c"}, 400),
    get(f"{_VERSIONS}/get", name="m $mark", version="1"),
    get(f"{_VERSIONS}/get", 404, name="m $mark", version="9"),
    patch(f"{_VERSIONS}/update", {"name": "m $mark", "version": "1", "description": "one"}),
    post(f"{_VERSIONS}/set-tag", {"name": "m $mark", "version": "1", "key": "k", "value": "v"}),
    delete(f"{_VERSIONS}/delete-tag", {"name": "m $mark", "version": "1", "key": "k"}),
    post(
        f"{_VERSIONS}/transition-stage",
        {"name": "m $mark", "version": "1", "stage": "Staging", "archive_existing_versions": True},
    ),
    get(f"{_VERSIONS}/search", filter="name = 'm $mark'", order_by="version_number ASC"),
    get(f"{_VERSIONS}/search", 400, filter="nonsense"),
    get(f"{_VERSIONS}/get-download-uri", name="m $mark", version="1"),
    get(f"{_NAMES}/get-latest-versions", name="m $mark"),
    post(f"{_NAMES}/get-latest-versions", {"name": "m $mark", "stages": ["Staging"]}),
    post(f"{_NAMES}/alias", {"name": "m $mark", "alias": "champion", "version": "1"}),
    get(f"{_NAMES}/alias", name="m $mark", alias="champion"),
    delete(f"{_NAMES}/alias", {"name": "m $mark", "alias": "champion"}),
    get(f"{_NAMES}/alias", 400, name="m $mark", alias="champion"),
    get(f"{_NAMES}/search", filter="name LIKE '%$mark'", max_results=5),
    get("/model-versions/get-artifact", name="m $mark", version="1", path="MLmodel"),
    get("/model-versions/get-artifact", 404, name="m $mark", version="1", path="missing"),
    get("/model-versions/get-artifact", 404, name="missing", version="1", path="MLmodel"),
    delete(f"{_VERSIONS}/delete", {"name": "m $mark", "version": "2"}),
    post(f"{_NAMES}/rename", {"name": "m $mark", "new_name": "n $mark"}),
    delete(f"{_NAMES}/delete", {"name": "n $mark"}),
]

PROMPTS = [
    post(f"{_NAMES}/create", {"name": "prompt-$mark", "tags": _PROMPT[:1]}),
    post(
        f"{_VERSIONS}/create",
        {"name": "prompt-$mark", "source": "dummy-source", "tags": _PROMPT},
    ),
    get(f"{_VERSIONS}/get", name="prompt-$mark", version="1"),
    post(f"{_NAMES}/alias", {"name": "prompt-$mark", "alias": "best", "version": "1"}),
    get(
        f"{_NAMES}/search",
        filter="name = 'prompt-$mark' AND tags.`mlflow.prompt.is_prompt` = 'true'",
    ),
    post(
        "/api/2.0/mlflow/traces/link-prompts",
        {
            "trace_id": "tr-made-$mark",
            "prompt_versions": [{"name": "prompt-$mark", "version": "1"}],
        },
    ),
]

CALLS: list[Call] = [*WEBHOOKS, *MODELS, *PROMPTS, *UNHOOKED]
