"""Every response has the headers that restrict what a browser does with it."""

import asyncio
import base64
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.tracing.constant import TRACE_RENDERER_ASSET_PATH
from starlette.types import Message
from tracking_server.gate.access_log import AccessLog
from tracking_server.gate.callbacks import Callbacks
from tracking_server.gate.concurrency_limit import Admission
from tracking_server.gate.credentials import Credentials
from tracking_server.gate.failed_logins import PATIENCE
from tracking_server.gate.gate import Gate
from tracking_server.gate.response_headers import (
    SANDBOX,
    ResponseHeaders,
    cache_control,
    page_policy,
)
from tracking_server.middleware import EMBEDDABLE
from tracking_server.page.files import build_folder

from tests.server.process import AUTHORIZATION, HOST, Server

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
RIGHT = {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}
WRONG = {"Authorization": "Basic " + base64.b64encode(b"u:wrong").decode()}
ALWAYS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
HSTS = "max-age=31536000"


class Application:
    """Responds to each path differently, with headers that must be replaced."""

    def __init__(self) -> None:
        # One message for all responses, like the gate's refusals.
        self.start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        self.waiting, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/failing":
            raise ValueError("for this test")
        if scope["path"] == "/waiting":
            self.waiting.set()
            await asyncio.wait_for(self.go_on.wait(), 10)
        await send(self.start)
        for part in (b"a", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "index.html"
    page.write_text("<script src=a.js></script><div id=root></div>")
    return page


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def client(application: Application, page: Path) -> httpx.AsyncClient:
    gate = Gate(
        Admission(application, limit=1),
        user=Credentials("u", "p"),
        viewer=Credentials("viewer", "v"),
        hosts=[HOST, "localhost", "127.0.0.1"],
        callbacks=Callbacks(port=1),
    )
    app = ResponseHeaders(AccessLog(gate), page=page, embeddable=EMBEDDABLE)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"https://{HOST}")


def kind_of(policy: str) -> str:
    if policy == SANDBOX:
        return "sandbox"
    assert policy.startswith("default-src 'self'; ")
    return "page" if policy.endswith("; frame-ancestors 'self'") else "embeddable"


ROWS = [
    # path, host, headers, status and policy
    ("/", HOST, RIGHT, 200, "page"),
    ("/", "localhost:8080", RIGHT, 200, "page"),
    ("/", "127.0.0.1", RIGHT, 200, "page"),
    ("/static-files/static/js/main.js", HOST, RIGHT, 200, "page"),
    (f"{EMBEDDABLE}/index.html", HOST, RIGHT, 200, "embeddable"),
    ("/static-files", HOST, RIGHT, 200, "sandbox"),
    ("/version", HOST, RIGHT, 200, "sandbox"),
    ("/health", HOST, {}, 200, "sandbox"),
    ("/health", "somewhere.example", {}, 200, "sandbox"),
    ("/api/2.0/mlflow/runs/search", HOST, RIGHT, 200, "sandbox"),
    ("/get-artifact?path=a.html", HOST, RIGHT, 200, "sandbox"),
    ("/model-versions/get-artifact?path=a.svg", HOST, RIGHT, 200, "sandbox"),
    (f"{ARTIFACTS}/1/x/artifacts/a.html", HOST, RIGHT, 200, "sandbox"),
    ("/ajax-api/2.0/mlflow/get-trace-artifact?path=a", HOST, RIGHT, 200, "sandbox"),
    ("/ajax-api/2.0/mlflow/logged-models/m/artifacts/files", HOST, RIGHT, 200, "sandbox"),
    # refusals
    ("/", HOST, {}, 401, "page"),
    ("/version", HOST, WRONG, 401, "sandbox"),
    ("/", "somewhere.example", RIGHT, 403, "page"),
    ("/version", HOST, RIGHT | {"Origin": "https://evil.example"}, 403, "sandbox"),
    ("/failing", HOST, RIGHT, 500, "sandbox"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "host", "headers", "status", "policy"), ROWS)
async def test_headers(
    client: httpx.AsyncClient,
    path: str,
    host: str,
    headers: dict[str, str],
    status: int,
    policy: str,
) -> None:
    answer = await client.get(path, headers={"Host": host} | headers)
    assert answer.status_code == status
    assert kind_of(answer.headers["content-security-policy"]) == policy
    assert {name: answer.headers[name] for name in ALWAYS} == ALWAYS
    is_local = host.partition(":")[0] in ("localhost", "127.0.0.1")
    assert answer.headers.get("strict-transport-security") == (None if is_local else HSTS)
    assert re.match("private|no-store", answer.headers["cache-control"])
    # Browsers combine or ignore repeated headers.
    names = [name.lower() for name, _ in answer.headers.raw]
    assert len(names) == len(set(names))
    if status == 200:
        assert answer.text == "ab"


@pytest.mark.anyio
async def test_the_refusal_of_a_wrong_password_has_the_sandbox_too(
    client: httpx.AsyncClient,
) -> None:
    for _ in range(PATIENCE + 1):
        refused = await client.get("/version", headers=WRONG)
    assert refused.status_code == 429
    assert refused.headers["content-security-policy"] == SANDBOX
    assert refused.headers["retry-after"]


