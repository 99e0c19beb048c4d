"""Runs MLflow's Flask app in a pool of threads.

MLflow mounts the app under FastAPI behind two middleware layers, which take longer than a plain
request. This module replaces that mount and omits the layers; Flask does the same security checks
itself. The library for such a mount, a2wsgi, awaits `receive` from another thread, which granian
doesn't support.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Event, Lock, get_ident
from typing import Any
from wsgiref.types import WSGIApplication

from starlette.middleware.wsgi import build_environ
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from tracking_server.client_disconnect import LEFT
from tracking_server.gate.viewer_policy import LOOKING

GRACE = 1.0
"""Seconds that a request may run before the server checks whether its client is still connected. A
request that a client sends just before it exits is still logged."""


class FlaskThreads:
    """Handles HTTP requests; each body is read completely before its request occupies a thread.

    `cut` ends the database statement that a thread, given by its number, waits for. It is called
    when the client has disconnected. Viewers have separate threads, `viewers_threads`, so that
    they don't delay the user.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        threads: int,
        viewers_threads: int,
        cut: Callable[[int], None],
    ) -> None:
        self.app = app
        self._users = ThreadPoolExecutor(threads, thread_name_prefix="flask")
        self._viewers = ThreadPoolExecutor(viewers_threads, thread_name_prefix="viewers-flask")
        self._cut = cut

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = self._messages(build_environ(scope, await _whole(receive)))
        loop = asyncio.get_running_loop()
        # In this request's context, so that log entries have its trace.
        context = copy_context()
        left = Event()
        context.run(LEFT.set, left)
        threads = self._viewers if LOOKING.get() else self._users
        at_work = _AtWork()

        def batch() -> list[Message]:
            with at_work:
                return context.run(next, messages, [])

        def gone() -> None:
            left.set()
            at_work.interrupt(self._cut)

        watch = _Watch(receive, gone)
        grace = loop.call_later(GRACE, watch.start)
        try:
            while ready := await loop.run_in_executor(threads, batch):
                for message in ready:
                    await send(message)
        finally:
            grace.cancel()
            watch.stop()

    def _messages(self, environ: dict[str, Any]) -> Iterator[list[Message]]:
        """Run the application. Almost every response is one chunk, and so one batch."""
        start: Message = {"type": "http.response.start"}

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            start["status"] = int(status.split(" ", 1)[0])
            start["headers"] = [
                (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
            ]

        chunks: Iterable[bytes] = self.app(environ, start_response)
        try:
            ahead = iter(chunks)
            chunk, following = next(ahead, b""), next(ahead, None)
            yield [start, _body(chunk, more=following is not None)]
            while following is not None:
                chunk, following = following, next(ahead, None)
                yield [_body(chunk, more=following is not None)]
        finally:
            if callable(close := getattr(chunks, "close", None)):
                close()


class _AtWork:
    """The thread that currently works for a request, if any."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._thread: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._thread = get_ident()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._thread = None

    def interrupt(self, cut: Callable[[int], None]) -> None:
        # With the lock held, the thread can't begin to work for another request.
        with self._lock:
            if self._thread is not None:
                cut(self._thread)


class _Watch:
    """Calls `gone` once if the client disconnects."""

    def __init__(self, receive: Receive, gone: Callable[[], None]) -> None:
        self._receive, self._gone = receive, gone
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._wait())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()


def _body(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _whole(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)
