"""MLflow's Flask app, answered from a pool of threads.

MLflow mounts it under FastAPI behind two middleware layers, which cost more than a plain request
takes. This is that mount without them; Flask does the same security checks itself. The ready
part, a2wsgi, awaits `receive` from another thread, which granian's can't be.
"""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any
from wsgiref.types import WSGIApplication

from starlette.middleware.wsgi import build_environ
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send


class FlaskThreads:
    """Takes HTTP requests; a body is read whole before a thread is taken for it."""

    def __init__(self, app: WSGIApplication, *, threads: int) -> None:
        self.app = app
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="flask")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = self._messages(build_environ(scope, await _whole(receive)))
        loop = asyncio.get_running_loop()
        # In this request's context, for what is logged with its trace.
        context = copy_context()

        def batch() -> list[Message]:
            return context.run(next, messages, [])

        while ready := await loop.run_in_executor(self._threads, batch):
            for message in ready:
                await send(message)

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
