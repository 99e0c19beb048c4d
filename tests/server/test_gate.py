"""The requests that the gate admits: credentials × path × method × scope."""

import asyncio
import base64
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking_server.gate.access_log import LOG_FIELDS
from tracking_server.gate.callbacks import Callbacks
from tracking_server.gate.credentials import Credentials, PreviousCredentials
from tracking_server.gate.failed_logins import PATIENCE
from tracking_server.gate.gate import MAX_AUTHORIZATION, Gate

HOST = "mlflow-123456789012.us-central1.run.app"
HASHED = "mlflow-a1b2c3d4e5-uc.a.run.app"
HOSTS = [HOST, "mlflow-*.a.run.app", "ml.example.com", "localhost", "127.0.0.1"]
USER, PASSWORD = "mlflow", "s3cret:ü"

Pairs = Iterable[tuple[bytes, bytes]]


def basic(user: str, password: str, scheme: str = "Basic") -> bytes:
    return f"{scheme} ".encode() + base64.b64encode(f"{user}:{password}".encode())


RIGHT = (b"authorization", basic(USER, PASSWORD))


class Application:
    """The application behind the gate, which records that it was reached."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def new_gate(**more: Any) -> Gate:
    callbacks = Callbacks(port=8080)
    return Gate(
        Application(), user=Credentials(USER, PASSWORD), hosts=HOSTS, callbacks=callbacks, **more
    )


def call(
    *headers: tuple[bytes, bytes],
    method: str = "GET",
    path: bytes = b"/",
    host: str | None = HOST,
    kind: str = "http",
    gate: Gate | None = None,
) -> tuple[int | None, dict[bytes, bytes], bool]:
    """Returns status, headers and whether the application was reached."""
    gate = gate or new_gate()
    application = Application()
    gate.app = application
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the gate must not read a body")

    scope = {
        "type": kind,
        "method": method,
        "path": path.decode("latin-1"),
        "raw_path": path,
        "headers": [*([(b"host", host.encode())] if host is not None else []), *headers],
        "client": ("169.254.1.1", 1),
    }
    run = gate(scope, receive, send)
    try:
        run.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError("the gate must not wait")
    start = next((m for m in sent if m["type"] == "http.response.start"), None)
    found = dict(start["headers"]) if start else {}
    return (start["status"] if start else None), found, bool(application.reached)


WRONG_CREDENTIALS: dict[str, list[tuple[bytes, bytes]]] = {
    "none": [],
    "empty": [(b"authorization", b"")],
    "wrong password": [(b"authorization", basic(USER, "wrong"))],
    "wrong user": [(b"authorization", basic("root", PASSWORD))],
    "both wrong": [(b"authorization", basic("root", "wrong"))],
    "empty password": [(b"authorization", basic(USER, ""))],
    "upper case": [(b"authorization", basic(USER.upper(), PASSWORD))],
    "prefix": [(b"authorization", basic(USER, PASSWORD[:-1]))],
    "longer": [(b"authorization", basic(USER, PASSWORD + "x"))],
    "NUL behind": [(b"authorization", basic(USER, PASSWORD + "\0"))],
    "no colon": [(b"authorization", b"Basic " + base64.b64encode(b"mlflow"))],
    "bad base64": [(b"authorization", b"Basic %%%")],
    "bad padding": [(b"authorization", basic(USER, PASSWORD)[:-1])],
    "junk behind": [(b"authorization", basic(USER, PASSWORD) + b"!")],
    "not base64": [(b"authorization", f"Basic {USER}:{PASSWORD}".encode())],
    "non-ASCII": [(b"authorization", "Basic ü".encode())],
    "only the scheme": [(b"authorization", b"Basic")],
    "Bearer": [(b"authorization", basic(USER, PASSWORD, scheme="Bearer"))],
    "no scheme": [(b"authorization", base64.b64encode(f"{USER}:{PASSWORD}".encode()))],
    "1 MiB": [(b"authorization", b"Basic " + b"QUJD" * (1 << 18))],
    "right behind too much": [
        (b"authorization", b"Basic" + b" " * MAX_AUTHORIZATION + basic(USER, PASSWORD)[6:])
    ],
    "twice right": [RIGHT, RIGHT],
    "right and wrong": [RIGHT, (b"authorization", basic(USER, "wrong"))],
    "proxy's header": [(b"proxy-authorization", basic(USER, PASSWORD))],
    "in a cookie": [(b"cookie", b"authorization=" + basic(USER, PASSWORD))],
}
PATHS = [
    b"/",
    b"/version",
    b"/api/2.0/mlflow/experiments/search",
    b"/ajax-api/3.0/mlflow/server-info",
    b"/api/2.0/mlflow-artifacts/artifacts/x",
    b"/v1/traces",
    b"/gateway/x/mlflow/invocations",
    b"/static-files/index.html",
    b"//health",
    b"/health/",
    b"/health/../api",
    b"/%68ealth",
    b"/HEALTH",
    b"/health;x",
    b"/health%2f..%2fapi",
    b"http://" + HOST.encode() + b"/health",
    b"*",
    b"",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO"]


@pytest.mark.parametrize("credentials", WRONG_CREDENTIALS.values(), ids=WRONG_CREDENTIALS)
@pytest.mark.parametrize("path", PATHS)
def test_wrong_credentials_are_refused_everywhere(
    credentials: list[tuple[bytes, bytes]], path: bytes
) -> None:
    for method in METHODS:
        status, headers, reached = call(*credentials, method=method, path=path)
        assert (status, reached) == (401, False), method
        assert headers[b"www-authenticate"].startswith(b"Basic ")
        assert headers[b"x-content-type-options"] == b"nosniff"


def test_every_refusal_of_credentials_is_the_same() -> None:
    answers = {str(call(*headers)) for headers in WRONG_CREDENTIALS.values()}
    assert len(answers) == 1


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_the_right_credentials_pass(scheme: str) -> None:
    for path in PATHS:
        for method in METHODS:
            header = (b"authorization", basic(USER, PASSWORD, scheme))
            assert call(header, method=method, path=path) == (204, {}, True)


@pytest.mark.parametrize("method", METHODS)
def test_health_is_open_to_get_and_head_only(method: str) -> None:
    reached = call(method=method, path=b"/health", host="10.0.0.1")[2]
    assert reached is (method in {"GET", "HEAD"})


@pytest.mark.parametrize("kind", ["websocket", "webtransport", "http.unknown", ""])
def test_other_scopes_never_reach_the_application(kind: str) -> None:
    for headers in ([], [RIGHT]):
        try:
            assert call(*headers, kind=kind)[2] is False
        except ValueError as refused:
            assert kind in str(refused)  # noqa: PT017


def test_a_websocket_is_closed_without_being_accepted() -> None:
    status, _, reached = call(RIGHT, kind="websocket")
    assert (status, reached) == (None, False)


@pytest.mark.parametrize(
    "host",
    [HOST, HOST + ":443", HOST.upper(), HASHED, "ml.example.com", "localhost:8080", "127.0.0.1:1"],
)
def test_our_hosts_pass(host: str) -> None:
    assert call(RIGHT, host=host)[0] == 204


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        HOST + ".evil.example",
        "evil-" + HOST,
        "mlflow-.a.run.app",
        "mlflow-x.evil.a.run.app",
        "mlflow-x/a.run.app",
        "other-a1b2c3d4e5-uc.a.run.app",
        "mlxexample.com",
        "ml.example.com.",
        "localhost:8080:8080",
        "localhost:",
        "localhost:port",
        "user@localhost",
        "localhost\n",
        "10.0.0.1",
        "192.168.1.1",
        "[::1]",
        "*",
    ],
)
def test_other_hosts_are_refused(host: str | None) -> None:
    for headers in ([], [RIGHT]):
        assert call(*headers, host=host)[::2] == (403, False)


def test_two_host_headers_are_refused() -> None:
    assert call(RIGHT, (b"host", HOST.encode()))[::2] == (403, False)


OWN_ORIGINS = [
    (HOST, f"https://{HOST}"),
    (HASHED, f"https://{HASHED}"),
    ("ml.example.com", "https://ml.example.com"),
    ("ml.example.com", "https://ML.example.com"),
    ("127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("localhost:8080", "http://localhost:8080"),
]
FOREIGN_ORIGINS = [
    (HOST, "https://evil.example"),
    (HOST, "null"),
    (HOST, ""),
    (HOST, f"http://{HOST}"),
    (HOST, f"https://{HOST}.evil.example"),
    (HOST, f"https://{HOST}:8443"),
    (HOST, f"https://evil.example/https://{HOST}"),
    (HOST, f"https://{HASHED}"),
    # The host pattern alone would accept a service of the same name in another project.
    (HASHED, "https://mlflow-z9y8x7w6v5-uc.a.run.app"),
    (HOST, "http://localhost:3000"),
    (HOST, "http://127.0.0.1"),
    ("localhost:8080", "http://localhost:3000"),
    ("127.0.0.1:8080", "http://localhost:8080"),
    ("127.0.0.1:8080", "https://127.0.0.1:8080"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("host", "origin"), OWN_ORIGINS)
def test_the_servers_own_pages_may_do_everything(method: str, host: str, origin: str) -> None:
    own = ((b"origin", origin.encode()), (b"sec-fetch-site", b"same-origin"))
    assert call(RIGHT, *own, method=method, host=host)[0] == 204
    assert call(RIGHT, own[0], method=method, host=host)[0] == 204


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("host", "origin"), FOREIGN_ORIGINS)
def test_other_sites_pages_may_do_nothing(method: str, host: str, origin: str) -> None:
    foreign = (b"origin", origin.encode())
    assert call(RIGHT, foreign, method=method, host=host)[::2] == (403, False)
    for site in (b"cross-site", b"same-site", b"none"):
        told = (b"sec-fetch-site", site)
        assert call(RIGHT, foreign, told, method=method, host=host)[::2] == (403, False)
    # A page can't forge this header, and the exception only allows origins on the same computer.
    forged = (b"sec-fetch-site", b"same-origin")
    is_here = re.fullmatch(r"http://(localhost|127\.0\.0\.1)(:\d+)?", origin)
    assert is_here or call(RIGHT, foreign, forged, method=method, host=host)[0] == 403


@pytest.mark.parametrize("origin", [b"http://localhost:8080", b"http://127.0.0.1:8080"])
def test_the_page_works_through_gclouds_proxy(origin: bytes) -> None:
    """The proxy sets the service as the host and keeps the page's origin."""
    own = ((b"origin", origin), (b"sec-fetch-site", b"same-origin"))
    assert call(RIGHT, *own, method="POST")[0] == 204
    for elsewhere in (
        b"http://localhost.evil.example",
        b"https://localhost:8080",
        b"http://10.0.0.1",
    ):
        assert call(RIGHT, (b"origin", elsewhere), own[1], method="POST")[0] == 403


