"""Ends requests whose clients neither send nor read anything for a while.

Each request occupies one of the places of `concurrency_limit`. Slow clients are fine; clients that
have stopped aren't.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.gate.refusals import refuse

PATIENCE = 60.0
"""Seconds without progress."""

PROGRESS = 4096
"""Bytes of a body that count as progress: a client that sends less in that time only occupies its
place."""

PIECE = 64 * 1024
"""Bytes of a response that are passed to the HTTP server at a time. It would accept a whole body at
once and hold it for a client that reads nothing, in memory that no limit counts."""


class Stalls:
    """Ends a request that has waited for its client for `patience` seconds."""

    def __init__(self, app: ASGIApp, *, patience: float = PATIENCE) -> None:
        self.app = app
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        waiting = _Waiting(self._patience)
        started = body_complete = False

        async def receive_part() -> Message:
            nonlocal body_complete
            if body_complete:
                # Only a disconnect can follow.
                return await receive()
            with waiting.for_client():
                message = await receive()
            body_complete = not message.get("more_body", False)
            waiting.received(len(message.get("body", b"")))
            return message

        async def send_part(message: Message) -> None:
            nonlocal started
            started = True
            for piece in _pieces(message):
                with waiting.for_client():
                    await send(piece)
                waiting.progressed()

        try:
            with waiting.watched():
                await self.app(scope, receive_part, send_part)
        except StalledError:
            if started:
                raise ClientDisconnect from None
            text = f"No more of the request arrived for {self._patience:.0f} s: send it again."
            await refuse(send, 408, text)


def _pieces(message: Message) -> Iterator[Message]:
    """Split a message with a long body into several."""
    body = message.get("body", b"")
    if len(body) <= PIECE:
        yield message
        return
    last = (len(body) - 1) // PIECE * PIECE
    for start in range(0, last, PIECE):
        yield {**message, "body": body[start : start + PIECE], "more_body": True}
    yield {**message, "body": body[last:]}


class StalledError(Exception):
    """The client has stopped in the middle of its request or of the response."""


class _Waiting:
    """Measures how many seconds a request has waited for its client since the last progress."""

    def __init__(self, patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._places = 0
        self._began = 0.0
        self._waited = 0.0
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stalled = False

    @contextmanager
    def for_client(self) -> Iterator[None]:
        if not self._places:
            self._began = self._loop.time()
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1
            if not self._places:
                self._waited += self._loop.time() - self._began

    def received(self, size: int) -> None:
        self._received += size
        if self._received >= PROGRESS:
            self.progressed()

    def progressed(self) -> None:
        self._waited, self._received, self._began = 0.0, 0, self._loop.time()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Cancel the current task once the wait is too long.

        Raises:
            StalledError: in place of the cancellation.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101

        def look() -> None:
            waited = self._waited
            if self._places:
                waited += self._loop.time() - self._began
                if waited >= self._patience:
                    self._stalled = True
                    task.cancel()
                    return
            self._timer = self._loop.call_later(max(self._patience - waited, 0.05), look)

        self._timer = self._loop.call_later(self._patience, look)
        try:
            yield
        except asyncio.CancelledError:
            if not self._stalled:
                raise
            task.uncancel()
            raise StalledError from None
        finally:
            self._timer.cancel()
