"""The page, GraphQL, workspaces, which are disabled, and requests that no client should send."""

from tests.server.parity.call import Call, delete, get, patch, post

_RUN = """
query run($$id: String!) {
  mlflowGetRun(input: {runId: $$id}) {
    run {
      info { runName status artifactUri }
      data { metrics { key value } params { key value } }
      experiment { name }
    }
    apiError { code message }
  }
}
"""
_MANY = " ".join(f'a{n}: test(inputString: "x") {{ output }}' for n in range(20))

PAGE = [
    get("/"),
    get("/static-files/index.html"),
    get("/static-files/manifest.json"),
    get("/static-files/missing.js", 404),
    get("/static-files/../server/handlers.py", 404),
    get("/static-files/%2e%2e/%2e%2e/handlers.py", 404),
    get("/build/missing", 404),
    Call(method="HEAD", path="/"),
]

GRAPHQL = [
    post("/graphql", {"query": _RUN, "variables": {"id": "$run"}}),
    post("/graphql", {"query": _RUN, "variables": {"id": "missing"}}),
    post("/graphql", {"query": "{ nonsense }"}),
    post("/graphql", {"query": "{"}, 500),
    post("/graphql", {"query": f"{{ {_MANY} }}"}),
    get("/graphql", 500),
]

WORKSPACES = [
    get("/api/3.0/mlflow/workspaces", 503),
    post("/api/3.0/mlflow/workspaces", {"name": "w"}, 503),
    get("/api/3.0/mlflow/workspaces/w", 503),
    patch("/api/3.0/mlflow/workspaces/w", {"description": "d"}, 503),
    delete("/api/3.0/mlflow/workspaces/w", expected=503),
    Call(
        method="GET",
        path="/api/2.0/mlflow/experiments/search",
        headers={"X-MLFLOW-WORKSPACE": "w"},
        params={"max_results": 1},
        expected=500,
    ),
]

_SEARCH = "/api/2.0/mlflow/runs/search"


def _raw(path: str, content: bytes | str, expected: int, **headers: str) -> Call:
    return Call(
        method="POST",
        path=path,
        content=content,
        expected=expected,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


STRANGE = [
    get("/nowhere", 404),
    get("/api/2.0/mlflow/nowhere", 404),
    get("/api/9.0/mlflow/runs/get", 404),
    get("/api/2.0/mlflow/runs/get/", 404),
    get("/api/2.0/mlflow//runs/get", 308),
    get("/API/2.0/mlflow/runs/get", 404),
    get("/api/3.0/mlflow/datasets/%0A/records?max_results=x", 404),
    get("/%61pi/2.0/mlflow/runs/get?run_id=missing", 404),
    get("/ajax-api/3.0/mlflow/mcp-servers/", 404),
    get("/v1/traces", 404),
    get("/v1/traces/", 404),
    get("/gateway/", 404),
    get("/docs", 404),
    get("/openapi.json", 404),
    get("/metrics", 404),
    get("/signup", 404),
    get("/api/2.0/mlflow/users/get", 404),
    get("/ajax-api/3.0/jobs", 404),
    get(_SEARCH, 405),
    delete("/version", expected=405),
    Call(method="OPTIONS", path=_SEARCH, expected=204),
    Call(method="OPTIONS", path="/v1/traces", expected=404),
    Call(method="HEAD", path="/api/3.0/mlflow/server-info"),
    Call(method="TRACE", path="/version", expected=405),
    Call(method="PROPFIND", path="/", expected=405),
    _raw(_SEARCH, "", 400),
    _raw(_SEARCH, "{", 200, content_type="application/json"),
    _raw(_SEARCH, "[]", 200, content_type="application/json"),
    _raw(_SEARCH, "null", 200, content_type="application/json"),
    _raw(_SEARCH, '"text"', 500, content_type="application/json"),
    _raw(_SEARCH, b"\xff\xfe", 200, content_type="application/json"),
    _raw(_SEARCH, '{"experiment_ids": "0"}', 400, content_type="application/json"),
    _raw(_SEARCH, '{"experiment_ids": ["0"], "no": 1}', 200, content_type="application/json"),
    _raw(_SEARCH, "experiment_ids=0", 400, content_type="application/x-www-form-urlencoded"),
    _raw(_SEARCH, '{"experiment_ids": ["0"]}', 200, content_type="application/json; charset=utf-8"),
    _raw(_SEARCH, '"{\\"experiment_ids\\": [\\"0\\"]}"', 200, content_type="application/json"),
    _raw("/api/2.0/mlflow/runs/create", "{" + " " * 100_000, 400, content_type="application/json"),
    _raw("/api/3.0/mlflow/mcp-servers", "{", 400, content_type="application/json"),
    _raw("/api/3.0/mlflow/mcp-servers", "{}", 400, content_type="text/plain"),
    _raw("/ajax-api/3.0/jobs/search", "{", 422, content_type="application/json"),
    get("/api/2.0/mlflow/experiments/get", experiment_id="0", more="x" * 4000),
    get("/api/2.0/mlflow/experiments/get-by-name", 500, experiment_name="\x00"),
    get("/api/2.0/mlflow/experiments/search", 400, max_results="many"),
]

CALLS: list[Call] = [*PAGE, *GRAPHQL, *WORKSPACES, *STRANGE]
