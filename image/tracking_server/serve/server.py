"""One process that answers HTTP/1.1 and, as Cloud Run's front end speaks it, h2c.

granian's embedded server: its own command starts a second process, the worker.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

import uvloop
from granian.constants import Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server
from starlette.types import ASGIApp

SHUTDOWN_DEADLINE = 8.0
"""Seconds for the requests that run at SIGTERM; Cloud Run ends the container after ten:
https://cloud.google.com/run/docs/container-contract#instance-shutdown"""

MAX_HEADERS = 64 * 1024
"""Bytes of a request's headers over HTTP/2."""

CONNECTIONS = 8192
"""Connections of a process. On Cloud Run they are Google's; elsewhere idle ones would keep everyone
else out."""

STREAMS = 200
"""Requests at a time on one HTTP/2 connection."""

WINDOW = 512 * 1024
"""Bytes of a request's body over HTTP/2 that may wait until they are read."""

SEND_BUFFER = 128 * 1024
"""Bytes of an answer over HTTP/2 that are written before the client takes them."""

UNREAD = 60
"""Seconds after which the kernel ends a connection whose client takes nothing of what was sent.
Until then the connection holds up to a megabyte, also after its request has ended."""

log = logging.getLogger(__name__)


def run(app: ASGIApp, *, address: str, port: int, close: Callable[[], Awaitable[None]]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs and close what the app has open.

    Raises:
        RuntimeError: if the server ends by itself.
    """
    uvloop.run(_serve(app, address, port, close))


async def _end_unread_connections(port: int) -> None:
    """Set TCP_USER_TIMEOUT for the connections to come, which have it from the socket that listens.

    https://man7.org/linux/man-pages/man7/tcp.7.html
    """
    for _ in range(100 if sys.platform == "linux" else 0):
        if listening := _listening(port):
            with listening:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD * 1000)
            return
        await asyncio.sleep(0.01)


def _listening(port: int) -> socket.socket | None:
    """This process's socket that listens there. granian doesn't show it."""
    for name in os.listdir("/proc/self/fd"):
        try:
            duplicate = os.dup(int(name))
        except OSError:
            continue
        try:
            opened = socket.socket(fileno=duplicate)
        except OSError:
            os.close(duplicate)
            continue
        listens = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and opened.getsockname()[1] == port:
            return opened
        opened.close()
    return None


async def _serve(
    app: ASGIApp, address: str, port: int, close: Callable[[], Awaitable[None]]
) -> None:
    server = Server(
        app,
        address=address,
        port=port,
        interface=Interfaces.ASGI,
        backlog=1024,
        backpressure=CONNECTIONS,
        http2_settings=HTTP2Settings(
            # As over HTTP/1.1, and not the 16 MiB that are granian's default.
            max_headers_size=MAX_HEADERS,
            # So that a body that isn't read keeps back no other one on its connection.
            max_concurrent_streams=STREAMS,
            initial_stream_window_size=WINDOW,
            initial_connection_window_size=STREAMS * WINDOW,
            max_send_buffer_size=SEND_BUFFER,
        ),
        # The gate closes websockets anyway; here the handshake isn't even begun.
        websockets=False,
        log_enabled=False,
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stopped.wait())
    await _end_unread_connections(port)
    log.info("serving on %s:%d", address, port)
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stopping.cancel()
        raise RuntimeError("the HTTP server has ended by itself") from serving.exception()
    log.info("stopping: no new connections, finishing what runs")
    server.stop()
    done, _ = await asyncio.wait({serving}, timeout=SHUTDOWN_DEADLINE)
    if not done:
        log.warning("stopping: requests still ran after %.0f s and are cut", SHUTDOWN_DEADLINE)
    await close()
