"""Limits the memory that query results take in all requests in progress."""

from contextvars import ContextVar
from threading import Condition

from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.gate.viewer_policy import LOOKING

ROW, BYTE = 1700, 5
"""Bytes of memory that each row from the database needs, and each byte of a row: MLflow converts
rows to objects, messages and JSON. Measured with pages of 1,000 to 10,000 runs with 30 values each,
where a row of 73 bytes needs 2,000 bytes."""

SMALL = 512 * 1024
"""Bytes of memory that each request may use in addition, so that small requests don't wait for
large ones."""

WAITING = 10.0
"""Seconds that a request waits for other requests to free memory."""


class TooLarge(Exception):
    """The results for one request exceed the whole limit."""


class Full(Exception):
    """The requests in progress exceed the limit together."""


class Answers:
    """The memory that all requests of the user, or of the viewer, may hold together."""

    def __init__(self, size: int) -> None:
        self.size = self._free = size
        self._freed = Condition()

    def take(self, size: int) -> None:
        """Wait for so many bytes.

        Raises:
            Full: if other requests don't free them in time.
        """
        with self._freed:
            if not self._freed.wait_for(lambda: size <= self._free, WAITING):
                raise Full
            self._free -= size

    def take_at_once(self, size: int) -> bool:
        """Take so many bytes if they are free; for the event loop, which must not wait."""
        with self._freed:
            if size > self._free:
                return False
            self._free -= size
            return True

    def free(self, size: int) -> None:
        with self._freed:
            self._free += size
            self._freed.notify_all()


class Answer:
    """The memory that the database's results for one request take."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._held = 0
        self._closed = False

    def add(self, received: int, rows: int) -> None:
        """Count bytes that have been received, and the rows in them.

        Raises:
            TooLarge: if this request exceeds the limit.
            Full: if all requests together exceed it.
        """
        if self._closed:
            # Work after the response, such as writing a trace, is short.
            return
        held = self._held + received * BYTE + rows * ROW
        if _counted(held) > self._answers.size:
            raise TooLarge
        if more := _counted(held) - _counted(self._held):
            self._answers.take(more)
        self._held = held

    def add_at_once(self, size: int) -> bool:
        """Count the bytes of a response, if the limits allow it now."""
        held = self._held + size
        if not self._answers.take_at_once(_counted(held) - _counted(self._held)):
            return False
        self._held = held
        return True

    def close(self) -> None:
        self._closed = True
        self._answers.free(_counted(self._held))
        self._held = 0


def _counted(held: int) -> int:
    """Returns how much of a request's memory counts towards the limit of all requests."""
    return max(0, held - SMALL)


ANSWER: ContextVar[Answer | None] = ContextVar("answer", default=None)
"""The results for the request that this thread works for."""


class AnswerLimit:
    """Counts what the database returns for each request, until the response has been sent."""

    def __init__(self, app: ASGIApp, *, user: Answers, viewer: Answers) -> None:
        self.app = app
        self._user, self._viewer = user, viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Answer(self._viewer if LOOKING.get() else self._user)
        ANSWER.set(answer)
        try:
            await self.app(scope, receive, send)
        finally:
            answer.close()
