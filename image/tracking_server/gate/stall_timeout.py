"""Ends requests whose clients neither send nor take anything for a while.

Each holds one of the places that `admission` gives. A slow client is welcome; one that has stopped
isn't.
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
"""Bytes of a body that count as progress: with less in all that time, a client only holds its
place."""

PIECE = 64 * 1024
"""Bytes of an answer that are given to the HTTP server at a time. It takes a whole body at once,
and would hold it for a client that reads nothing, where no limit counts it."""


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
                # Only the client's leaving can come now.
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
            text = f"Nothing more came of the request for {self._patience:.0f} s: send it again."
            await refuse(send, 408, text)


def _pieces(message: Message) -> Iterator[Message]:
    """Divide a message with a long part of the body."""
    body = message.get("body", b"")
    if len(body) <= PIECE:
        yield message
        return
    last = (len(body) - 1) // PIECE * PIECE
    for start in range(0, last, PIECE):
        yield {**message, "body": body[start : start + PIECE], "more_body": True}
    yield {**message, "body": body[last:]}


class StalledError(Exception):
    """The client has stopped in the middle of its request or of the answer."""


class _Waiting:
    """How long a request has waited for its client since there was progress, in seconds."""

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
        """Cancel the task at hand once the wait is too long.

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
