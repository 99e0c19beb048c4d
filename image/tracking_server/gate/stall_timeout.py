"""Ends requests whose clients neither send nor read anything for a while.

Each request occupies one of the places of `concurrency_limit`. Slow clients are fine; clients that
have stopped aren't.
"""

import asyncio
from collections.abc import Iterator

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
            waiting.begin()
            try:
                message = await receive()
            finally:
                waiting.end()
            body_complete = not message.get("more_body", False)
            waiting.received(len(message.get("body", b"")))
            return message

        async def send_part(message: Message) -> None:
            nonlocal started
            started = True
            is_long = len(message.get("body", b"")) > PIECE
            for piece in _pieces(message) if is_long else (message,):
                waiting.begin()
                try:
                    await send(piece)
                finally:
                    waiting.end()
                waiting.progressed()

        try:
            await self.app(scope, receive_part, send_part)
        except asyncio.CancelledError:
            if not waiting.uncancel():
                raise
            if started:
                raise ClientDisconnect from None
            text = f"No more of the request arrived for {self._patience:.0f} s: send it again."
            await refuse(send, 408, text)
        finally:
            waiting.close()


def _pieces(message: Message) -> Iterator[Message]:
    """Split a message with a long body into several."""
    body = message["body"]
    last = (len(body) - 1) // PIECE * PIECE
    for start in range(0, last, PIECE):
        yield {**message, "body": body[start : start + PIECE], "more_body": True}
    yield {**message, "body": body[last:]}


class _Waiting:
    """Cancels the current task once it has waited for its client for `patience` seconds.

    Only the time since the last progress counts.
    """

    def __init__(self, patience: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._places = 0
        self._began = 0.0
        self._waited = 0.0
        self._received = 0
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101
        self._task = task
        self._timer = self._loop.call_later(patience, self._look)
        self._cancelled = False

    def uncancel(self) -> bool:
        """Undo the cancellation. Returns False if it wasn't this object that cancelled the task."""
        if self._cancelled:
            self._task.uncancel()
        return self._cancelled

    def begin(self) -> None:
        """Begin to wait for the client; several parts of a request may do so at a time."""
        if not self._places:
            self._began = self._loop.time()
        self._places += 1

    def end(self) -> None:
        self._places -= 1
        if not self._places:
            self._waited += self._loop.time() - self._began

    def received(self, size: int) -> None:
        self._received += size
        if self._received >= PROGRESS:
            self.progressed()

    def progressed(self) -> None:
        self._waited, self._received, self._began = 0.0, 0, self._loop.time()

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        waited = self._waited
        if self._places:
            waited += self._loop.time() - self._began
            if waited >= self._patience:
                self._cancelled = True
                self._task.cancel()
                return
        self._timer = self._loop.call_later(max(self._patience - waited, 0.05), self._look)
