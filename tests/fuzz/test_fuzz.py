"""Tens of thousands of generated requests, without credentials and with them.

`make fuzz` runs them, because they take minutes. FUZZ_REQUESTS sets how many are sent without
credentials, FUZZ_PASSES how many valid and invalid ones a user sends to each operation.
"""

import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from fake_google.sql.postgres import Postgres
from tests.fuzz.schema import whole_api
from tests.process_memory import proportional_memory
from tests.server.conftest import made_database, made_for_stock
from tests.server.hot_requests import generated
from tests.server.parity.routes import every_route
from tests.server.parity.servers import Stock, our_environment, ours
from tests.server.process import AUTHORIZATION, PASSWORD, USER, Server

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "20000"))
PASSES = int(os.environ.get("FUZZ_PASSES", "4"))
HOST = "127.0.0.1"
PATIENCE = 60.0
GROWTH = 1.10
"""The allowed growth of memory, once every module that these requests need has been imported."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@pytest.fixture(scope="module")
def server(folder: Path, postgres: Postgres, cloudsql_root: Path) -> Iterator[Server]:
    made = folder / "ours"
    made.mkdir()
    url = made_database(postgres, "fuzzed_ours")
    with (
        our_environment(made, url, cloudsql_root) as environment,
        ours(environment, folder) as running,
    ):
        yield running.ready()


@pytest.fixture(scope="module")
def stock(folder: Path, postgres: Postgres, cloudsql_root: Path) -> Iterator[Stock]:
    made = folder / "stock"
    made.mkdir()
    running = Stock(made, made_for_stock(postgres, "fuzzed_stock", cloudsql_root))
    try:
        running.ready()
        yield running
    finally:
        running.stop()


class Watch:
    """Counts statuses, keeps the longest time, and checks that the server's memory doesn't grow."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self.early = 0

    def saw(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.slowest = max(self.slowest, seconds)

    def warmed_up(self) -> None:
        self.early = memory_of(self._server)

    def report(self, what: str) -> None:
        found = ", ".join(f"{status}: {count:,}" for status, count in sorted(self.statuses.items()))
        late = memory_of(self._server)
        print(
            f"\n{what}: {self.statuses.total():,} requests; {found}; slowest "
            f"{self.slowest:.1f} s; {self.early / 2**20:.0f} MiB, then {late / 2**20:.0f} MiB"
        )
        if sys.platform == "linux":
            assert late <= self.early * GROWTH


def memory_of(server: Server) -> int:
    """Returns bytes, or 0 where the system doesn't report them."""
    with suppress(FileNotFoundError):
        return proportional_memory(server.process.pid)
    return 0


class Wire:
    """One connection at a time, reused as long as the server keeps it open."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: socket.socket | None = None

    def send(self, request: bytes) -> int:
        """Returns the response's status, or 0 if the server closes the connection without one."""
        if self._connection is None:
            self._connection = socket.create_connection((HOST, self._server.port))
            self._connection.settimeout(PATIENCE)
        received = b""
        with suppress(ConnectionError):
            self._connection.sendall(request)
            while not _is_whole(received, is_head=request.startswith(b"HEAD ")):
                chunk = self._connection.recv(1 << 16)
                if not chunk:
                    break
                received += chunk
        if not received or b"\r\nconnection: close\r\n" in received.lower():
            self._connection.close()
            self._connection = None
        return int(received[9:12]) if received else 0


def _is_whole(received: bytes, *, is_head: bool) -> bool:
    head, found, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return bool(found) and (is_head or len(body) >= int(length[1] if length else 0))


KNOWN = sorted({route.path for route in every_route()})
_odd = st.sampled_from(
    [b"%00", b"%2e%2e/", b"//", b";", b"..;/", b"%2f", b"?a=b", b"#", b"\\", b"%"]
)
_token = st.text("abcdefghijklmnopqrstuvwxyzABC-_0123456789", min_size=1, max_size=12)
paths = st.one_of(
    st.sampled_from(KNOWN).map(str.encode),
    st.tuples(
        st.sampled_from(KNOWN).map(str.encode), _odd, st.sampled_from(KNOWN).map(str.encode)
    ).map(b"".join),
    st.binary(max_size=40).map(lambda tail: b"/" + quote(tail).encode()),
)
_visible = st.binary(max_size=60).map(lambda value: bytes(b for b in value if b >= 32 and b != 127))
credentials = st.one_of(
    st.just(b""),
    _visible,
    _visible.map(lambda value: b"Basic " + value),
    st.sampled_from([b"Bearer ", b"Digest ", b"basic:", b"Basic\t\t,", b"NTLM "]).map(
        lambda scheme: scheme + AUTHORIZATION[6:].encode()
    ),
    st.text(max_size=20).map(lambda word: httpx.BasicAuth(USER, f"x{word}")._auth_header.encode()),
    st.text(max_size=20).map(
        lambda word: httpx.BasicAuth(f"x{word}", PASSWORD)._auth_header.encode()
    ),
)
HEADERS = [
    "Accept",
    "Cookie",
    "Forwarded",
    "If-None-Match",
    "Origin",
    "Proxy-Authorization",
    "Range",
    "Sec-Fetch-Site",
    "TE",
    "Upgrade",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-HTTP-Method-Override",
    "X-MLFLOW-WORKSPACE",
    "X-Original-URL",
]
headers = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(HEADERS),
            _token.map(lambda name: f"X-{name}"),
        ).map(str.encode),
        _visible,
    ),
    max_size=6,
)
methods = st.one_of(
    st.sampled_from(
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]
    ),
    _token.map(str.upper),
).map(str.encode)


