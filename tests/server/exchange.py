"""One request to an ASGI app, with both sides under the test's control."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp, Message

PATIENCE = 20


class Exchange:
    """Starts at once. `feed` sends a piece of the body; pieces that aren't read yet wait here."""

    def __init__(
        self,
        app: ASGIApp,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        http_version: str = "1.1",
    ) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._may_send = asyncio.Event()
        self._taking = math.inf
        self.taken = 0
        self.sent: list[Message] = []
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": http_version,
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
            ],
            "server": ("127.0.0.1", 1),
            "client": ("127.0.0.1", 2),
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> Message:
        message = await self._incoming.get()
        self.taken += len(message.get("body", b""))
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            if not self._taking:
                await self._may_send.wait()
            self._taking -= 1
        self.sent.append(dict(message))

    def feed(self, *pieces: bytes, more: bool = True) -> None:
        for piece in pieces:
            self._incoming.put_nowait({"type": "http.request", "body": piece, "more_body": True})
        if not more:
            self._incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    def stop_taking(self, *, after: int) -> None:
        """Act like a client that reads `after` more pieces and then none for a while."""
        self._taking = after

    def take_again(self) -> None:
        self._taking = math.inf
        self._may_send.set()

    async def done(self) -> "Exchange":
        await asyncio.wait_for(self.task, PATIENCE)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {
            name.decode().lower(): value.decode("latin-1")
            for name, value in self.sent[0]["headers"]
        }

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def pieces(content: bytes, size: int) -> Sequence[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]
