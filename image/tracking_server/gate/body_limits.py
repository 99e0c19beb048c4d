"""Limits the size and depth of request bodies while they are read.

MLflow reads the whole body, whatever its size, and a parsed body takes many times its bytes. So
this module reads and decompresses bodies, within limits for each caller and for all requests
together, and passes them to MLflow whole and uncompressed. The exception is artifacts, which
`artifacts.transfers` streams.
"""

import asyncio
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple, Unpack

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.gate import otlp_limits
from tracking_server.gate.json_limits import NOT_JSON, json_problem
from tracking_server.gate.refusals import COME_BACK, refuse, swallow
from tracking_server.gate.stall_timeout import PROGRESS
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.request_headers import combined

MIB = 1024 * 1024

READING = 120.0
"""Seconds for a body to arrive."""

WAITING = 10.0
"""Seconds that a body waits until other requests free enough room."""

UNTOLD = MIB
"""Bytes reserved for a body of unknown length when its first part arrives. Over HTTP/2 a request
may omit the length, and most requests that do have no body."""

SMALL, SMALL_TOGETHER = 64 * 1024, MIB
"""Bytes of a body that need not wait behind large ones, and of all such bodies at once. Otherwise a
client that logs a metric would wait until large bodies have been handled."""

DROPPED, DROPPING = 64 * MIB, 10.0
"""Bytes and seconds of a refused body that are still read. The client sends the whole body before
it reads the response, and would otherwise miss it."""

MAX_MEMBERS = 100
"""Members of a gzip body, as RFC 1952 calls its parts; exporters send one."""

_FOUR_BYTES = re.compile(rb"[\xf0-\xff]|\\u[dD][89a-fA-F]")
_TWO_BYTES = re.compile(rb"[\xc4-\xef]|\\u(?!00)")
"""Characters that take so many bytes in memory, in UTF-8 or escaped in JSON."""

_INLINE = 64 * 1024
"""Bytes up to which a body is checked on the event loop; starting a thread would take longer."""


_threads = ThreadPoolExecutor(2, thread_name_prefix="bodies")
"""Separate from the event loop's threads, which MLflow's guardrails can keep busy for minutes."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits for a kind of caller: bytes and values of one body, bytes of all bodies at once."""

    size: int
    values: int
    together: int


USER = Limits(size=32 * MIB, values=250_000, together=40 * MIB)
"""32 MiB is Cloud Run's limit for a body over HTTP/1.1. While MLflow works on one such body, the
server stays within a 512 MiB instance (`make bench-memory`)."""

VIEWER = Limits(size=MIB, values=10_000, together=4 * MIB)


class TooMuch(Exception):
    """The body is refused with this status; the text says why and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Room:
    """Bytes that the bodies of all requests may take together, handed out in order of arrival."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._queue: list[tuple[int, asyncio.Future[None]]] = []

    async def reserve(self, size: int) -> None:
        """Wait for so many bytes.

        Raises:
            TooMuch: if they don't become free in time.
        """
        if not self._queue and size <= self._free:
            self._free -= size
            return
        turn = (size, asyncio.get_running_loop().create_future())
        self._queue.append(turn)
        try:
            async with asyncio.timeout(WAITING):
                await turn[1]
        except BaseException as error:
            if turn in self._queue:
                self._queue.remove(turn)
            elif turn[1].done() and not turn[1].cancelled():
                self.free(size)
            self._serve()
            if isinstance(error, TimeoutError):
                raise _full() from None
            raise

    def extend(self, size: int) -> None:
        """Reserve more for a body that is being read, which must not wait while it holds some.

        Raises:
            TooMuch: if the room is full.
        """
        if size > self._free:
            raise _full()
        self._free -= size

    def free(self, size: int) -> None:
        self._free += size
        self._serve()

    def has(self, size: int) -> bool:
        return size <= self._free

    def _serve(self) -> None:
        while self._queue and self._queue[0][0] <= self._free:
            size, turn = self._queue.pop(0)
            if not turn.done():
                self._free -= size
                turn.set_result(None)


