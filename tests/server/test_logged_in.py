"""Callers with the right password have no control of the server, and can still use MLflow.

One server that runs as in the cloud: it can only reach its own services on this computer.
"""

import json
import socket
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from fake_google.sql.postgres import Postgres
from tests.server.conftest import made_database
from tests.server.parity.servers import our_environment, ours
from tests.server.process import PASSWORD, USER, Server, eventually

VIEWER = ("viewer", "canary-viewer-password")
REMOTE = {"X-Forwarded-For": "203.0.113.7"}
"""The address of a client, as Cloud Run's front end passes it on."""

GATEWAY = "/api/3.0/mlflow/gateway"
SEARCH = "/api/2.0/mlflow/runs/search"
KEY = "sk-canary-provider-key"


@dataclass
class Receiver:
    """A server that a caller controls, which records the requests it gets."""

    server: ThreadingHTTPServer
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def receiver(answer: Mapping[str, Any] | None = None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            running.received.append((self.path, headers, body))
            content = json.dumps(COMPLETION | dict(answer or {})).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    running = Receiver(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        thread.join()
        running.server.server_close()


COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": '{"result": true, "rationale": "fine"}'},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@contextmanager
def running(folder: Path, postgres: Postgres, cloudsql_root: Path, **more: str) -> Iterator[Server]:
    url = made_database(postgres, f"logged_in_{folder.name}".replace("-", "_"))
    with (
        our_environment(folder, url, cloudsql_root, viewer=VIEWER) as environment,
        ours(environment | more, folder, forked=True) as server,
    ):
        yield server.ready()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("closed")
    with running(folder, postgres, cloudsql_root, INTERNAL_NETWORKS="") as started:
        yield started
        failed = [entry for entry in started.entries() if "stack_trace" in entry]
        assert not failed, failed


@pytest.fixture(scope="module")
def open_server(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Server]:
    """A server whose team allows connections to this computer, so that a provider can be here."""
    folder = tmp_path_factory.mktemp("open")
    with running(folder, postgres, cloudsql_root, INTERNAL_NETWORKS="127.0.0.0/8") as started:
        yield started


@pytest.fixture
def user(server: Server) -> Iterator[httpx.Client]:
    with server.client(headers=REMOTE) as client:
        yield client


@pytest.fixture
def viewer(server: Server) -> Iterator[httpx.Client]:
    with server.client(auth=VIEWER, headers=REMOTE) as client:
        yield client


# ---- programs on the server ------------------------------------------------------------------

ASSISTANT = "/ajax-api/3.0/mlflow/assistant"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"{ASSISTANT}/config"),
        ("POST", f"{ASSISTANT}/message"),
        ("GET", f"{ASSISTANT}/sessions/x/stream"),
        ("PATCH", f"{ASSISTANT}/sessions/x"),
        ("GET", f"{ASSISTANT}/providers"),
        ("GET", f"{ASSISTANT}/providers/openai/health"),
        ("GET", f"{ASSISTANT}/providers/openai/models"),
        ("POST", f"{ASSISTANT}/skills/install"),
        ("DELETE", f"{ASSISTANT}/config"),
        ("POST", ASSISTANT),
        ("PUT", "/api/3.0/mlflow/assistant/config"),
        ("POST", "/ajax-api/2.0/mlflow/assistant/message"),
    ],
)
@pytest.mark.parametrize(
    "told",
    [
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": "nonsense"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
    ids=str,
)
def test_the_assistant_refuses_other_computers(
    server: Server, method: str, path: str, told: dict[str, str]
) -> None:
    with server.client(headers=told) as client:
        assert client.request(method, path, json={}).status_code == 403


def test_the_assistants_page_learns_that_it_is_not_available(user: httpx.Client) -> None:
    answer = user.get(f"{ASSISTANT}/config")
    assert answer.status_code == 200
    assert answer.json()["remote_access_allowed"] is False


def test_the_assistant_is_available_on_the_same_computer(server: Server) -> None:
    with server.client() as client:
        assert client.get(f"{ASSISTANT}/providers").status_code == 200


# ---- the gateway's keys ----------------------------------------------------------------------


def made_secret(client: httpx.Client, name: str, **more: Any) -> httpx.Response:
    fields = {
        "secret_name": name,
        "secret_value": {"api_key": KEY},
        "provider": "openai",
        **more,
    }
    return client.post(f"{GATEWAY}/secrets/create", json=fields)


def made_endpoint(client: httpx.Client, name: str, base: str, **more: Any) -> dict[str, str]:
    """Create a gateway endpoint with that name, whose provider is at that address."""
    auth_config = {"api_base": base} if base else {}
    secret = made_secret(client, name, **{"auth_config": auth_config, **more})
    assert secret.status_code == 200, secret.text
    provider = more.get("provider", "openai")
    found = {"secret_id": secret.json()["secret"]["secret_id"]}
    definition = client.post(
        f"{GATEWAY}/model-definitions/create",
        json={"name": name, "provider": provider, "model_name": "m", **found},
    )
    assert definition.status_code == 200, definition.text
    found["model_definition_id"] = definition.json()["model_definition"]["model_definition_id"]
    endpoint = client.post(
        f"{GATEWAY}/endpoints/create",
        json={
            "name": name,
            "model_configs": [
                {
                    "model_definition_id": found["model_definition_id"],
                    "linkage_type": "PRIMARY",
                    "weight": 1.0,
                }
            ],
        },
    )
    assert endpoint.status_code == 200, endpoint.text
    found["endpoint_id"] = endpoint.json()["endpoint"]["endpoint_id"]
    return found


@pytest.mark.parametrize(
    "wrong",
    [
        {"auth_config": {"vertex_location": "evil.example/", "vertex_project": "p"}},
        {"auth_config": {"vertex_location": "127.0.0.1:8443/", "vertex_project": "p"}},
        {"authConfig": {"vertex_location": "x@evil.example", "vertex_project": "p"}},
        {"auth_config": {"vertex_location": "global", "vertex_project": "../p"}},
        {"auth_config": {"aws_region_name": "evil.example/"}},
        {"auth_config": {"deployment_name": "../../x?y="}},
        {"auth_config": {"api_base": "http://169.254.169.254/"}},
        {"auth_config": {"api_base": "https://127.0.0.1:1/"}},
        {"auth_config": {"api_base": "https://localhost/"}},
        {"secret_value": {"vertex_credentials": "/dev/zero"}},
        {"secret_value": {"vertex_credentials": "/proc/self/environ"}},
        {"secret_value": {"vertex_credentials": '{"type": "external_account"}'}},
        {
            "secret_value": {
                "vertex_credentials": json.dumps(
                    {"type": "service_account", "token_uri": "http://127.0.0.1:1/"}
                )
            }
        },
        {"provider": ""},
    ],
    ids=str,
)
def test_a_secret_with_another_address_is_refused(
    user: httpx.Client, wrong: dict[str, Any]
) -> None:
    answer = made_secret(user, "elsewhere", **{"provider": "vertex_ai", **wrong})
    assert answer.status_code == 400, answer.text
    listed = user.get(f"{GATEWAY}/secrets/list").json()
    assert "elsewhere" not in json.dumps(listed)


def test_a_stored_key_is_only_sent_to_its_provider(open_server: Server) -> None:
    with receiver() as theirs, receiver() as evil, open_server.client() as client:
        ids = made_endpoint(client, "meant", f"{theirs.url}/v1")

        def update(**fields: Any) -> int:
            secret = {"secret_id": ids["secret_id"], **fields}
            return client.post(f"{GATEWAY}/secrets/update", json=secret).status_code

        def define(**fields: Any) -> int:
            return client.post(f"{GATEWAY}/model-definitions/update", json=fields).status_code

        there, elsewhere = f"{theirs.url}/v1", f"{evil.url}/v1"
        assert update(auth_config={"api_base": elsewhere}) == 400
        assert update(authConfig={"api_base": elsewhere}) == 400
        assert update(auth_config={"api_base": there, "api_type": "azure"}) == 400
        assert update(auth_config={"api_base": there}) == 200
        assert update(auth_config={"api_base": there}, secret_value={"api_key": KEY}) == 200
        definition = ids["model_definition_id"]
        assert define(model_definition_id=definition, provider="anthropic") == 400
        assert define(modelDefinitionId=definition, provider="ollama") == 400
        assert define(model_definition_id=definition, model_name="n") == 200
        created = client.post(
            f"{GATEWAY}/model-definitions/create",
            json={
                "name": "other",
                "provider": "groq",
                "model_name": "m",
                "secret_id": ids["secret_id"],
            },
        )
        assert created.status_code == 400
        asked = client.post("/gateway/proxy/meant/v1/chat/completions", json={"messages": []})
        assert asked.status_code == 200, asked.text
        assert theirs.received
        assert not evil.received


def basic(user: str, password: str) -> str:
    return httpx.BasicAuth(user, password)._auth_header


@pytest.fixture(scope="module")
def provider(open_server: Server) -> Iterator[Receiver]:
    """The provider of the endpoint `keeps`."""
    with receiver() as running_provider, open_server.client() as client:
        made_endpoint(client, "keeps", f"{running_provider.url}/v1")
        yield running_provider


AGENTS = ["curl/8", "claude-cli/1.0.0 (external, cli)", "codex_cli_rs/0.1", "GeminiCLI/v1/x (l; x)"]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    "path", ["/gateway/proxy/keeps/v1/chat/completions", "/gateway/openai/v1/chat/completions"]
)
def test_no_login_is_passed_on_to_a_provider(
    open_server: Server, provider: Receiver, agent: str, path: str
) -> None:
    ours_alone = {
        "User-Agent": agent,
        "Cookie": "GCP_IAP_UID=canary-cookie",
        "Proxy-Authorization": "Bearer canary-proxy",
        "X-Serverless-Authorization": "Bearer canary-serverless",
        "X-Goog-IAP-JWT-Assertion": "canary-iap",
        "X-Goog-Authenticated-User-Email": "canary-email",
        "X-Portkey-Custom-Host": "https://evil.example",
        **REMOTE,
    }
    message = {"model": "keeps", "messages": [{"role": "user", "content": "2+2?"}]}
    provider.received.clear()
    with open_server.client() as client:
        answer = client.post(path, json=message, headers=ours_alone)
        assert answer.status_code == 200, answer.text
    [(_, headers, _)] = provider.received
    assert headers["authorization"] == f"Bearer {KEY}"
    sent = json.dumps(headers)
    assert "canary-" not in sent.replace(KEY, "")
    assert basic(USER, PASSWORD).split()[1] not in sent
    assert "evil.example" not in sent
    assert "203.0.113.7" not in sent