REFUSED = {0, 400, 401, 403, 408, 414, 429, 431}


def test_no_request_without_credentials_is_admitted(server: Server) -> None:
    wire, watch = Wire(server), Watch(server)

    def send(
        method: bytes, path: bytes, login: bytes, more: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        lines = [b"Host: 127.0.0.1", b"Authorization: " + login]
        lines += [name + b": " + value for name, value in more]
        lines += [b"Content-Length: %d" % len(body)]
        request = b"%s %s HTTP/1.1\r\n%s\r\n\r\n%s" % (method, path, b"\r\n".join(lines), body)
        started = time.monotonic()
        status = wire.send(request)
        watch.saw(status, time.monotonic() - started)
        open_path = re.split(rb"[?#]", path)[0] == b"/health" and method in (b"GET", b"HEAD")
        assert status in REFUSED or open_path, request

    made_up = given(methods, paths, credentials, headers, st.binary(max_size=100))
    generated(REQUESTS // 10)(made_up(send))()
    watch.warmed_up()
    generated(REQUESTS - REQUESTS // 10)(made_up(send))()
    watch.report("a stranger's")


def test_a_users_requests_get_the_same_statuses_as_from_stock_mlflow(
    server: Server, stock: Stock
) -> None:
    """Valid and invalid by MLflow's schema. A failure that stock has too is MLflow's own."""
    operations = [
        found.ok() for found in schemathesis.openapi.from_dict(whole_api()).get_all_operations()
    ]
    watch = Watch(server)
    ours_alone: list[str] = []
    with server.client() as client, stock.client() as other:
        for turn, operation, mode in product(range(PASSES), operations, GenerationMode):
            if turn and not watch.early:
                watch.warmed_up()

            @generated(1)
            @given(operation.as_strategy(generation_mode=mode))
            def send(case: schemathesis.Case) -> None:
                with suppress(httpx.InvalidURL, TypeError, ValueError):  # httpx can't send it
                    request = _request(client, case)
                    started = time.monotonic()
                    answer = client.send(request)
                    watch.saw(answer.status_code, time.monotonic() - started)
                    if answer.status_code < 500:
                        return
                    theirs = other.send(_request(other, case))
                    if theirs.status_code < 500:
                        ours_alone.append(
                            f"{request.method} {request.url}: {answer.status_code}, not "
                            f"{theirs.status_code}: {request.content!r:.300}"
                        )

            # For some operations, no invalid case or no second case exists.
            with suppress(Unsatisfiable):
                send()
    assert not ours_alone, "\n".join(ours_alone)
    watch.report("the user's")


def _request(client: httpx.Client, case: schemathesis.Case) -> httpx.Request:
    made = case.as_transport_kwargs(base_url=str(client.base_url))
    options = {key: made[key] for key in ("params", "json", "headers") if made.get(key) is not None}
    if made.get("data") is not None:
        options["content"] = made["data"]
    return client.build_request(made["method"], made["url"], **options)