def test_two_origins_are_refused() -> None:
    own = (b"origin", f"https://{HOST}".encode())
    assert call(RIGHT, own, own)[::2] == (403, False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"", b"unheard-of"])
@pytest.mark.parametrize("mode", [b"navigate", b"no-cors", b"cors", b"websocket", None])
def test_another_site_may_only_link_here(method: str, site: bytes, mode: bytes | None) -> None:
    headers = [(b"sec-fetch-site", site)]
    if mode is not None:
        headers.append((b"sec-fetch-mode", mode))
    followed = mode == b"navigate" and method in {"GET", "HEAD"}
    assert call(RIGHT, *headers, method=method)[0] == (204 if followed else 403)


def test_an_address_typed_into_the_browser_is_admitted() -> None:
    assert call(RIGHT, (b"sec-fetch-site", b"none"), (b"sec-fetch-mode", b"navigate"))[0] == 204


@given(
    value=st.binary(max_size=200),
    scheme=st.sampled_from([b"", b"Basic ", b"basic", b"Basic\t", b"Digest "]),
    path=st.binary(max_size=40).map(lambda tail: b"/" + tail),
    method=st.sampled_from(METHODS),
)
def test_no_generated_credentials_are_admitted(
    value: bytes, scheme: bytes, path: bytes, method: str
) -> None:
    for header in (scheme + value, scheme + base64.b64encode(value)):
        status, _, reached = call((b"authorization", header), method=method, path=path)
        open_path = path == b"/health" and method in {"GET", "HEAD"}
        assert reached is open_path
        assert open_path or status == 401


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


