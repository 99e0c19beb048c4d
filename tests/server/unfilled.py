"""The server without its own transfers: MLflow's handlers copy to a file and send that.

Run as a process, next to the complete server.
"""

import os

from starlette.types import Receive, Scope, Send
from tracking_server import __main__
from tracking_server.artifacts import transfers


class PassedOn(transfers.ProxiedTransfers):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


transfers.ProxiedTransfers = PassedOn  # type: ignore[misc]
os._exit(__main__.main())