@pytest.mark.parametrize(
    ("login", "status", "provider_gets"),
    [
        ({"X-MLflow-Authorization": basic(USER, PASSWORD)}, 200, "Bearer own-key"),
        ({"X-MLflow-Authorization": basic(USER, "wrong")}, 401, ""),
        ({"X-MLflow-Authorization": basic(*VIEWER)}, 403, ""),
        ({"X-MLflow-Authorization": ""}, 401, ""),
        ({}, 401, ""),
    ],
    ids=str,
)
def test_a_tool_with_its_own_key_logs_in_with_another_header(
    open_server: Server,
    provider: Receiver,
    login: dict[str, str],
    status: int,
    provider_gets: str,
) -> None:
    headers = {"Authorization": "Bearer own-key", "User-Agent": AGENTS[1], **login}
    message = {"model": "keeps", "messages": [{"role": "user", "content": "2+2?"}]}
    provider.received.clear()
    with httpx.Client(base_url=open_server.url, timeout=30) as tool:
        answer = tool.post("/gateway/openai/v1/chat/completions", json=message, headers=headers)
        assert answer.status_code == status, answer.text
        # On other routes this header is not a login.
        assert tool.get("/version", headers=headers).status_code == 401
    sent = [headers.get("authorization", "") for _, headers, _ in provider.received]
    assert sent == ([provider_gets] if provider_gets else [])


