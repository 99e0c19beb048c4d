"""Runs the HTTP stand-ins in one event loop, in a thread, on 127.0.0.1 only."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable

from aiohttp import web

MEBIBYTE = 1 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoints:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="stand-ins", daemon=True
        )
        self._thread.start()
        self._runners: dict[str, web.AppRunner] = {}

    def serve(self, handler: Handler, port: int = 0) -> str:
        """Serves one API, on a free port by default, and returns its address."""
        return asyncio.run_coroutine_threadsafe(self._serve(handler, port), self._loop).result()

    def stop(self, address: str) -> None:
        """Stops the API at an address."""
        runner = self._runners.pop(address)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), self._loop).result()

    async def _serve(self, handler: Handler, port: int) -> str:
        # No limit, because bodies are streamed and never read whole.
        app = web.Application(client_max_size=sys.maxsize)
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(
            app, access_log=None, read_bufsize=MEBIBYTE, keepalive_timeout=600, shutdown_timeout=1
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._runners[address] = runner
        return address

    def close(self) -> None:
        async def cleanup() -> None:
            await asyncio.gather(*(runner.cleanup() for runner in self._runners.values()))

        asyncio.run_coroutine_threadsafe(cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_CODES = {
    400: "FAILED_PRECONDITION",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
}


def refusal(code: int, message: str, *, status: str = "") -> web.Response:
    """Returns an error as Google's JSON APIs do: https://cloud.google.com/apis/design/errors"""
    error = {"code": code, "message": message, "status": status or _CODES[code]}
    return web.json_response({"error": error}, status=code)


def unauthenticated(request: web.Request) -> web.Response:
    expected = (
        "Expected OAuth 2 access token, login cookie or other valid authentication credential. See "
        "https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    if "Authorization" in request.headers:
        return refusal(401, f"Request had invalid authentication credentials. {expected}")
    return refusal(401, f"Request is missing required authentication credential. {expected}")