@pytest.mark.anyio
async def test_the_refusal_of_too_many_requests(
    client: httpx.AsyncClient, application: Application
) -> None:
    first = asyncio.create_task(client.get("/waiting", headers=RIGHT))
    await asyncio.wait_for(application.waiting.wait(), 10)
    refused = await client.get("/version", headers=RIGHT)
    application.go_on.set()
    assert (await first).status_code == 200
    assert refused.status_code == 503
    assert refused.headers["content-security-policy"] == SANDBOX
    assert refused.headers["cache-control"] == "no-store"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_headers_that_mlflow_sets_are_not_repeated(
    client: httpx.AsyncClient, application: Application
) -> None:
    given = [
        (b"content-type", b"text/html"),
        (b"Content-Security-Policy", b"default-src *"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"SAMEORIGIN"),
        (b"cache-control", b"public"),
        (b"cache-control", b"max-age=5"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    application.start["headers"] = list(given)
    answer = await client.get("/", headers=RIGHT)
    assert kind_of(answer.headers["content-security-policy"]) == "page"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["cache-control"] == "private, max-age=5"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert application.start["headers"] == given


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "destination", "kind"),
    [
        ("/get-artifact?path=a.js", "script", "text/plain; charset=utf-8"),
        (f"{ARTIFACTS}/a.js", "worker", "text/plain; charset=utf-8"),
        (f"{ARTIFACTS}/a.js", "serviceworker", "text/plain; charset=utf-8"),
        (f"{ARTIFACTS}/a.js", "empty", "text/javascript"),
        (f"{ARTIFACTS}/a.js", "", "text/javascript"),
        ("/static-files/a.js", "script", "text/javascript"),
        ("/static-files/a.js", "worker", "text/javascript"),
    ],
)
async def test_an_artifact_cannot_run_as_a_script(
    client: httpx.AsyncClient, application: Application, path: str, destination: str, kind: str
) -> None:
    application.start["headers"] = [(b"content-type", b"text/javascript")]
    asked = {"Sec-Fetch-Dest": destination} if destination else {}
    answer = await client.get(path, headers=RIGHT | asked)
    assert answer.headers["content-type"] == kind


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("", "private"),
        ("no-store", "no-store"),
        ("no-store, public", "no-store"),
        ("NO-STORE", "NO-STORE"),
        ("public", "private"),
        ("Public, max-age=2419200", "private, max-age=2419200"),
        ("private, max-age=0", "private, max-age=0"),
        ("max-age=31536000, immutable", "private, max-age=31536000, immutable"),
        ("s-maxage=60, no-cache", "private, no-cache"),
        ('private="set-cookie", no-cache', "private, no-cache"),
    ],
)
def test_only_the_callers_own_cache_may_store_a_response(given: str, sent: str) -> None:
    assert cache_control(given) == sent


@pytest.mark.parametrize(
    ("html", "scripts"),
    [
        ("<script src='a.js'></script>", []),
        ("<script>alert(1)</script>", ["alert(1)"]),
        ("<SCRIPT type=module>\na()\n</SCRIPT><script defer src=b></script>", ["\na()\n"]),
        ("<script data-src=x>b</script><script>c</script>", ["b", "c"]),
    ],
)
def test_the_pages_own_scripts_are_allowed_by_their_hashes(html: str, scripts: list[str]) -> None:
    [sources] = re.findall(r"script-src ([^;]*)", page_policy(html))
    hashes = [base64.b64encode(sha256(text.encode()).digest()).decode() for text in scripts]
    assert sources == " ".join(["'self'", "'unsafe-eval'", *(f"'sha256-{h}'" for h in hashes)])


def test_only_static_files_can_be_embeddable(page: Path) -> None:
    with pytest.raises(ValueError, match="not a static file"):
        ResponseHeaders(Application(), page=page, embeddable="/version")


def test_a_websocket_is_passed_on(page: Path) -> None:
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])
        await send({"type": "websocket.close"})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    headers = ResponseHeaders(app, page=page, embeddable=EMBEDDABLE)
    asyncio.run(headers({"type": "websocket"}, receive, send))
    assert (passed, sent) == (["websocket"], [{"type": "websocket.close"}])


def test_mlflows_page_has_no_inline_script_and_no_handler() -> None:
    """If this fails, review the hashes and the policy for handlers."""
    html = (build_folder() / "index.html").read_text()
    assert "sha256-" not in page_policy(html)
    assert not re.search(r"<[^>]*\son[a-z]+\s*=", html)
    assert TRACE_RENDERER_ASSET_PATH == EMBEDDABLE


@pytest.fixture(scope="module")
def server(
    shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(shared_environment, tmp_path_factory.mktemp("server"), forked=True)
    yield server.ready()
    server.process.kill()
    server.process.wait()


def test_the_whole_server(server: Server) -> None:
    """Checks the whole server: page, static file, artifact, refusal and probe."""
    with httpx.Client(base_url=server.url, headers={"Host": HOST}) as client:
        page = client.get("/", headers={"Authorization": AUTHORIZATION})
        assert kind_of(page.headers["content-security-policy"]) == "page"
        [script] = re.findall(r'src="(static-files/[^"]+\.js)"', page.text)
        file = client.get(f"/{script}", headers={"Authorization": AUTHORIZATION})
        assert file.status_code == 200
        assert file.headers["cache-control"].startswith("private, ")
        assert "max-age=" in file.headers["cache-control"]
        client.headers["Authorization"] = AUTHORIZATION
        assert client.put(f"{ARTIFACTS}/0/a.html", content=b"<script>").status_code == 200
        artifact = client.get(f"{ARTIFACTS}/0/a.html")
        assert (artifact.text, artifact.headers["content-type"][:9]) == ("<script>", "text/html")
        assert artifact.headers["content-security-policy"] == SANDBOX
        del client.headers["Authorization"]
        for path, status in {"/": 401, "/health": 200}.items():
            answer = client.get(path)
            assert answer.status_code == status
            assert {name: answer.headers[name] for name in ALWAYS} == ALWAYS
    assert [entry for entry in server.entries() if entry["severity"] == "ERROR"] == []
