"""The AI gateway: its stored objects, and calls through it to a model on this computer."""

from tests.server.parity.call import Call, delete, get, patch, post

_API, _PAGE = "/api/3.0/mlflow/gateway", "/ajax-api/3.0/mlflow/gateway"
_QUESTION = {"messages": [{"role": "user", "content": "2+2?"}]}
_STREAMED = {**_QUESTION, "stream": True}
_CHAT = {**_QUESTION, "model": "chat-$mark"}

_PRIMARY = {"model_definition_id": "$definition", "linkage_type": "PRIMARY", "weight": 1.0}

MADE = [
    post(
        f"{_API}/secrets/create",
        {
            "secret_name": "secret $mark",
            "secret_value": {"api_key": "sk-canary-0123456789"},
            "provider": "openai",
            "auth_config": {"api_base": "$upstream/v1"},
        },
        keep={"secret": "secret.secret_id"},
    ),
    post(f"{_API}/secrets/create", {"secret_value": {"api_key": "k"}}, 400),
    post(
        f"{_API}/secrets/create",
        {
            "secret_name": "n",
            "secret_value": {"api_key": "k"},
            "auth_config": {"api_base": "ftp://x"},
        },
        400,
    ),
    get(f"{_API}/secrets/get", secret_id="$secret"),
    get(f"{_API}/secrets/list", provider="openai"),
    get(f"{_PAGE}/secrets/config"),
    post(
        f"{_API}/secrets/update",
        {"secret_id": "$secret", "secret_value": {"api_key": "sk-canary-9876543210"}},
    ),
    post(
        f"{_API}/model-definitions/create",
        {
            "name": "definition $mark",
            "secret_id": "$secret",
            "provider": "openai",
            "model_name": "m",
        },
        keep={"definition": "model_definition.model_definition_id"},
    ),
    post(
        f"{_API}/model-definitions/create",
        {"name": "spare $mark", "secret_id": "$secret", "provider": "openai", "model_name": "n"},
        keep={"spare": "model_definition.model_definition_id"},
    ),
    get(f"{_API}/model-definitions/get", model_definition_id="$definition"),
    get(f"{_API}/model-definitions/list", secret_id="$secret"),
    post(
        f"{_API}/model-definitions/update",
        {"model_definition_id": "$definition", "model_name": "m2"},
    ),
    post(
        f"{_API}/endpoints/create",
        {
            "name": "chat-$mark",
            "model_configs": [_PRIMARY],
            "routing_strategy": "REQUEST_BASED_TRAFFIC_SPLIT",
            "usage_tracking": True,
        },
        keep={"endpoint": "endpoint.endpoint_id"},
    ),
    post(f"{_API}/endpoints/create", {"name": "a b", "model_configs": [_PRIMARY]}, 400),
    get(f"{_API}/endpoints/get", endpoint_id="$endpoint"),
    get(f"{_API}/endpoints/get", 404, name="missing"),
    get(f"{_API}/endpoints/list"),
    post(f"{_API}/endpoints/update", {"endpoint_id": "$endpoint", "updated_by": "u"}),
    post(
        f"{_API}/endpoints/models/attach",
        {
            "endpoint_id": "$endpoint",
            "model_config": {
                "model_definition_id": "$spare",
                "linkage_type": "FALLBACK",
                "fallback_order": 1,
            },
        },
    ),
    post(
        f"{_API}/endpoints/models/detach",
        {"endpoint_id": "$endpoint", "model_definition_id": "$spare"},
    ),
    post(f"{_API}/endpoints/set-tag", {"endpoint_id": "$endpoint", "key": "k", "value": "v"}),
    delete(f"{_API}/endpoints/delete-tag", {"endpoint_id": "$endpoint", "key": "k"}),
    get(f"{_PAGE}/supported-providers"),
    get(f"{_PAGE}/supported-models", provider="openai"),
    get(f"{_PAGE}/provider-config", provider="openai"),
    get(f"{_PAGE}/provider-config", 400),
]

