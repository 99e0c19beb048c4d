"""How many requests are answered at a time.

Cloud Run sends an instance so many at most; without it in front, or where clients go away and
their requests still run, nobody counts.
"""

import asyncio
from contextlib import suppress
from random import randint

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COME_BACK = (2, 8)
"""Seconds after which who is refused may try again: MLflow's client does so seven times. Chosen
at random, so that those who are refused together don't come back together."""

SWALLOWED = 64 * 1024
"""Bytes of a body that are thrown away unread, mostly here already. With anything unread HTTP/1.1
has to close the connection, and a client that still sends may miss the answer."""

SWALLOWING = 1.0
"""Seconds for that."""


class Admission:
    """Refuses, before anything is done for them, the requests beyond `limit` in progress.

    Stands behind the gate: who may not come in takes nobody's place.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self._limit = limit
        self._running = 0
        error = MlflowException(
            f"The server is answering {limit} requests already, which is as many as it takes at "
            "a time: try again in a moment",
            TEMPORARILY_UNAVAILABLE,
        )
        self._refusal = error.serialize_as_json().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["raw_path"] == b"/health":
            await self.app(scope, receive, send)
            return
        if self._running >= self._limit:
            await _swallow(scope, receive)
            await self._refuse(send)
            return
        self._running += 1
        in_progress = True

        async def last_seen(message: Message) -> None:
            nonlocal in_progress
            # Before the client has the end of its answer, upon which its next request may come.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self._running -= in_progress
                in_progress = False
            await send(message)

        try:
            await self.app(scope, receive, last_seen)
        finally:
            self._running -= in_progress

    async def _refuse(self, send: Send) -> None:
        headers = {
            "content-type": "application/json",
            "content-length": str(len(self._refusal)),
            "cache-control": "no-store",
            "retry-after": str(randint(*COME_BACK)),  # noqa: S311 (spreads load, guards nothing)
        }
        await send(
            {
                "type": "http.response.start",
                "status": 503,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": self._refusal})


async def _swallow(scope: Scope, receive: Receive) -> None:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if length.isdigit() and 0 < int(length) <= SWALLOWED:
        with suppress(TimeoutError):
            async with asyncio.timeout(SWALLOWING):
                while (await receive()).get("more_body"):
                    pass
