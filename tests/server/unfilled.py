"""The server without its own transfers: MLflow's handlers send what they copied to a file.

Run as a process, beside the whole server.
"""

import os

from starlette.types import ASGIApp
from tracking_server import __main__, transfers


def passed_on(app: ASGIApp, root: str) -> ASGIApp:
    return app


transfers.ProxiedTransfers = passed_on  # type: ignore[assignment,misc]
os._exit(__main__.main())