# ---- outgoing connections --------------------------------------------------------------------


def test_a_webhook_to_this_computer_is_refused(user: httpx.Client) -> None:
    for url in (
        "https://127.0.0.1/",
        "https://169.254.169.254/",
        "http://127.0.0.1/",
        "https://[::1]/",
    ):
        answer = user.post(
            "/api/2.0/mlflow/webhooks",
            json={
                "name": "w",
                "url": url,
                "events": [{"entity": "MODEL_VERSION", "action": "CREATED"}],
            },
        )
        assert answer.status_code == 400, (url, answer.text)


def test_the_servers_own_credentials_are_not_found(open_server: Server) -> None:
    """Vertex AI without a key would be called with the server's own token."""
    with open_server.client() as client:
        made_endpoint(
            client,
            "ambient",
            "",
            provider="vertex_ai",
            secret_value={"x": "y"},
            auth_config={"vertex_project": "p", "vertex_location": "us-central1"},
        )
        answer = client.post(
            "/gateway/mlflow/v1/chat/completions",
            json={"model": "ambient", "messages": [{"role": "user", "content": "2+2?"}]},
        )
        assert answer.status_code == 500
    # The search for credentials failed before any request was sent.
    assert eventually(lambda: "DefaultCredentialsError" in open_server.log())


