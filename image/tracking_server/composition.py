"""MLflow's two halves side by side: each request goes to the one that has its route.

Stock MLflow mounts Flask under FastAPI, so that nine routes of ten pass through both.
"""

from functools import lru_cache

from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

_REMEMBERED = 4096
"""Paths of which it is known where they go; most of MLflow's have nothing variable in them."""


class Composition:
    """Sends to `flask` what FastAPI would only have passed on to its mount at `/`."""

    def __init__(self, *, fastapi: ASGIApp, routes: list[BaseRoute], flask: ASGIApp) -> None:
        self._fastapi, self._flask = fastapi, flask
        *native, mount = routes
        # What comes after the mount would never be reached, and what is it must be everything.
        if not isinstance(mount, Mount) or mount.path or any(isinstance(r, Mount) for r in native):
            raise RuntimeError("MLflow no longer mounts Flask at / as the last of its routes")
        self._native = native
        self._is_native = lru_cache(_REMEMBERED)(self._matches)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_native(scope["path"], scope["method"]):
            await self._fastapi(scope, receive, send)
        else:
            await self._flask(scope, receive, send)

    def _matches(self, path: str, method: str) -> bool:
        # The first route that takes a request answers it, and the last, the mount, takes every
        # path that begins with a slash; a path that matches but for its method is the mount's.
        if not path.startswith("/"):
            return True
        scope = {"type": "http", "path": path, "method": method, "root_path": ""}
        return any(route.matches(scope)[0] is Match.FULL for route in self._native)