WRONG = (b"authorization", basic(USER, "wrong"))


def came_from(address: str) -> tuple[bytes, bytes]:
    return (b"x-forwarded-for", address.encode())


def test_frequent_failures_must_wait_but_the_right_credentials_always_pass() -> None:
    clock = Clock()
    gate = new_gate(clock=clock)
    failures = [call(WRONG, came_from("203.0.113.7"), gate=gate) for _ in range(200)]
    assert [status for status, _, _ in failures] == [401] * PATIENCE + [429] * (200 - PATIENCE)
    assert failures[PATIENCE][1][b"retry-after"] == b"12"
    assert failures[-1][1][b"retry-after"] == b"60"
    assert call(RIGHT, came_from("203.0.113.7"), gate=gate)[0] == 204
    assert call(WRONG, came_from("203.0.113.7"), gate=gate)[0] == 429
    assert call(WRONG, came_from("203.0.113.8"), gate=gate)[0] == 401
    clock.now += 50
    assert call(WRONG, came_from("203.0.113.7"), gate=gate)[0] == 429
    clock.now += 60
    assert call(WRONG, came_from("203.0.113.7"), gate=gate)[0] == 401


def test_a_client_that_waits_as_told_is_checked_again() -> None:
    clock = Clock()
    gate = new_gate(clock=clock)
    for _ in range(100):
        status, headers, _ = call(WRONG, gate=gate)
        if status == 429:
            clock.now += int(headers[b"retry-after"])
            assert call(WRONG, gate=gate)[0] == 401