def test_the_bucket_is_still_reachable(user: httpx.Client) -> None:
    """The server's own connections stream, list and sign uploads in parts."""
    path = "/api/2.0/mlflow-artifacts/artifacts/logged-in.txt"
    assert user.put(path, content=b"text").status_code == 200
    assert user.get(path).content == b"text"
    listed = user.get("/api/2.0/mlflow-artifacts/artifacts", params={"path": ""})
    assert "logged-in.txt" in listed.text
    parts = {"path": "large.bin", "num_parts": 3}
    signed = user.post("/api/2.0/mlflow-artifacts/mpu/create/large.bin", json=parts)
    assert [part["part_number"] for part in signed.json()["credentials"]] == [1, 2, 3]


def test_a_provider_cannot_be_this_server_itself(open_server: Server) -> None:
    """Even though this computer is allowed, and the request has a second copy of the login."""
    path = "/gateway/proxy/itself/api/2.0/mlflow/experiments/search"
    login = basic(USER, PASSWORD)
    with open_server.client() as client:
        made_endpoint(client, "itself", f"{open_server.url}/v1")
        client.auth = None
        headers = {"X-MLflow-Authorization": login, "User-Agent": AGENTS[1]}
        for more in ({}, {"Authorization": login}):
            answer = client.post(path, json={"max_results": 1}, headers={**headers, **more})
            assert answer.status_code >= 400, answer.text
            assert "experiments" not in answer.text


def test_a_guardrail_calls_back_without_a_password(open_server: Server) -> None:
    with receiver() as judge, receiver() as model, open_server.client() as client:
        made_endpoint(client, "judge", f"{judge.url}/v1")
        ids = made_endpoint(client, "guarded", f"{model.url}/v1")
        experiment = client.post(
            "/api/2.0/mlflow/experiments/create", json={"name": "guardrails"}
        ).json()["experiment_id"]
        scorer = client.post(
            "/api/3.0/mlflow/scorers/register",
            json={
                "experiment_id": experiment,
                "name": "polite",
                "serialized_scorer": json.dumps(JUDGE),
            },
        )
        assert scorer.status_code == 200, scorer.text
        guardrail = client.post(
            f"{GATEWAY}/guardrails/create",
            json={
                "name": "polite",
                "scorer_id": scorer.json()["scorer_id"],
                "scorer_version": scorer.json()["version"],
                "stage": "BEFORE",
                "action": "VALIDATION",
            },
        )
        assert guardrail.status_code == 200, guardrail.text
        added = client.post(
            f"{GATEWAY}/guardrails/add-to-endpoint",
            json={
                "endpoint_id": ids["endpoint_id"],
                "guardrail_id": guardrail.json()["guardrail"]["guardrail_id"],
            },
        )
        assert added.status_code == 200, added.text
        answer = client.post(
            "/gateway/mlflow/v1/chat/completions",
            json={"model": "guarded", "messages": [{"role": "user", "content": "2+2?"}]},
        )
        assert answer.status_code == 200, answer.text
        assert judge.received
        assert model.received


JUDGE = {
    "name": "polite",
    "aggregations": [],
    "mlflow_version": "3.17.2",
    "serialization_version": 1,
    "instructions_judge_pydantic_data": {
        "instructions": "Is {{ inputs }} polite? Answer true or false.",
        "model": "gateway:/judge",
    },
}


