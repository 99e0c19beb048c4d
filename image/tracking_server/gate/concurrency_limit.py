"""How many requests are answered at a time.

Cloud Run sends an instance so many at most; without it in front, or where clients go away and
their requests still run, nobody counts.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.gate.callbacks import DEPTH
from tracking_server.gate.refusals import COME_BACK, refuse, swallow
from tracking_server.gate.viewer_policy import LOOKING

SWALLOWED = 64 * 1024
"""Bytes of a refused request's body that are still read; mostly they are here already."""

SWALLOWING = 1.0
"""Seconds for that."""


class Admission:
    """Refuses, before anything is done for them, the requests beyond `limit` in progress.

    The viewer gets half of them at most, so that whatever it does, the user is served. A call back
    of MLflow's own is part of a request that has its place.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self._limit = limit
        self._viewers_limit = max(1, limit // 2)
        self._running = self._viewers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["raw_path"] == b"/health" or DEPTH in scope:
            await self.app(scope, receive, send)
            return
        looking = LOOKING.get()
        if self._running >= self._limit or (looking and self._viewers >= self._viewers_limit):
            await self._refuse(scope, receive, send, looking=looking)
            return
        self._running += 1
        self._viewers += looking
        in_progress = True

        def finished() -> None:
            nonlocal in_progress
            self._running -= in_progress
            self._viewers -= in_progress and looking
            in_progress = False

        async def last_seen(message: Message) -> None:
            # Before the client has the end of its answer, upon which its next request may come.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                finished()
            await send(message)

        try:
            await self.app(scope, receive, last_seen)
        finally:
            finished()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, *, looking: bool) -> None:
        length = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b"0"
        )
        if length.isdigit() and 0 < int(length) <= SWALLOWED:
            await swallow(receive, size=SWALLOWED, seconds=SWALLOWING)
        limit = self._viewers_limit if looking else self._limit
        text = (
            f"The server is answering {limit} requests{' of the viewer' if looking else ''} "
            "already, which is as many as it takes at a time: try again in a moment"
        )
        await refuse(send, 503, text, come_back=COME_BACK)
