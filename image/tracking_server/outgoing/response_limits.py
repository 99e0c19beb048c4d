"""Limits the responses of servers that callers choose: model providers and webhook addresses."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from socket import SHUT_RDWR
from time import monotonic
from typing import TYPE_CHECKING, Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import Timeout
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.retry import Retry

from tracking_server.gate.json_limits import json_problem

if TYPE_CHECKING:
    import aiohttp

# ---- webhooks --------------------------------------------------------------------------------

MAX_REDIRECTS = 3

_waiting = threading.local()


class _UntilDeadline:
    """Gives urllib3's connections a deadline; their own timeout restarts with each byte."""

    sock: Any
    timeout: float | None

    def connect(self) -> None:
        self.timeout = _seconds_left()
        super().connect()  # type: ignore[misc]

    def getresponse(self) -> Any:
        timer = threading.Timer(_seconds_left(), self._cut)
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            timer.cancel()

    def _cut(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(SHUT_RDWR)


def _pool_until_deadline(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """Returns the same kind of pool with connections that have a deadline."""
    connection = type("Connection", (_UntilDeadline, pool.ConnectionCls), {})
    return type("Pool", (pool,), {"ConnectionCls": connection})


def bound_session(session: Session, *, largest: int, seconds: float) -> None:
    """Limit each request of a session to so many bytes of response and so many seconds.

    The time includes redirects and retries. Retry-After is ignored, because it could block a thread
    for hours.
    """

    def read(response: Response, *_: object, **__: object) -> None:
        pieces, size = [], 0
        until = _waiting.until
        while size <= largest and monotonic() < until:
            piece = response.raw.read1(largest, decode_content=True)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        response.raw.close()
        response.raw = BytesIO(b"".join(pieces)[:largest])

    session.hooks["response"].append(read)
    session.max_redirects = MAX_REDIRECTS
    pools = {
        "http": _pool_until_deadline(HTTPConnectionPool),
        "https": _pool_until_deadline(HTTPSConnectionPool),
    }
    for adapter in session.adapters.values():
        assert isinstance(adapter, HTTPAdapter)  # noqa: S101
        assert isinstance(adapter.max_retries, Retry)  # noqa: S101
        adapter.max_retries.respect_retry_after_header = False
        adapter.poolmanager.pool_classes_by_scheme = pools
    send = session.send

    def send_in_time(request: PreparedRequest, **options: Any) -> Response:
        # The session also sends redirects; they share the deadline of the original request.
        with _deadline(seconds):
            return send(request, **options)

    session.send = send_in_time  # type: ignore[method-assign]


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    if getattr(_waiting, "until", None) is not None:
        yield
        return
    _waiting.until = monotonic() + seconds
    try:
        yield
    finally:
        _waiting.until = None


def _seconds_left() -> float:
    left: float = _waiting.until - monotonic()
    if left <= 0:
        raise Timeout("The address took too long to respond")
    return left


# ---- models' providers -----------------------------------------------------------------------

EVENT = 2200
"""Bytes of memory for each event of a stream: MLflow keeps them for the trace (measured with
`mlflow.gateway.schemas.chat.StreamResponsePayload`)."""


class ProviderAnswers:
    """Limits the memory of one response, and of all responses in progress together.

    `values` is the limit of JSON values in one response.
    """

    def __init__(self, *, largest: int, together: int, values: int) -> None:
        self._largest, self._free, self._values = largest, together, values

    @contextmanager
    def bounded(self, stream: "aiohttp.StreamReader") -> "Iterator[_BoundedStream]":
        answer = _BoundedStream(stream, self._take, largest=self._largest, values=self._values)
        try:
            yield answer
        finally:
            self._free += answer.held

    def _take(self, size: int) -> bool:
        if size > self._free:
            return False
        self._free -= size
        return True


class _BoundedStream:
    """A response body that raises an error once it exceeds a limit."""

    def __init__(
        self,
        stream: "aiohttp.StreamReader",
        take: Callable[[int], bool],
        *,
        largest: int,
        values: int,
    ) -> None:
        self._stream, self._take = stream, take
        self._largest, self._values = largest, values
        self.held = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for line in self._stream:
            yield self._counted(line, EVENT if line.strip() else 0)

    async def read(self, _: int = -1) -> bytes:
        from aiohttp import ClientPayloadError

        body = b"".join([self._counted(piece) async for piece in self._stream.iter_any()])
        # MLflow parses it on the event loop.
        if problem := json_problem(body, values=self._values):
            raise ClientPayloadError(f"The provider's response: {problem}")
        return body

    def _counted(self, piece: bytes, more: int = 0) -> bytes:
        from aiohttp import ClientPayloadError

        size = len(piece) + more
        if self.held + size > self._largest:
            raise ClientPayloadError("The provider's response is larger than this server accepts")
        if not self._take(size):
            raise ClientPayloadError(
                "The server has no memory for more providers' responses now: try again"
            )
        self.held += size
        return piece