CALLED = [
    get("/gateway/mlflow/v1/models"),
    post("/gateway/chat-$mark/mlflow/invocations", _QUESTION),
    post("/gateway/chat-$mark/mlflow/invocations", _STREAMED),
    post("/gateway/chat-$mark/mlflow/invocations", {"input": "a"}),
    post("/gateway/chat-$mark/mlflow/invocations", {}, 400),
    post("/gateway/missing/mlflow/invocations", _QUESTION, 404),
    post("/gateway/mlflow/v1/chat/completions", _CHAT),
    post("/gateway/mlflow/v1/chat/completions", {**_STREAMED, "model": "chat-$mark"}),
    post("/gateway/mlflow/v1/chat/completions", _QUESTION, 400),
    post("/gateway/openai/v1/chat/completions", _CHAT),
    post("/gateway/openai/v1/embeddings", {"model": "chat-$mark", "input": "a"}),
    post("/gateway/openai/v1/responses", {"model": "chat-$mark", "input": "a"}),
    post("/gateway/openai/v1/responses", {"model": "chat-$mark", "input": "a", "stream": True}),
    post("/gateway/openai/v1/responses/compact", {"model": "chat-$mark"}),
    post("/gateway/openai/v1/responses/compact", {"model": "chat-$mark", "stream": True}, 400),
    post("/gateway/anthropic/v1/messages", {**_CHAT, "max_tokens": 9}, 400),
    post("/gateway/gemini/v1beta/models/chat-$mark:generateContent", {"contents": []}, 400),
    post("/gateway/gemini/v1beta/models/chat-$mark:streamGenerateContent", {"contents": []}),
    post("/gateway/typesafe/v1/systemone", {"model": "chat-$mark", "state": {}}, 422),
    post("/gateway/proxy/chat-$mark/chat/completions", _CHAT),
    post("/gateway/proxy/chat-$mark/chat/completions", {**_CHAT, "stream": True}),
    post("/gateway/proxy/missing/x", {}, 404),
    Call(method="POST", path="/gateway/mlflow/v1/chat/completions", content="{", expected=400),
]

LIMITED = [
    post(
        f"{_API}/endpoints/bindings/create",
        {"endpoint_id": "$endpoint", "resource_type": "scorer", "resource_id": "other"},
    ),
    post(
        f"{_API}/endpoints/bindings/create",
        {"endpoint_id": "$endpoint", "resource_type": "scorer", "resource_id": "other"},
        400,
    ),
    get(f"{_API}/endpoints/bindings/list", endpoint_id="$endpoint"),
    delete(
        f"{_API}/endpoints/bindings/delete",
        {"endpoint_id": "$endpoint", "resource_type": "scorer", "resource_id": "other"},
    ),
    post(
        f"{_API}/budgets/create",
        {
            "budget_unit": "USD",
            "budget_amount": 5.5,
            "duration": {"unit": "DAYS", "value": 1},
            "target_scope": "ENDPOINT",
            "target_value": "$endpoint",
            "budget_action": "ALERT",
        },
        keep={"budget": "budget_policy.budget_policy_id"},
    ),
    post(
        f"{_API}/budgets/create",
        {
            "budget_unit": "USD",
            "budget_amount": 5.5,
            "duration": {"unit": "DAYS", "value": 1},
            "target_scope": "USER",
            "target_value": "u",
            "budget_action": "ALERT",
        },
        400,
    ),
    get(f"{_API}/budgets/get", budget_policy_id="$budget"),
    post(f"{_API}/budgets/update", {"budget_policy_id": "$budget", "budget_amount": 6}),
    get(f"{_API}/budgets/list", max_results=5),
    get(f"{_API}/budgets/windows"),
    delete(f"{_API}/budgets/delete", {"budget_policy_id": "$budget"}),
    post(
        f"{_API}/guardrails/create",
        {
            "name": "guard $mark",
            "scorer_id": "$scorer",
            "scorer_version": 1,
            "stage": "BEFORE",
            "action": "VALIDATION",
        },
        keep={"guard": "guardrail.guardrail_id"},
    ),
    get(f"{_API}/guardrails/get", guardrail_id="$guard"),
    get(f"{_API}/guardrails/list", max_results=5),
    post(
        f"{_API}/guardrails/add-to-endpoint",
        {"endpoint_id": "$endpoint", "guardrail_id": "$guard", "execution_order": 1},
    ),
    get(f"{_API}/guardrails/list-for-endpoint", endpoint_id="$endpoint"),
    post("/gateway/chat-$mark/mlflow/invocations", _QUESTION, 400),
    patch(
        f"{_API}/guardrails/update-config",
        {"endpoint_id": "$endpoint", "guardrail_id": "$guard", "execution_order": 2},
    ),
    delete(
        f"{_API}/guardrails/remove-from-endpoint",
        {"endpoint_id": "$endpoint", "guardrail_id": "$guard"},
    ),
    delete(f"{_API}/guardrails/delete", {"guardrail_id": "$guard"}),
]

# After the scorers that use the endpoint.
CLEANED = [
    delete("/api/3.0/mlflow/scorers/delete", {"experiment_id": "$experiment", "name": "judge"}),
    delete(f"{_API}/model-definitions/delete", {"model_definition_id": "$definition"}, 500),
    delete(f"{_API}/endpoints/delete", {"endpoint_id": "$endpoint"}),
    delete(f"{_API}/model-definitions/delete", {"model_definition_id": "$definition"}),
    delete(f"{_API}/model-definitions/delete", {"model_definition_id": "$spare"}),
    delete(f"{_API}/secrets/delete", {"secret_id": "$secret"}),
    get(f"{_API}/secrets/list"),
]
