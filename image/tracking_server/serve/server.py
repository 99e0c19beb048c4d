"""The HTTP server of one process, for HTTP/1.1 and h2c, which Cloud Run's front end speaks.

It is granian's embedded server, because granian's own command starts a second process, the worker.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from typing import Protocol

import uvloop
from granian.constants import Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server
from starlette.types import ASGIApp

SHUTDOWN_DEADLINE = 8.0
"""Seconds for the requests in progress at SIGTERM; Cloud Run ends the container after ten:
https://cloud.google.com/run/docs/container-contract#instance-shutdown"""

MAX_HEADERS = 64 * 1024
"""Bytes of a request's headers over HTTP/2."""

CONNECTIONS = 8192
"""Connections of a process. On Cloud Run they come from Google's front end. Elsewhere, with a low
limit, idle connections would keep everyone else out."""

STREAMS = 200
"""Requests at a time on one HTTP/2 connection."""

WINDOW = 512 * 1024
"""Bytes of a request's body over HTTP/2 that may wait to be read."""

SEND_BUFFER = 128 * 1024
"""Bytes of a response over HTTP/2 that are buffered for a client that doesn't read them yet."""

UNREAD = 60
"""Seconds after which the kernel ends a connection whose client doesn't read what was sent. Until
then the connection holds up to a megabyte, even after its request has ended."""

log = logging.getLogger(__name__)


class App(Protocol):
    """An application that may go on starting while it already handles requests."""

    asgi: ASGIApp

    async def is_ready_early(self) -> bool:
        """Whether to accept requests before `start` has finished."""

    async def start(self) -> None:
        """Finish the start."""

    async def stop(self) -> None:
        """Close what is open."""


def run(app: App, *, address: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then finish the requests in progress.

    Raises:
        RuntimeError: if the server stops without a signal.
        Exception: if the app doesn't start.
    """
    uvloop.run(_serve(app, address, port))


async def _end_unread_connections(port: int) -> None:
    """Set TCP_USER_TIMEOUT on the listening socket; new connections inherit it.

    https://man7.org/linux/man-pages/man7/tcp.7.html
    """
    for _ in range(100 if sys.platform == "linux" else 0):
        if listening := _listening(port):
            with listening:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD * 1000)
            return
        await asyncio.sleep(0.01)


def _listening(port: int) -> socket.socket | None:
    """Returns this process's socket that listens on the port, which granian doesn't expose."""
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


async def _serve(app: App, address: str, port: int) -> None:
    server = Server(
        app.asgi,
        address=address,
        port=port,
        interface=Interfaces.ASGINL,
        backlog=1024,
        backpressure=CONNECTIONS,
        http2_settings=HTTP2Settings(
            # The same as over HTTP/1.1; granian's default is 16 MiB.
            max_headers_size=MAX_HEADERS,
            # So that an unread body doesn't block the other ones on its connection.
            max_concurrent_streams=STREAMS,
            initial_stream_window_size=WINDOW,
            initial_connection_window_size=STREAMS * WINDOW,
            max_send_buffer_size=SEND_BUFFER,
        ),
        # The gate closes websockets anyway; this also avoids the handshake.
        websockets=False,
        log_enabled=False,
    )
    starting = asyncio.create_task(app.start())
    if not await app.is_ready_early():
        await starting
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stopped.wait())
    await _end_unread_connections(port)
    log.info("serving on %s:%d", address, port)
    ending = {serving, stopping}
    await asyncio.wait({*ending, starting}, return_when=asyncio.FIRST_COMPLETED)
    failed = starting.exception() if starting.done() else None
    if not failed:
        await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        raise RuntimeError("the HTTP server has stopped unexpectedly") from serving.exception()
    log.info("stopping: no new connections, finishing the requests in progress")
    server.stop()
    done, _ = await asyncio.wait({serving}, timeout=SHUTDOWN_DEADLINE)
    if not done:
        log.warning("stopping: requests still running after %.0f s are cut off", SHUTDOWN_DEADLINE)
    await app.stop()
    if failed:
        raise failed