class Bodies:
    """Reads each request's body within the limits and passes it on as one uncompressed message."""

    def __init__(self, app: ASGIApp, *, user: Limits = USER, viewer: Limits = VIEWER) -> None:
        self.app = app
        self._user, self._users_room = user, Room(user.together)
        self._viewer, self._viewers_room = viewer, Room(viewer.together)
        self._users_small, self._viewers_small = Room(SMALL_TOGETHER), Room(SMALL_TOGETHER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if LOOKING.get():
            rooms = (self._viewers_room, self._viewers_small)
            reading = _Reading(scope, receive, self._viewer, *rooms)
        else:
            rooms = (self._users_room, self._users_small)
            reading = _Reading(scope, receive, self._user, *rooms)
        try:
            try:
                body = await reading.whole()
            except TooMuch as error:
                reading.close()
                if not reading.complete:
                    await swallow(receive, size=DROPPED, seconds=DROPPING)
                after = COME_BACK if error.status == 503 else None
                await refuse(send, error.status, str(error), come_back=after)
                return
            await self.app(reading.plain_scope(body), replayed(body, receive), send)
        finally:
            reading.close()


class _Reading:
    def __init__(
        self, scope: Scope, receive: Receive, limits: Limits, room: Room, small: Room
    ) -> None:
        self._scope, self._receive, self._limits = scope, receive, limits
        self._room, self._small = room, small
        self._reserved = 0
        self.complete = False
        self._encoding = combined(scope["headers"], b"content-encoding").lower()
        self._length = combined(scope["headers"], b"content-length")

    def close(self) -> None:
        """Free the room, once the body isn't in use any more."""
        self._room.free(self._reserved)
        self._reserved = 0

    async def whole(self) -> bytes:
        """Read and decompress the body.

        Raises:
            TooMuch: if it exceeds a limit.
            ClientDisconnect: if the client disconnects.
        """
        if self._encoding not in ("", "identity", "gzip", "deflate"):
            raise TooMuch(
                415,
                f"Content-Encoding {self._encoding[:40]!r} isn't supported: send the body "
                "uncompressed, or compressed with gzip or deflate.",
            )
        expected = None
        if self._length.isdigit():
            expected = int(self._length)
            self._check_size(expected)
            compressed = self._encoding in ("gzip", "deflate")
            if expected <= SMALL and not compressed and self._small.has(expected):
                self._room = self._small
            await self._reserve(expected)
        # `Stalls` ends a shorter body sooner. A timeout takes a twentieth of a hot route's time.
        if expected is not None and expected < PROGRESS:
            body = await self._read()
        else:
            body = await self._read_in_time()
        if body and self._encoding in ("gzip", "deflate"):
            body = await self._decompressed(body)
        self._keep(len(body))
        if len(body) <= _INLINE:
            return self._examined(body)
        if not (self._is_file or self._is_protobuf):
            await self._widen(body)
        return await _in_thread(self._examined, body)

    def plain_scope(self, body: bytes) -> Scope:
        """Returns the request as if its body had been sent uncompressed and with its length.

        WSGI treats a request without a length as one without a body.
        """
        told = self._length and self._encoding not in ("gzip", "deflate")
        if told or not body:
            return self._scope
        dropped = (b"content-encoding", b"content-length", b"transfer-encoding")
        headers = [header for header in self._scope["headers"] if header[0] not in dropped]
        return {**self._scope, "headers": [*headers, (b"content-length", b"%d" % len(body))]}

    async def _read_in_time(self) -> bytes:
        try:
            async with asyncio.timeout(READING):
                return await self._read()
        except TimeoutError:
            raise TooMuch(
                408, f"The body didn't arrive within {READING:.0f} s: send it again, or in parts."
            ) from None

    async def _read(self) -> bytes:
        # Not a list of pieces: a client may send them byte by byte.
        body = bytearray()
        while not self.complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece: bytes = message.get("body", b"")
            size = len(body) + len(piece)
            self._check_size(size)
            if piece and not self._reserved:
                await self._reserve(max(size, min(UNTOLD, self._limits.size)))
            self._cover(size)
            self.complete = not message.get("more_body", False)
            if self.complete and not body:
                return piece
            body += piece
        return bytes(body)

    async def _reserve(self, size: int) -> None:
        if size:
            await self._room.reserve(size)
            self._reserved = size

    def _cover(self, size: int) -> None:
        if size > self._reserved:
            more = max(size, min(2 * self._reserved, self._limits.size)) - self._reserved
            self._room.extend(more)
            self._reserved += more

    def _keep(self, size: int) -> None:
        if size < self._reserved:
            self._room.free(self._reserved - size)
            self._reserved = size

    @property
    def _is_file(self) -> bool:
        is_file: bool = self._scope["path"].endswith(NOT_JSON)
        return is_file

    @property
    def _is_protobuf(self) -> bool:
        is_otlp: bool = self._scope["path"].endswith(otlp_limits.PATH)
        return is_otlp and otlp_limits.is_protobuf(
            combined(self._scope["headers"], b"content-type")
        )

    async def _widen(self, body: bytes) -> None:
        """Reserve more for a text that takes several bytes per character when it is decoded.

        Raises:
            TooMuch: if it takes more than all bodies together may.
        """
        width = await _in_thread(_character_width, body)
        if width > 1:
            if width * len(body) > self._limits.together:
                raise TooMuch(
                    413,
                    f"The body has more than {self._limits.together // width // MIB} MiB with "
                    "characters outside Latin-1, which need several bytes of memory each: send "
                    "it in parts.",
                )
            self._cover(width * len(body))

    def _check_size(self, size: int) -> None:
        if size > self._limits.size:
            raise TooMuch(
                413,
                f"The body has more than {self._limits.size // MIB} MiB, which is the limit: log "
                "in smaller batches, and put files into artifacts.",
            )

    def _examined(self, body: bytes) -> bytes:
        if self._is_file:
            problem = ""
        elif self._is_protobuf:
            problem = otlp_limits.problem(body)
        else:
            problem = json_problem(body, values=self._limits.values)
        if problem:
            raise TooMuch(413, problem)
        return body

    async def _decompressed(self, body: bytes) -> bytes:
        pieces: list[bytes] = []
        size = 0
        for _ in range(MAX_MEMBERS):
            stream = zlib.decompressobj(_window_bits(self._encoding, body))
            while not stream.eof:
                try:
                    piece = await _in_thread(stream.decompress, body, MIB)
                except zlib.error:
                    raise TooMuch(400, f"The body isn't valid {self._encoding}.") from None
                size += len(piece)
                self._check_size(size)
                self._cover(size)
                pieces.append(piece)
                body = stream.unconsumed_tail
                if not (body or piece) and not stream.eof:
                    raise TooMuch(400, f"The {self._encoding} body ends too early: send it again.")
            body = stream.unused_data if self._encoding == "gzip" else b""
            if not body:
                return b"".join(pieces)
        raise TooMuch(400, f"The gzip body has more than {MAX_MEMBERS} members: send it as one.")


async def _in_thread(work: Callable[[Unpack[Ts]], R], *args: *Ts) -> R:
    return await asyncio.get_running_loop().run_in_executor(_threads, work, *args)


def _character_width(body: bytes) -> int:
    """Returns the bytes per character of the decoded text; the widest one decides (PEP 393)."""
    if _FOUR_BYTES.search(body):
        return 4
    return 2 if _TWO_BYTES.search(body) else 1


def _window_bits(encoding: str, body: bytes) -> int:
    """Returns zlib's number for the format; clients send deflate with and without zlib's header."""
    if encoding == "gzip":
        return 16 + zlib.MAX_WBITS
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


def _full() -> TooMuch:
    return TooMuch(
        503, "The server has no memory for more large requests now: try again in a moment."
    )


def replayed(body: bytes, receive: Receive) -> Receive:
    """Returns the body in one message, then passes on later ones, such as the disconnect."""
    unread: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal unread
        if unread is not None:
            message, unread = unread, None
            return message
        return await receive()

    return replay
