"""MLflow's Flask app, answered from a pool of threads.

MLflow mounts it under FastAPI behind two middleware layers, which cost more than a plain request
takes. This is that mount without them; Flask does the same security checks itself. The ready
part, a2wsgi, awaits `receive` from another thread, which granian's can't be.
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

from tracking_server.client_left import LEFT
from tracking_server.gate.viewer_policy import LOOKING

GRACE = 1.0
"""Seconds that a request may go on before it is looked whether its client is still there. What a
client sends just before it ends is logged all the same."""


class FlaskThreads:
    """Takes HTTP requests; a body is read whole before a thread is taken for it.

    `cut` ends what a thread, named by its number, waits for: it is called when the client has gone
    away. Viewers have their own threads, `viewers_threads`, so that they keep nobody else waiting.
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
        # In this request's context, for what is logged with its trace.
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
        """Run the application. Almost every answer is one chunk, and so one batch."""
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
    """The thread that works for a request right now, if any."""

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
        # The thread can't begin with another request's work meanwhile.
        with self._lock:
            if self._thread is not None:
                cut(self._thread)


class _Watch:
    """Calls `gone` once if the client goes away."""

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
