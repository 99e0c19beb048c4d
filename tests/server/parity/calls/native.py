"""Routes that only FastAPI has: the MCP registry, the assistant, the server's features."""

from typing import Any

from tests.server.parity.call import Call, delete, get, patch, post, put

_SERVERS = "/api/3.0/mlflow/mcp-servers"
_NAME = "com.example/tools-$mark"
_ONE = f"{_SERVERS}/{_NAME}"
_ASSISTANT = "/ajax-api/3.0/mlflow/assistant"


def _version(number: str) -> dict[str, Any]:
    return {
        "name": _NAME,
        "version": number,
        "description": "d",
        "remotes": [{"type": "streamable-http", "url": "https://example.com/mcp"}],
    }


MCP = [
    post(_SERVERS, {"name": _NAME, "description": "d"}),
    post(_SERVERS, {"name": _NAME}, 400),
    post(_SERVERS, {}, 400),
    get(_SERVERS),
    get(_SERVERS, 400, filter_string="nonsense"),
    get(_ONE),
    get(f"{_SERVERS}/com.example/missing", 404),
    patch(_ONE, {"description": "e", "display_name": "Tools"}),
    patch(_ONE, {"latest_version": "1"}, 400),
    post(
        f"{_ONE}/versions",
        {
            "server_json": _version("1.0.0"),
            "status": "active",
            "tools": [{"name": "add", "inputSchema": {"type": "object"}}],
        },
    ),
    post(f"{_ONE}/versions", {"server_json": _version("1.1.0"), "status": "draft"}),
    post(f"{_ONE}/versions", {"server_json": {"name": "x", "version": "1"}}, 400),
    get(f"{_ONE}/versions"),
    get(f"{_ONE}/versions/1.0.0"),
    patch(f"{_ONE}/versions/1.1.0", {"status": "active"}),
    post(f"{_ONE}/versions/1.0.0/tags", {"key": "k", "value": "v"}),
    delete(f"{_ONE}/versions/1.0.0/tags/k"),
    post(f"{_ONE}/aliases", {"alias": "stable", "version": "1.0.0"}),
    get(f"{_ONE}/aliases/stable"),
    get(f"{_ONE}/aliases/missing", 404),
    post(f"{_ONE}/tags", {"key": "k", "value": "v"}),
    get(_ONE),
    delete(f"{_ONE}/tags/k"),
    post(
        f"{_ONE}/endpoints",
        {"url": "https://example.com/mcp", "server_alias": "stable"},
        keep={"access": "id"},
    ),
    get(f"{_ONE}/endpoints"),
    get(f"{_ONE}/endpoints/$access"),
    patch(f"{_ONE}/endpoints/$access", {"server_alias": None, "server_version": "1.0.0"}),
    get(f"{_SERVERS}/endpoints"),
    delete(f"{_ONE}/endpoints/$access"),
    delete(f"{_ONE}/aliases/stable"),
    delete(f"{_ONE}/versions/1.1.0", expected=400),
    patch(f"{_ONE}/versions/1.1.0", {"status": "deprecated"}),
    delete(f"{_ONE}/versions/1.1.0"),
    delete(_ONE, expected=400),
    patch(f"{_ONE}/versions/1.0.0", {"status": "deprecated"}),
    delete(_ONE),
    get(_ONE, 404),
]

ASSISTANT = [
    get(f"{_ASSISTANT}/config"),
    get(f"{_ASSISTANT}/providers"),
    get(f"{_ASSISTANT}/providers/missing/health", 404),
    get(f"{_ASSISTANT}/providers/mlflow_gateway/health", 501),
    get(f"{_ASSISTANT}/providers/claude_code/health", 412),
    get(f"{_ASSISTANT}/providers/mlflow_gateway/models"),
    get(f"{_ASSISTANT}/providers/missing/models", 404),
    post(f"{_ASSISTANT}/message", {"message": "hello"}, keep={"session": "session_id"}),
    post(f"{_ASSISTANT}/message", {}, 422),
    get(f"{_ASSISTANT}/sessions/$session/stream"),
    get(f"{_ASSISTANT}/sessions/missing/stream", 404),
    post(f"{_ASSISTANT}/sessions/$session/permission", {"request_id": "r", "decision": "allow"}),
    post(f"{_ASSISTANT}/sessions/$session/tool-result", {"request_id": "r", "content": "c"}),
    patch(f"{_ASSISTANT}/sessions/$session", {"status": "cancelled"}),
    put(
        f"{_ASSISTANT}/config",
        {"providers": {"mlflow_gateway": {"model": "chat-$mark", "selected": True}}},
        403,
        headers={"X-Forwarded-For": "203.0.113.7"},
    ),
    put(
        f"{_ASSISTANT}/config",
        {"providers": {"mlflow_gateway": {"model": "chat-$mark", "selected": True}}},
    ),
    post(f"{_ASSISTANT}/skills/install", {"type": "global"}),
    put(f"{_ASSISTANT}/config", {"projects": {"0": {"location": "/missing"}}}, 400),
    post(f"{_ASSISTANT}/message", {"message": "2+2?"}, keep={"session": "session_id"}),
    get(f"{_ASSISTANT}/sessions/$session/stream"),
    get(f"{_ASSISTANT}/config"),
]

INFO = [
    get("/api/3.0/mlflow/server-info"),
    get("/health"),
    get("/version"),
    get("/ajax-api/3.0/mlflow/ui-telemetry"),
    post("/ajax-api/3.0/mlflow/ui-telemetry", {"records": []}),
]

CALLS: list[Call] = [*INFO, *MCP, *ASSISTANT]
