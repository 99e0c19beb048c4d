"""Servers that a caller chooses can't use up the server's memory or block its threads."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest
import requests
from aiohttp import ClientPayloadError, StreamReader
from requests.adapters import HTTPAdapter
from tracking_server.outgoing.response_limits import (
    EVENT,
    MAX_REDIRECTS,
    ProviderAnswers,
    bound_session,
)
from urllib3.util.retry import Retry

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
"""The seconds for which a hostile address keeps sending; far more than the limit below."""
LIMIT = 1.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Address:
    """A server that never stops sending. `seen` has the requested paths."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.outlasted = False
        """Whether it stopped by itself, with the client still connected."""
        self._until = time.monotonic() + PATIENCE
        address = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                address.seen.append(self.path)
                with suppress(OSError):
                    address.answer(self.path.strip("/"), self.wfile.write)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, write: Callable[[bytes], object]) -> None:
        start, piece, pause = ANSWERS[path]
        time.sleep(pause)
        write(start)
        while piece and not self.outlasted:
            write(piece)
            time.sleep(0.05 if len(piece) < 100 else 0)
            self.outlasted = time.monotonic() > self._until


def head(status: str, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Length: 0"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


ANSWERS = {
    "slow-status": (b"", b"H", 0),
    "slow-headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0),
    "slow-body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0),
    "slow-redirects": (head("302 Found", Location="/slow-redirects"), b"", 0.6 * LIMIT),
    "retry-after": (head("503 Busy", Retry_After="3600"), b"", 0),
    "redirects": (head("302 Found", Location="/redirects"), b"", 0),
    "endless": (b"HTTP/1.1 200 OK\r\n\r\n", bytes(65536), 0),
}
"""The start of each response, the part repeated without end, and the seconds before it."""


@pytest.fixture
def address() -> Iterator[Address]:
    running = Address()
    thread = threading.Thread(target=running.server.serve_forever)
    thread.start()
    yield running
    running.outlasted = True
    running.server.shutdown()
    thread.join()
    running.server.server_close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """Returns a session as MLflow creates it for webhooks."""
    with requests.Session() as made:
        retry = Retry(total=3, status_forcelist=[503], allowed_methods=["POST"], backoff_factor=0.1)
        made.mount("http://", HTTPAdapter(max_retries=retry))
        bound_session(made, largest=1000, seconds=LIMIT)
        yield made


@pytest.mark.parametrize("path", [*ANSWERS])
def test_no_address_blocks_a_thread(address: Address, session: requests.Session, path: str) -> None:
    with suppress(requests.RequestException):
        session.post(f"{address.url}/{path}", timeout=2 * PATIENCE)
    assert address.seen
    assert not address.outlasted
    assert len(address.seen) <= 1 + MAX_REDIRECTS
    # The next address gets the full time again.
    assert len(session.post(f"{address.url}/endless", timeout=5).content) == 1000


# ---- models' providers -----------------------------------------------------------------------


class StreamOfPieces:
    """The part of aiohttp's class that is used."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    iter_any = __aiter__


async def received(answers: ProviderAnswers, pieces: list[bytes]) -> list[bytes]:
    with answers.bounded(cast(StreamReader, StreamOfPieces(pieces))) as stream:
        return [piece async for piece in stream]


async def test_the_events_of_a_stream_are_limited() -> None:
    answers = ProviderAnswers(largest=100 * EVENT, together=1000 * EVENT, values=10)
    events = [b"data: {}\n", b"\n"] * 90
    assert await received(answers, events) == events
    with pytest.raises(ClientPayloadError):
        await received(answers, [b"data: {}\n", b"\n"] * 110)
    with pytest.raises(ClientPayloadError):
        await received(answers, [bytes(101 * EVENT)])


async def test_all_responses_together_are_limited() -> None:
    answers = ProviderAnswers(largest=100_000, together=150_000, values=10)
    first, second = StreamOfPieces([bytes(90_000)]), StreamOfPieces([bytes(90_000)])
    with answers.bounded(cast(StreamReader, first)) as held:
        assert len(await held.read()) == 90_000
        with (
            answers.bounded(cast(StreamReader, second)) as refused,
            pytest.raises(ClientPayloadError),
        ):
            await refused.read()
    # Both have freed their memory.
    for _ in range(3):
        with answers.bounded(cast(StreamReader, second)) as again:
            assert len(await again.read()) == 90_000


async def test_the_values_of_a_response_are_limited() -> None:
    answers = ProviderAnswers(largest=100_000, together=100_000, values=10)
    stream = StreamOfPieces([b"[" + b"1," * 10, b"1]"])
    with answers.bounded(cast(StreamReader, stream)) as bounded, pytest.raises(ClientPayloadError):
        await bounded.read()
