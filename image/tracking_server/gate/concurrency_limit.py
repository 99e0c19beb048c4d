"""Limits the number of requests in progress.

Cloud Run limits the requests that it sends to an instance. It doesn't count requests that still run
after their clients have disconnected, and the server may also run without Cloud Run in front.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.gate.callbacks import DEPTH
from tracking_server.gate.refusals import COME_BACK, refuse, swallow
from tracking_server.gate.viewer_policy import LOOKING

SWALLOWED = 64 * 1024
"""Bytes of a refused request's body that are still read; most of them have already arrived."""

SWALLOWING = 1.0
"""Seconds for reading them."""


class Admission:
    """Refuses new requests, before any work is done, while `limit` are in progress.

    The viewer gets half of them at most, so that it can't keep the user out. A call back from
    MLflow isn't counted, because it is part of a request that is.
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
            # Before the client gets the end of the response and may send its next request.
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
            f"The server is already handling {limit} requests{' of the viewer' if looking else ''}"
            ", which is the limit: try again in a moment"
        )
        await refuse(send, 503, text, come_back=COME_BACK)