def test_missing_or_right_credentials_never_cause_a_wait() -> None:
    gate = new_gate(clock=Clock())
    assert {call(gate=gate)[0] for _ in range(100)} == {401}
    assert {call(RIGHT, gate=gate)[0] for _ in range(100)} == {204}
    assert call(WRONG, gate=gate)[0] == 401


@pytest.mark.parametrize(
    "given",
    [
        ["198.51.100.1, 203.0.113.7", "198.51.100.2, 203.0.113.7", "203.0.113.7"],
        ["2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", "198.51.100.1,2001:DB8:1:2::7"],
        ["", "nonsense", "1.2.3.4.5", "203.0.113.7, ü", "x" * 60_000],
    ],
    ids=["forged before the last", "one customer's network", "no address: the peer"],
)
def test_a_wait_cannot_be_avoided_with_a_forged_address(given: list[str]) -> None:
    gate = new_gate(clock=Clock())
    for turn in range(PATIENCE):
        assert call(WRONG, came_from(given[turn % len(given)]), gate=gate)[0] == 401
    for forwarded_for in given:
        assert call(WRONG, came_from(forwarded_for), gate=gate)[0] == 429


def test_behind_a_load_balancer_the_client_is_counted() -> None:
    gate = new_gate(clock=Clock(), trusted_proxies=1)
    for _ in range(PATIENCE):
        assert call(WRONG, came_from("203.0.113.7,192.0.2.80"), gate=gate)[0] == 401
    assert call(WRONG, came_from("203.0.113.8,192.0.2.80"), gate=gate)[0] == 401
    assert call(WRONG, came_from("198.51.100.1, 203.0.113.7,192.0.2.80"), gate=gate)[0] == 429


def test_many_failed_logins_have_few_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    gate = new_gate(clock=clock)
    for _ in range(1000):
        call(WRONG, came_from("203.0.113.7"), gate=gate)
        clock.now += 0.02
    # The remaining failures are logged at the next probe.
    clock.now += 30
    call(path=b"/health", gate=gate)
    told = [record.__dict__["fields"] for record in caplog.records]
    assert len(told) <= 4
    assert {line["client"] for line in told} == {"203.0.113.7"}
    assert sum(line["refused"] for line in told) == 1000 - PATIENCE


VIEWER = Credentials("viewer", "l00k")
LOOKING = (b"authorization", basic(VIEWER.username, VIEWER.password))


OLD = basic(USER, "the old password")
OLD_VIEWER = basic(VIEWER.username, "the viewer's old password")


def rotating(now: float) -> Gate:
    """Returns a gate that accepts the previous passwords before the time 100."""
    return new_gate(
        viewer=VIEWER,
        previous_user=PreviousCredentials(Credentials(USER, "the old password"), 100.0),
        previous_viewer=PreviousCredentials(
            Credentials(VIEWER.username, "the viewer's old password"), 100.0
        ),
        now=lambda: now,
    )


@pytest.mark.parametrize(("now", "status"), [(99.9, 204), (100.0, 401)])
@pytest.mark.parametrize("login", [OLD, OLD_VIEWER])
def test_a_previous_password_is_accepted_until_its_time(
    login: bytes, now: float, status: int
) -> None:
    gate = rotating(now)
    assert call((b"authorization", login), gate=gate)[0] == status
    assert call(RIGHT, gate=gate)[0] == call(LOOKING, gate=gate)[0] == 204
    assert call((b"authorization", login), gate=new_gate(viewer=VIEWER))[0] == 401


