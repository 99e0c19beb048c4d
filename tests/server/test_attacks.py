"""Malformed requests, sent byte by byte to a running server.

Cloud Run's front end would refuse or normalize most of them; the server doesn't rely on that.
"""

import base64
import re
import socket
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import quote

import h2.config
import h2.connection
import h2.events
import pytest

from fake_google.sql.postgres import Postgres
from tests.server.conftest import made_database
from tests.server.parity.routes import every_route
from tests.server.parity.servers import our_environment, ours
from tests.server.process import AUTHORIZATION, PASSWORD, USER, Server

PATIENCE = 5.0
HOST = "127.0.0.1"
HOST_LINE = f"Host: {HOST}\r\n".encode()
RIGHT = f"Authorization: {AUTHORIZATION}\r\n".encode()
VERSION = b"GET /version HTTP/1.1\r\n"
CLOSE = b"Connection: close\r\n"
SMUGGLED = VERSION + HOST_LINE + RIGHT + CLOSE + b"\r\n"
POST = b"POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("attacked")
    url = made_database(postgres, "attacked")
    with (
        our_environment(folder, url, cloudsql_root) as environment,
        ours(environment, folder, forked=True) as running,
    ):
        yield running.ready()
        assert not [entry for entry in running.entries() if "stack_trace" in entry]


def connect(server: Server) -> socket.socket:
    connection = socket.create_connection((HOST, server.port))
    connection.settimeout(PATIENCE)
    return connection


def answers(server: Server, sent: bytes) -> list[int]:
    """Returns the status of each response until the server closes the connection, as it must."""
    with connect(server) as connection:
        received = b""
        # It may close the connection before it has read everything.
        with suppress(ConnectionError):
            connection.sendall(sent)
            while chunk := connection.recv(1 << 16):
                received += chunk
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


def request(*lines: bytes, first: bytes = VERSION, body: bytes = b"") -> bytes:
    return first + b"".join(lines) + b"\r\n" + body