# ---- errors ----------------------------------------------------------------------------------


def test_an_error_of_the_database_keeps_its_statement(user: httpx.Client, server: Server) -> None:
    found = user.post("/api/2.0/mlflow/experiments/create", json={"name": "too long " * 30})
    assert found.status_code == 400
    assert "INSERT" not in found.text
    assert "sqlalche.me" not in found.text
    identifier = found.json()["message"].rsplit(" ", 1)[1].rstrip(".")
    told = [entry for entry in server.entries() if entry.get("request_id") == identifier]
    assert any("INSERT" in entry["message"] for entry in told)


# ---- sizes and counts ------------------------------------------------------------------------

BACK_REFERENCE = r"tags.x RLIKE '^(a+)(a+)(a+)\1\2\3$'"

GZIP = {"Content-Encoding": "gzip", "Content-Type": "application/x-protobuf"}


def gzipped(size: int) -> bytes:
    compress = zlib.compressobj(wbits=31)
    return compress.compress(bytes(size)) + compress.flush()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", SEARCH, {"filter": "x" * 40_000}, 400),
        ("POST", SEARCH, {"filter": " AND ".join(["metrics.x > 1"] * 200)}, 400),
        ("POST", SEARCH, {"order_by": ["metrics.x"] * 60}, 400),
        ("POST", SEARCH, {"orderBy": ["metrics.x"] * 60}, 400),
        ("POST", SEARCH, {"experiment_ids": ["1"] * 20_000}, 413),
        ("POST", SEARCH, {"page_token": "x" * 10_000}, 400),
        ("POST", SEARCH, {"max_results": 10**9}, 400),
        ("POST", SEARCH, {"maxResults": str(10**9)}, 400),
        ("POST", "/graphql", {"query": "{" + "a " * 10_000 + "}"}, 400),
        ("POST", "/graphql", {"query": "{" * 300 + "a" + "}" * 300}, 413),
        ("POST", "/graphql", {"query": "query " + "{" * 300 + "a" + "}" * 300}, 400),
        ("POST", "/graphql", [], 400),
        ("POST", "/graphql", {"query": "query($n:Int){a}", "variables": {"n": 50_000}}, 400),
        ("POST", "/graphql", {"query": "{a(input:{maxResults:,,,,,,,50000}){b}}"}, 400),
        ("GET", f"/api/2.0/mlflow/experiments/search?max_results={10**9}", None, 400),
        ("GET", "/api/2.0/mlflow/registered-models/search?filter=" + "x" * 40_000, None, 400),
        ("POST", "/ajax-api/3.0/mlflow/traces/search", {"filter": BACK_REFERENCE}, 400),
        ("POST", SEARCH, {"filter": BACK_REFERENCE.replace("RLIKE", "rlike")}, 400),
        ("GET", "/ajax-api/3.0/mlflow/mcp-servers?filter_string=" + "x" * 40_000, None, 400),
        (
            "GET",
            "/ajax-api/3.0/mlflow/mcp-servers?filter_string=" + " AND ".join(["name = 'x'"] * 30),
            None,
            400,
        ),
        ("GET", f"/ajax-api/3.0/mlflow/mcp-servers?max_results={10**9}", None, 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_excessive_queries_of_the_viewer_are_refused(
    viewer: httpx.Client, method: str, path: str, body: Any, status: int
) -> None:
    answer = viewer.request(method, path, json=body)
    assert answer.status_code == status, answer.text[:300]
    assert answer.json()["message"]


def test_a_number_is_refused_in_the_words_of_mlflow(viewer: httpx.Client) -> None:
    """Clients, and MLflow's own tests, match them."""
    answer = viewer.post(SEARCH, json={"max_results": 123456789})
    assert "Invalid value 123456789 for parameter 'max_results' supplied" in answer.text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/api/2.0/mlflow-artifacts/mpu/create/x", {"path": "x", "num_parts": 0}),
        ("/api/2.0/mlflow-artifacts/mpu/create/x", {"path": "x", "num_parts": 10_001}),
        ("/api/2.0/mlflow-artifacts/mpu/create/x", {"path": "x", "numParts": "1500000"}),
        ("/api/2.0/mlflow-artifacts/mpu/create/x", {"path": "x", "num_parts": "1e5"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "file:///tmp"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "/tmp/x"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifactLocation": "x"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "C:/x"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": " FILE:/x"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "s3://b/x"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "RUNS:/x/y"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "gs:x"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "gs://"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "l", "artifact_location": "gs://b/../c"}),
        (
            "/api/2.0/mlflow/experiments/create",
            {"name": "l", "artifact_location": "mlflow-artifacts:/../x"},
        ),
        (
            "/api/2.0/mlflow/experiments/create",
            {"name": "l", "artifact_location": "mlflow-artifacts:/%2e%2e/x"},
        ),
        (
            "/api/2.0/mlflow/experiments/create",
            {"name": "l", "artifact_location": "mlflow-artifacts://evil.example/x"},
        ),
    ],
    ids=str,
)
def test_excessive_requests_of_the_user_are_refused(
    user: httpx.Client, path: str, fields: dict[str, Any]
) -> None:
    answer = user.post(path, json=fields)
    assert answer.status_code == 400, answer.text[:300]
    # Older clients encode the JSON twice.
    twice = user.post(path, content=json.dumps(json.dumps(fields)), headers=JSON)
    assert twice.status_code == 400, twice.text[:300]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("who", ["user", "viewer"])
