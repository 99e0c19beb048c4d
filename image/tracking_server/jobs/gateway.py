"""The gateway of MLflow that the worker's jobs call, on this computer only.

The server's own may be behind Identity-Aware Proxy or in a network, and a job has no login.
"""

import asyncio
import hmac
import logging
import signal
import socket
from base64 import b64encode
from threading import Event, Thread

from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.gate.callbacks import GATEWAY, Callbacks
from tracking_server.gate.refusals import refuse
from tracking_server.jobs.process import GATEWAY_USERNAME

HOST = "127.0.0.1"

log = logging.getLogger(__name__)


class JobsGateway:
    """Lets the worker's jobs, and guardrails that call back, use the gateway and nothing else."""

    def __init__(self, app: ASGIApp, *, password: str, callbacks: Callbacks) -> None:
        self._app, self._callbacks = app, callbacks
        self._login = b"Basic " + b64encode(f"{GATEWAY_USERNAME}:{password}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted = self._callbacks.accepted(scope) or self._with_login(scope)
        if accepted is None:
            await refuse(send, 401, "Only the jobs of this worker use this gateway")
            return
        self._callbacks.offer(accepted)
        await self._app(accepted, receive, send)

    def _with_login(self, scope: Scope) -> Scope | None:
        """Returns the request without its login, None if it has no valid login."""
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not scope["path"].startswith(GATEWAY) or not hmac.compare_digest(given, self._login):
            return None
        headers = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
        return {**scope, "headers": headers}


def free_port() -> int:
    """Returns a port of this computer that nothing uses."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


async def serve(app: ASGIApp, *, port: int, stopping: Event, jobs: Thread) -> None:
    """Serve until SIGTERM or SIGINT, and until the thread that runs the jobs has ended after it.

    The server itself ends with the process, because a model may not have responded yet.

    Raises:
        RuntimeError: if the server or the thread stops without a signal.
    """
    server = Server(
        app, address=HOST, port=port, interface=Interfaces.ASGI, websockets=False, log_enabled=False
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(server.serve())
    waiting = asyncio.create_task(stopped.wait())
    running = asyncio.create_task(asyncio.to_thread(jobs.join))
    await asyncio.wait({serving, waiting, running}, return_when=asyncio.FIRST_COMPLETED)
    stopping.set()
    if not stopped.is_set():
        raise RuntimeError("the worker has stopped unexpectedly")
    log.info("stopping: no new jobs, a few seconds for those that run")
    await running