def test_the_viewers_previous_password_has_the_viewers_rights() -> None:
    post = {"method": "POST", "path": b"/api/2.0/mlflow/runs/create"}
    assert call((b"authorization", OLD_VIEWER), gate=rotating(0), **post)[0] == 403
    assert call((b"authorization", OLD), gate=rotating(0), **post)[0] == 204


@pytest.mark.parametrize(
    ("login", "user"), [(OLD, "tracking"), (OLD_VIEWER, "viewer"), (RIGHT[1], None)]
)
def test_the_log_names_the_client_of_a_previous_password(login: bytes, user: str | None) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "headers": [(b"host", HOST.encode()), (b"authorization", login)],
        "client": ("169.254.1.1", 1),
    }

    async def send(_: Any) -> None: ...

    gate = rotating(0)
    asyncio.run(gate(scope, None, send))  # type: ignore[arg-type]
    fields = {"previous_password": user, "client": "169.254.1.1"}
    assert scope.get(LOG_FIELDS) == (fields if user else None)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", b"/api/2.0/mlflow/runs/get", 204),
        ("HEAD", b"/", 204),
        ("POST", b"/ajax-api/2.0/mlflow/runs/search", 204),
        ("POST", b"/api/2.0/mlflow/runs/create", 403),
        ("POST", b"/api/2.0/mlflow/runs/search/", 403),
        ("POST", b"/api/2.0/mlflow/runs/search\n", 403),
        ("POST", b"/x/api/2.0/mlflow/runs/search", 403),
        ("PUT", b"/api/2.0/mlflow/runs/search", 403),
        ("OPTIONS", b"/", 403),
        ("FOO", b"/", 403),
        ("post", b"/graphql", 403),
    ],
)
def test_the_viewer_may_only_read(method: str, path: bytes, status: int) -> None:
    gate = new_gate(viewer=VIEWER)
    found, _, reached = call(LOOKING, method=method, path=path, gate=gate)
    assert (found, reached) == (status, status == 204)
    assert call(RIGHT, method=method, path=path, gate=gate)[0] == 204


def test_a_viewer_with_a_wrong_password_is_refused() -> None:
    gate = new_gate(viewer=VIEWER)
    foreign = (b"origin", b"https://evil.example")
    assert call(LOOKING, foreign, gate=gate)[0] == 403
    assert call(LOOKING, host="evil.example", gate=gate)[0] == 403
    crossed = (b"authorization", basic(USER, VIEWER.password))
    assert call(crossed, gate=gate)[0] == 401
    assert call((b"authorization", basic(VIEWER.username, PASSWORD)), gate=gate)[0] == 401


def test_without_a_viewer_its_credentials_are_wrong() -> None:
    for nobody in ("", ":", "None:None", "viewer:"):
        header = (b"authorization", b"Basic " + base64.b64encode(nobody.encode()))
        assert call(header)[0] == 401


# ---- the request that the code behind the gate gets ------------------------------------------