MALFORMED = {
    "no version": b"GET /version\r\n\r\n",
    "a space in the path": request(HOST_LINE, RIGHT, first=b"GET /ver sion HTTP/1.1\r\n"),
    "a tab in the method": request(HOST_LINE, RIGHT, first=b"GE\tT /version HTTP/1.1\r\n"),
    "NUL in the credentials": request(HOST_LINE, b"Authorization: Basic a\0b\r\n"),
    "credentials of 1 MiB": request(HOST_LINE, b"Authorization: Basic " + b"A" * 2**20 + b"\r\n"),
    "5,000 headers": request(HOST_LINE, *(b"X-%d: y\r\n" % n for n in range(5000))),
    "a path of 100 KB": request(HOST_LINE, first=b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n"),
    "a space before the colon": request(HOST_LINE, b"Authorization : Basic x\r\n"),
    "a folded header": request(HOST_LINE, b"Authorization:\r\n Basic x\r\n"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "half of HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http_is_refused_at_once(server: Server, sent: bytes) -> None:
    assert answers(server, sent + SMUGGLED) in ([400], [414], [431])


AMBIGUOUS = {
    "length and chunked": (b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunked and length": (b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", b"0\r\n\r\n"),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 0\r\n", b"0\r\n\r\n"),
    "two lengths in one": (b"Content-Length: 5, 0\r\n", b"0\r\n\r\n"),
    "a length with a sign": (b"Content-Length: +5\r\n", b"0\r\n\r\n"),
    "a negative length": (b"Content-Length: -5\r\n", b"0\r\n\r\n"),
    "a length of 2^64": (b"Content-Length: 18446744073709551616\r\n", b"0\r\n\r\n"),
    "chunked last but one": (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "almost chunked": (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "chunked with a vertical tab": (b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "chunked behind a space": (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "chunked on the next line": (b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "a chunk of no number": (b"Transfer-Encoding: chunked\r\n", b"x\r\n0\r\n\r\n"),
    "a chunk of negative size": (b"Transfer-Encoding: chunked\r\n", b"-5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk of 2^64": (b"Transfer-Encoding: chunked\r\n", b"10000000000000000\r\nabcde"),
    "a chunk longer than it says": (b"Transfer-Encoding: chunked\r\n", b"1\r\nabc\r\n0\r\n\r\n"),
    "100 KB of chunk extension": (
        b"Transfer-Encoding: chunked\r\n",
        b"5;" + b"a" * 100_000 + b"\r\nabcde\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize("login", [RIGHT, b""], ids=["logged in", "not logged in"])
@pytest.mark.parametrize(("framing", "body"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_no_request_is_smuggled_behind_an_ambiguous_body(
    server: Server, framing: bytes, body: bytes, login: bytes
) -> None:
    """A proxy may disagree about the body's end, so the server handles nothing after it."""
    found = answers(server, request(HOST_LINE, login, framing, first=POST, body=body) + SMUGGLED)
    assert len(found) <= 1
    assert not [status for status in found if status >= 500]


ELSEWHERE = {
    "absolute, of a stranger": request(
        b"Host: evil.example\r\n", RIGHT, first=f"GET http://{HOST}/version HTTP/1.1\r\n".encode()
    ),
    "no host": request(RIGHT),
    "two hosts": request(HOST_LINE, HOST_LINE, RIGHT),
    "a stranger behind ours": request(HOST_LINE, b"Host: evil.example\r\n", RIGHT),
    "ours as forwarded": request(
        b"Host: evil.example\r\n",
        b"X-Forwarded-Host: 127.0.0.1\r\nForwarded: host=127.0.0.1\r\n",
        RIGHT,
    ),
    "a user in it": request(f"Host: evil@{HOST}\r\n".encode(), RIGHT),
    "another name for here": request(b"Host: 127.1\r\n", RIGHT),
    "another path, as rewritten": request(
        b"Host: evil.example\r\nX-Original-URL: /health\r\nX-Rewrite-URL: /health\r\n", RIGHT
    ),
}


@pytest.mark.parametrize("sent", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_request_for_another_host_is_refused(server: Server, sent: bytes) -> None:
    assert answers(server, sent[:-2] + CLOSE + b"\r\n") == [403]


NOT_HEALTH = [
    *("/health/", "/health/../api", "//health", "/%68ealth", "/health%2f", "/HEALTH", "/health;x"),
    *("/./health", "/x/../health", "/health%00", "/health.", "/health%3f", "\\health", "/health\\"),
]


@pytest.mark.parametrize("path", NOT_HEALTH)
def test_only_health_itself_is_open(server: Server, path: str) -> None:
    first = f"GET {path} HTTP/1.1\r\n".encode()
    assert answers(server, request(HOST_LINE, CLOSE, first=first)) in ([401], [400])
    refused = {"X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Forwarded-Prefix"}
    lines = [f"{header}: /health\r\n".encode() for header in refused]
    assert answers(server, request(HOST_LINE, CLOSE, *lines)) == [401]


def test_a_websocket_is_never_opened(server: Server) -> None:
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    for login in (b"", RIGHT):
        for path in ("/version", "/health", "/gateway/x", "/ajax-api/3.0/mlflow/assistant/message"):
            first = f"GET {path} HTTP/1.1\r\n".encode()
            refused = request(HOST_LINE, login, upgrade, first=first) + SMUGGLED
            status, *further = answers(server, refused)
            assert 400 <= status < 500 or path == "/health"
            assert further == [200]


def test_a_header_listed_in_connection_still_counts(server: Server) -> None:
    """`Connection: authorization` makes a proxy drop the header; the server ignores it."""
    drop = b"Connection: authorization, host, close\r\n"
    assert answers(server, request(HOST_LINE, RIGHT, drop)) == [200]
    assert answers(server, request(HOST_LINE, drop)) == [401]


Pairs = list[tuple[str, str]]


def over_http2(server: Server, headers: Pairs) -> int:
    """Returns the status, 0 if the stream or the connection ended without one."""
    unchecked = h2.config.H2Configuration(
        validate_outbound_headers=False,
        normalize_outbound_headers=False,
        header_encoding="latin-1",
    )
    http2 = h2.connection.H2Connection(config=unchecked)
    http2.initiate_connection()
    http2.send_headers(http2.get_next_available_stream_id(), headers, end_stream=True)
    with connect(server) as connection:
        connection.sendall(http2.data_to_send())
        while received := connection.recv(1 << 16):
            for event in http2.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    return int(dict(event.headers)[":status"])
                if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    return 0
            connection.sendall(http2.data_to_send())
    return 0


def pseudo(**changed: str | None) -> Pairs:
    named = {"method": "GET", "path": "/version", "scheme": "http", "authority": HOST} | changed
    return [(f":{name}", value) for name, value in named.items() if value is not None]


LOGIN = ("authorization", AUTHORIZATION)
STRANGE_HTTP2: dict[str, tuple[Pairs, set[int]]] = {
    "as it should be": ([*pseudo(), LOGIN], {200}),
    "a stranger's authority": ([*pseudo(authority="evil.example"), LOGIN], {403}),
    # granian then passes the header only. No browser sends both, so no other site's page can.
    "and our host": ([*pseudo(authority="evil.example"), ("host", HOST), LOGIN], {200}),
    "our authority, and another host": (
        [*pseudo(), ("host", "evil.example"), LOGIN],
        {0, 400, 403},
    ),
    "no authority": ([*pseudo(authority=None), LOGIN], {0, 400, 403}),
    "a user in the authority": ([*pseudo(authority=f"u@{HOST}"), LOGIN], {0, 400, 403}),
    "no path": ([*pseudo(path=None), LOGIN], {0, 400}),
    "an empty path": ([*pseudo(path=""), LOGIN], {0, 400, 403, 404}),
    "a path without a slash": ([*pseudo(path="version"), LOGIN], {0, 400, 403, 404}),
    "an absolute path": ([*pseudo(path=f"http://{HOST}/version")], {0, 400, 401, 403}),
    "two paths": ([*pseudo(), (":path", "/health"), LOGIN], {0, 400}),
    "two methods": ([*pseudo(), (":method", "POST"), LOGIN], {0, 400}),
    "a path behind the headers": ([LOGIN, *pseudo()], {0, 400}),
    "an unknown one": ([*pseudo(), (":authorization", AUTHORIZATION)], {0, 400}),
    "a status": ([*pseudo(), (":status", "200"), LOGIN], {0, 400}),
    "a websocket": (
        [*pseudo(method="CONNECT", path="/version"), (":protocol", "websocket"), LOGIN],
        {0, 400, 405, 501},
    ),
    "CONNECT": (
        [*pseudo(method="CONNECT", path=None, scheme=None), LOGIN],
        {0, 307, 400, 404, 405},
    ),
    "an upper-case header": ([*pseudo(), ("Authorization", AUTHORIZATION)], {0, 400}),
    "a line end in the path": ([*pseudo(path="/version\r\nx: y"), LOGIN], {0, 400}),
    "a line end in a header": (
        [*pseudo(), ("x", f"y\r\nauthorization: {AUTHORIZATION}")],
        {0, 400},
    ),
    "headers of the connection": ([*pseudo(), ("connection", "close"), LOGIN], {0, 400}),
    "chunked": ([*pseudo(), ("transfer-encoding", "chunked"), LOGIN], {0, 400}),
    "a missing body": ([*pseudo(), ("content-length", "5"), LOGIN], {0, 400}),
    "two credentials": ([*pseudo(), LOGIN, LOGIN], {401}),
    "60 KB of credentials": ([*pseudo(), ("authorization", "Basic " + "A" * 60_000)], {401}),
    "100 KB of headers": (
        [*pseudo(), *((f"x-{n}", "y" * 1000) for n in range(100)), LOGIN],
        {0, 431},
    ),
    "health, of anyone": (pseudo(path="/health", authority="10.0.0.1"), {200}),
    "almost health": (pseudo(path="/health/../version"), {401}),
}


@pytest.mark.parametrize(("headers", "wanted"), STRANGE_HTTP2.values(), ids=STRANGE_HTTP2)
def test_strange_headers_over_http2(server: Server, headers: Pairs, wanted: set[int]) -> None:
    assert over_http2(server, headers) in wanted


def basic(text: str) -> bytes:
    return b"Basic " + base64.b64encode(text.encode())


CREDENTIALS = {
    "none": b"",
    "wrong password": b"Authorization: " + basic(f"{USER}:wrong") + b"\r\n",
    "wrong user": b"Authorization: " + basic(f"x:{PASSWORD}") + b"\r\n",
    "no colon": b"Authorization: " + basic("mlflow") + b"\r\n",
    "bad base64": b"Authorization: basic %%%\r\n",
    "doubled": RIGHT + RIGHT,
    "Bearer": b"Authorization: Bearer " + AUTHORIZATION[6:].encode() + b"\r\n",
    "for a proxy": b"Proxy-" + RIGHT,
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


def rotated(values: Collection[bytes], start: int) -> Iterator[bytes]:
    """Returns the values again and again, from a different one for each start."""
    return islice(cycle(values), start % len(values), None)


def test_every_route_refuses_every_method_without_the_right_credentials(server: Server) -> None:
    """Each route gets every method and all credentials, not every pair: test_gate.py has those."""
    paths = sorted({route.path for route in every_route()} | {"/nowhere", "/api/2.0/mlflow/x"})
    wanted = [
        f"{method} {quote(path, safe='/:{}')} HTTP/1.1\r\n".encode() + HOST_LINE + lines + b"\r\n"
        for number, path in enumerate(paths)
        for method, lines in zip(METHODS, rotated(CREDENTIALS.values(), number), strict=False)
        if not (path == "/health" and method in {"GET", "HEAD"})
    ]
    assert len(wanted) > 2_500
    statuses: Counter[bytes] = Counter()
    for start in range(0, len(wanted), 200):
        batch = wanted[start : start + 200]
        with connect(server) as connection:
            received = b""
            connection.sendall(b"".join(batch))
            while received.count(b"HTTP/1.1 ") < len(batch) or not received.endswith(b"\n"):
                chunk = connection.recv(1 << 16)
                assert chunk, f"the server closed the connection at one of {batch}"
                received += chunk
        statuses.update(re.findall(rb"HTTP/1\.1 (\d{3}) ", received))
    assert set(statuses) == {b"401", b"429"}
    assert sum(statuses.values()) == len(wanted)
