"""Lets requests wait for an app that is built while the server already accepts them."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.gate.refusals import COME_BACK, refuse

PROBED = "/health"

STOPPING = "The server is stopping, try again"


class Later:
    """Passes each request to the app that `set` has been given, and waits for it before.

    A probe doesn't wait: the server accepts requests only if it expects the app to work.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._set = asyncio.Event()

    def set(self, app: ASGIApp | None) -> None:
        """Let the waiting requests go on; with None they get 503. Called on the event loop."""
        self._app = app
        self._set.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            if scope["path"] == PROBED and not self._set.is_set():
                await _respond_to_probe(send)
                return
            await self._set.wait()
            if self._app is None:
                await refuse(send, 503, STOPPING, come_back=COME_BACK)
                return
        await self._app(scope, receive, send)


async def _respond_to_probe(send: Send) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"OK"})