def test_a_body_has_a_limit(server: Server, who: str) -> None:
    login = (USER, PASSWORD) if who == "user" else VIEWER
    limit = (32 if who == "user" else 1) * 1024 * 1024
    with server.client(auth=login, timeout=60) as client:
        fits = b'{"experiment_ids":["0"],"unknown":"' + b"x" * (limit - 100) + b'"}'
        assert client.post(SEARCH, content=fits, headers=JSON).status_code == 200
        for body in (b"x" * (limit + 1), iter([b"x" * 65536] * (limit // 65536 + 1))):
            answer = client.post(SEARCH, content=body, headers=JSON)
            assert answer.status_code == 413
            assert answer.json()["message"]
        got = client.request("GET", SEARCH, content=b"x" * (limit + 1), headers=JSON)
        assert got.status_code == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_has_the_same_limit(user: httpx.Client, encoding: str) -> None:
    bits = 31 if encoding == "gzip" else 15
    compress = zlib.compressobj(wbits=bits)
    bomb = compress.compress(bytes(300 * 1024 * 1024)) + compress.flush()
    headers = GZIP | {"Content-Encoding": encoding}
    answer = user.post("/v1/traces", content=bomb, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["message"]


@pytest.mark.parametrize(
    ("encoding", "status"), [("br", 415), ("zstd", 415), ("gzip, gzip", 415), ("gzip", 400)]
)
def test_a_body_that_cannot_be_decompressed_is_refused(
    user: httpx.Client, encoding: str, status: int
) -> None:
    headers = GZIP | {"Content-Encoding": encoding}
    answer = user.post("/v1/traces", content=b"\x1f\x8b\x08 not gzip", headers=headers)
    assert answer.status_code == status
    assert answer.json()["message"]


def test_deep_json_and_json_with_countless_values_are_refused(user: httpx.Client) -> None:
    protobuf = {"Content-Type": "application/x-protobuf"}
    for body in (b"[" * 100_000, b'{"a":' * 5000, b"[" + b"{}," * 300_000 + b"{}]"):
        # Also with another content type, and encoded twice.
        for content, headers in (
            (body, JSON),
            (body, protobuf),
            (json.dumps(body.decode()).encode(), JSON),
        ):
            answer = user.post(SEARCH, content=content, headers=headers)
            assert answer.status_code == 413, answer.text[:300]


def test_empty_spans_are_counted(user: httpx.Client) -> None:
    from tracking_server.gate.otlp_limits import MAX_PARTS, MAX_SPANS

    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    spans = field(1, field(2, field(2, b"") * (MAX_SPANS + 1)))
    # Strings in the list of a resource's attributes.
    strings = field(1, field(1, field(3, field(3, b"") * MAX_PARTS)))
    headers = {"Content-Type": "application/x-protobuf", "X-MLflow-Experiment-Id": "0"}
    for many in (spans, strings):
        answer = user.post("/v1/traces", content=many, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["message"]


def test_a_long_history_is_read_in_pages(user: httpx.Client) -> None:
    from tracking_server.mlflow.request_limits import MAX_HISTORY

    created = user.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"})
    run_id = created.json()["run"]["info"]["run_id"]
    for first in range(0, MAX_HISTORY + 1, 1000):
        steps = range(first, min(first + 1000, MAX_HISTORY + 1))
        metrics = [{"key": "m", "value": 1.0, "timestamp": 1, "step": step} for step in steps]
        batch = {"run_id": run_id, "metrics": metrics}
        assert user.post("/api/2.0/mlflow/runs/log-batch", json=batch).status_code == 200
    asked = {"run_id": run_id, "metric_key": "m"}
    history = "/api/2.0/mlflow/metrics/get-history"
    assert user.get(history, params=asked).status_code == 400
    page = user.get(history, params={**asked, "max_results": MAX_HISTORY})
    assert len(page.json()["metrics"]) == MAX_HISTORY
    assert page.json()["next_page_token"]


def test_a_probes_body_reserves_no_memory(server: Server, user: httpx.Client) -> None:
    """/health needs no login, so a body that it announces doesn't count."""
    announced = "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n"
    chunked = "GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ExitStack() as stack:
        for request in [announced, chunked] * 20:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(request.encode())
        assert user.post(SEARCH, json={"experiment_ids": ["0"]}).status_code == 200


@pytest.mark.parametrize("place", ["file://{}", "{}", "FILE:{}", "C:{}"])
def test_a_local_location_in_the_database_is_not_read(
    user: httpx.Client, tmp_path: Path, place: str
) -> None:
    """A trace's tags contain the location of its spans, and callers can set them."""
    (tmp_path / "traces.json").write_text("canary-file")
    located = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
    trace_id = f"tr-{tmp_path.name}-{len(place)}{place[0]}"
    info = {
        "trace_id": trace_id,
        "trace_location": located,
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
    }
    made = user.post("/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}})
    assert made.status_code == 200, made.text
    tag = {"key": "mlflow.artifactLocation", "value": place.format(tmp_path)}
    user.patch(f"/api/2.0/mlflow/traces/{trace_id}/tags", json=tag)
    read = user.get("/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": trace_id})
    assert read.status_code in (400, 404), read.text
    assert "canary-file" not in read.text


def test_a_body_needs_no_length(user: httpx.Client) -> None:
    """Over HTTP/2 the length is optional, and over HTTP/1.1 the body may come in chunks."""
    fields = json.dumps({"name": "without a length"}).encode()
    created = user.post(
        "/api/2.0/mlflow/experiments/create",
        content=iter([fields]),
        headers={"Content-Type": "application/json"},
    )
    assert created.status_code == 200, created.text


def test_a_small_file_may_hold_anything(user: httpx.Client) -> None:
    """The page uploads a file as it is; in other bodies so many brackets would be refused."""
    made = user.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"})
    run = made.json()["run"]["info"]["run_id"]
    content = b"[{," * 500_000
    answer = user.post(
        "/ajax-api/2.0/mlflow/upload-artifact",
        params={"run_uuid": run, "path": "file.bin"},
        content=content,
    )
    assert answer.status_code == 200, answer.text
    found = user.get("/get-artifact", params={"run_uuid": run, "path": "file.bin"})
    assert found.content == content


def test_a_query_result_has_a_limit(user: httpx.Client, viewer: httpx.Client) -> None:
    """The limit counts bytes from the database, and is lower for the viewer."""
    tags = [{"key": f"t{number}", "value": "x" * 5000} for number in range(400)]
    created = user.post("/api/2.0/mlflow/experiments/create", json={"name": "large answers"})
    experiment = created.json()["experiment_id"]
    for _ in range(3):
        made = user.post(
            "/api/2.0/mlflow/runs/create", json={"experiment_id": experiment, "tags": tags}
        )
        assert made.status_code == 200, made.text[:300]
    search = {"experiment_ids": [experiment]}
    assert user.post(SEARCH, json=search).status_code == 200
    answer = viewer.post(SEARCH, json=search)
    assert answer.status_code == 400
    assert "max_results" in answer.json()["message"]
    assert viewer.post(SEARCH, json={**search, "max_results": 1}).status_code == 200
