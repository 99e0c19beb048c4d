"""Limits the memory that the database's answers take in the requests in progress."""

from contextvars import ContextVar
from threading import Condition

from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.gate.viewer_policy import LOOKING

ROW, BYTE = 1700, 5
"""Bytes of memory for each row that the database returns, and for each of its bytes: MLflow makes
objects, messages and JSON of them. Measured with pages of 1,000 to 10,000 runs with 30 values each,
which take 2,000 bytes for each row of 73."""

SMALL = 512 * 1024
"""Bytes of memory that each request has besides, so that small ones don't wait for large ones."""

WAITING = 10.0
"""Seconds that a request waits for others to finish with what they hold."""


class TooLarge(Exception):
    """The answer to one request exceeds the whole limit."""


class Full(Exception):
    """The requests in progress together exceed the limit."""


class Answers:
    """Bytes of memory that the requests of one kind of caller may hold together."""

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

    def free(self, size: int) -> None:
        with self._freed:
            self._free += size
            self._freed.notify_all()


class Answer:
    """What the database has returned to one request."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._held = self._taken = 0
        self._closed = False

    def add(self, received: int, rows: int) -> None:
        """Count bytes that have been received, and rows made of them.

        Raises:
            TooLarge: if this request has asked for too much.
            Full: if all requests together have.
        """
        size = received * BYTE + rows * ROW
        if self._closed:
            # What is done after the response, such as writing a trace, is short.
            return
        if self._held + size - SMALL > self._answers.size:
            raise TooLarge
        if (beyond := self._held + size - SMALL - self._taken) > 0:
            self._answers.take(beyond)
            self._taken += beyond
        self._held += size

    def close(self) -> None:
        self._closed = True
        self._answers.free(self._taken)
        self._taken = 0


ANSWER: ContextVar[Answer | None] = ContextVar("answer", default=None)
"""The answer to the request that this thread works for."""


class AnswerLimit:
    """Counts what the database returns to each request, until the response has been sent."""

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