class Seen:
    """Stands behind the gate and records the request."""

    scope: dict[str, Any]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = dict(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def behind(*headers: tuple[bytes, bytes], peer: str = "169.254.1.1", **more: Any) -> dict[str, Any]:
    """Returns the request as MLflow gets it."""
    seen = Seen()
    path = more.get("path", b"/version")
    scope = {
        "type": "http",
        "method": more.get("method", "GET"),
        "scheme": "http",
        "path": path.decode(),
        "raw_path": path,
        "headers": [(b"host", more.get("host", HOST).encode()), *headers],
        "client": (peer, 1),
    }
    gate = new_gate(trusted_proxies=more.get("proxies", 0))
    gate.app = seen

    async def send(_: Any) -> None:
        pass

    run = gate(scope, send, send)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        run.send(None)
    return seen.scope


@pytest.mark.parametrize(
    ("headers", "peer", "proxies", "client"),
    [
        ([], "203.0.113.9", 0, "203.0.113.9"),
        ([(b"x-forwarded-for", b"203.0.113.7")], "169.254.1.1", 0, "203.0.113.7"),
        ([(b"x-forwarded-for", b"10.0.0.1, 203.0.113.7")], "127.0.0.1", 0, "203.0.113.7"),
        ([(b"x-forwarded-for", b"203.0.113.7, 192.0.2.1")], "169.254.1.1", 1, "203.0.113.7"),
        ([(b"x-forwarded-for", b"2001:db8::1")], "169.254.1.1", 0, "2001:db8::1"),
        # A client on this computer doesn't use a proxy.
        ([(b"x-forwarded-for", b"127.0.0.1")], "169.254.1.1", 0, "unknown"),
        ([(b"x-forwarded-for", b"::1")], "127.0.0.1", 0, "unknown"),
        ([(b"x-forwarded-for", b"::ffff:127.0.0.1")], "127.0.0.1", 0, "unknown"),
        ([(b"x-forwarded-for", b"nonsense")], "127.0.0.1", 0, "unknown"),
        ([(b"x-forwarded-for", b"")], "127.0.0.1", 0, "unknown"),
    ],
)
def test_the_address_is_that_of_the_client(
    headers: list[tuple[bytes, bytes]], peer: str, proxies: int, client: str
) -> None:
    scope = behind(RIGHT, *headers, peer=peer, proxies=proxies)
    assert scope["client"] == (client, 0)


@pytest.mark.parametrize(
    ("host", "scheme"),
    [
        (HOST, "https"),
        ("ml.example.com:8080", "https"),
        ("localhost:8080", "http"),
        ("127.0.0.1", "http"),
    ],
)
def test_the_scheme_follows_from_the_host(host: str, scheme: str) -> None:
    assert behind(RIGHT, host=host)["scheme"] == scheme


def test_credentials_and_proxy_headers_are_removed() -> None:
    ours = [
        (b"cookie", b"a=b"),
        (b"proxy-authorization", b"Bearer x"),
        (b"x-serverless-authorization", b"Bearer x"),
        (b"x-goog-iap-jwt-assertion", b"x"),
        (b"x-goog-authenticated-user-email", b"x"),
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-prefix", b"/x"),
        (b"forwarded", b"for=1.2.3.4"),
        (b"x-real-ip", b"1.2.3.4"),
        (b"via", b"1.1 proxy"),
    ]
    theirs = (b"user-agent", b"curl")
    scope = behind(RIGHT, *ours, theirs)
    assert scope["headers"] == [(b"host", HOST.encode()), theirs]


@pytest.mark.parametrize(
    ("headers", "reached"),
    [
        ([(b"x-mlflow-authorization", RIGHT[1])], True),
        ([(b"x-mlflow-authorization", RIGHT[1]), (b"authorization", b"Bearer own")], True),
        ([(b"x-mlflow-authorization", b""), RIGHT], True),
        ([(b"x-mlflow-authorization", RIGHT[1])] * 2, False),
        ([(b"x-mlflow-authorization", b""), (b"x-mlflow-authorization", RIGHT[1])], False),
        ([(b"x-mlflow-authorization", b"Bearer own"), RIGHT], False),
        ([(b"x_mlflow_authorization", RIGHT[1])], False),
    ],
)
def test_tools_of_the_gateway_log_in_with_a_separate_header(
    headers: list[tuple[bytes, bytes]], reached: bool
) -> None:
    assert call(*headers, method="POST", path=b"/gateway/x/mlflow/invocations")[2] is reached
    elsewhere = RIGHT in headers
    assert call(*headers, method="POST", path=b"/version")[2] is elsewhere


def test_only_requests_to_the_gateway_get_a_pass() -> None:
    assert "app_root_path" not in behind(RIGHT)
    assert "app_root_path" not in behind(RIGHT, path=b"/gateway/x")
    called = behind(RIGHT, path=b"/gateway/x", method="POST")
    assert called["app_root_path"].startswith("/callback/")
    assert (b"host", b"127.0.0.1:8080") in called["headers"]


def test_a_probe_has_an_empty_body() -> None:
    taken: list[Any] = []

    async def reader(_: Any, receive: Any, send: Any) -> None:
        taken.append(await receive())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.05)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def unread() -> Any:
        raise AssertionError("a body must not be read without a login")

    async def send(_: Any) -> None:
        pass

    gate = new_gate()
    gate.app = reader
    announced = [(b"content-length", b"33554432"), (b"transfer-encoding", b"chunked")]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/health",
        "raw_path": b"/health",
        "headers": announced,
        "client": None,
    }
    asyncio.run(gate(scope, unread, send))
    assert taken == [{"type": "http.request", "body": b"", "more_body": False}]
