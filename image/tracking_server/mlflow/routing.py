"""Routes each request to the half of MLflow, Flask or FastAPI, that has its route.

Stock MLflow mounts Flask under FastAPI, so that nine of ten routes pass through both, and imports
both at its start. Here requests for Flask go to it directly, and the FastAPI half (traces by OTLP,
gateway, assistant, jobs, MCP) is imported when the first request needs it.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from functools import lru_cache, partial

from starlette.applications import Starlette
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.gate.refusals import refuse
from tracking_server.gate.viewer_policy import LOOKING
from tracking_server.serve.nested_threads import NestedThreads

_REMEMBERED = 4096
"""Paths whose route is cached; most of MLflow's paths have no variable part."""

_LONGEST = 512
"""Characters of a path that is cached; MLflow's own are shorter."""

VIEWERS = 8
"""Requests of the viewer that the FastAPI half handles at a time. It has 40 threads, which artifact
transfers use as well: https://anyio.readthedocs.io/en/stable/threads.html"""


class Composition:
    """Sends a request to `flask` if FastAPI would only pass it on to its mount at `/`.

    `has_flask_route` tells whether Flask has a route for a path and a method. Routes that both
    halves have lead to the same function, or are handled before this class
    (tests/server/test_composition.py lists them).

    `native_problem` returns why a query asks for too much, for the FastAPI half; in Flask,
    `request_limits` checks each request.
    """

    def __init__(
        self,
        *,
        flask: ASGIApp,
        has_flask_route: Callable[[str, str], bool],
        import_native: Callable[[], Starlette],
        native_problem: Callable[[bytes], str],
    ) -> None:
        self._flask = flask
        self._has_flask_route = _remembering(has_flask_route)
        self._native = _Native(import_native)
        self._native_problem = native_problem
        self._viewers = asyncio.Semaphore(VIEWERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and _fits_mount(scope["path"])
            and (
                self._has_flask_route(scope["path"], scope["method"])
                or not await self._native.has_route(scope["path"], scope["method"])
            )
        ):
            await self._flask(scope, receive, send)
        else:
            await self._answer_natively(scope, receive, send)

    async def close(self) -> None:
        """End the lifespan of the FastAPI half, if it was imported."""
        await self._native.close()

    async def _answer_natively(self, scope: Scope, receive: Receive, send: Send) -> None:
        if problem := self._native_problem(scope.get("query_string", b"")):
            await refuse(send, 400, problem)
            return
        app = await self._native.app()
        async with self._viewers if LOOKING.get() else nullcontext():
            await app(scope, receive, send)


class _Native:
    """The FastAPI half, imported once, for the first request that needs it."""

    def __init__(self, import_app: Callable[[], Starlette]) -> None:
        self._import = import_app
        self._importing: asyncio.Task[Starlette] | None = None
        self._lifespan = AsyncExitStack()
        self._matches: Callable[[str, str], bool] | None = None

    async def app(self) -> Starlette:
        if self._importing is None:
            self._importing = asyncio.create_task(self._start())
        # If a client disconnects, its own wait ends and the import goes on.
        return await asyncio.shield(self._importing)

    async def has_route(self, path: str, method: str) -> bool:
        if self._matches is None:
            self._matches = _remembering(partial(_matches, await self.app()))
        return self._matches(path, method)

    async def close(self) -> None:
        await self._lifespan.aclose()

    async def _start(self) -> Starlette:
        asyncio.get_running_loop().set_default_executor(NestedThreads())
        app = await asyncio.to_thread(self._import)
        await self._lifespan.enter_async_context(app.router.lifespan_context(app))
        return app


def _remembering(look: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
    """Returns the same function with a cache for short paths."""
    remembered = lru_cache(_REMEMBERED)(look)

    def found(path: str, method: str) -> bool:
        return (remembered if len(path) <= _LONGEST else look)(path, method)

    return found


def _fits_mount(path: str) -> bool:
    """Whether Starlette's pattern for the mount matches: a slash first, and no line break."""
    return path.startswith("/") and "\n" not in path


def _matches(app: Starlette, path: str, method: str) -> bool:
    *native, mount = app.routes
    # The mount must match every path, so routes after it would never be reached.
    if not isinstance(mount, Mount) or mount.path or any(isinstance(r, Mount) for r in native):
        raise RuntimeError("MLflow no longer mounts Flask at / as the last of its routes")
    # The first route that matches fully handles the request. If only the path matches and not the
    # method, the request goes to the mount.
    scope = {"type": "http", "path": path, "method": method, "root_path": ""}
    return any(route.matches(scope)[0] is Match.FULL for route in native)
