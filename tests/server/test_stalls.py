"""A client that stops in the middle of a request loses its place."""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from tracking_server.gate.stall_timeout import PIECE, PROGRESS, Stalls

from fake_google.ports import free_port
from tests.reaper import reap_process
from tests.server.exchange import Exchange
from tests.server.process import eventually

PATIENCE = 0.2


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, then responds in as many pieces."""
    pieces = 0
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        pieces += 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(pieces):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def play(app: Any, *steps: Any) -> Exchange:
    """`steps` are bytes of the body, or seconds until the next step; the last one ends it."""

    async def run() -> Exchange:
        exchange = Exchange(Stalls(app, patience=PATIENCE), "POST", "/")
        for step in steps:
            if isinstance(step, bytes):
                exchange.feed(step, more=step is not steps[-1])
            else:
                await asyncio.sleep(step)
        return await exchange.done()

    return asyncio.run(run())


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 5])
@pytest.mark.parametrize("more", [True, False])
def test_a_long_response_is_sent_in_pieces(size: int, more: bool) -> None:
    body = bytes(range(256)) * (size // 256 + 1)

    async def answer(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body[:size], "more_body": more})
        if more:
            await send({"type": "http.response.body", "body": b"end"})

    _, *parts = play(answer, b"").sent
    assert b"".join(part["body"] for part in parts) == body[:size] + b"end" * more
    assert max(len(part["body"]) for part in parts) <= PIECE
    assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [False]


def status(exchange: Exchange) -> int:
    return int(exchange.sent[0]["status"])


@pytest.mark.parametrize("steps", [(), (b"x" * PROGRESS, 2 * PATIENCE)], ids=["nothing", "a start"])
def test_a_stalled_body_is_refused(steps: tuple[Any, ...]) -> None:
    exchange = play(echo, *steps)
    assert status(exchange) == 408
    # Otherwise a later time limit in the same task would take the cancellation for its own.
    assert exchange.task.cancelling() == 0


def test_drops_are_no_progress() -> None:
    drops = 20
    exchange = play(echo, *(step for _ in range(drops) for step in (b"x", PATIENCE / 4)))
    assert status(exchange) == 408
    assert exchange.taken < drops


def test_a_slow_body_is_read() -> None:
    piece = b"x" * PROGRESS
    steps = [step for _ in range(6) for step in (piece, PATIENCE / 2)]
    assert status(play(echo, *steps, b"end")) == 200


def test_the_servers_own_time_does_not_count() -> None:
    async def thinks(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3 * PATIENCE)
        await echo(scope, receive, send)

    assert status(play(thinks, b"all")) == 200


def test_an_unread_response_is_ended() -> None:
    async def run() -> None:
        exchange = Exchange(Stalls(echo, patience=PATIENCE), "GET", "/")
        exchange.feed(b"x", b"x", b"x", more=False)
        exchange.stop_taking(after=1)
        with pytest.raises(ClientDisconnect):
            await exchange.done()

    asyncio.run(run())


def test_a_cancellation_reaches_the_application() -> None:
    async def run() -> None:
        exchange = Exchange(Stalls(echo, patience=60), "POST", "/")
        await asyncio.sleep(0)
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task

    asyncio.run(run())


SERVING = """
import sys
from tracking_server.serve import server as serve

class App:
    async def asgi(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(64 * 1024 * 1024)})

    async def is_ready_early(self):
        return False

    async def start(self):
        pass

    stop = start

serve.UNREAD = 1
serve.run(App(), address="127.0.0.1", port=int(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no TCP_USER_TIMEOUT")
def test_an_unread_connection_ends_after_its_request_has_ended() -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", SERVING, str(port)]) as server:
        reap_process(server.pid)
        try:
            connected(port).close()
            time.sleep(1)  # connections before the option is set don't have it
            with connected(port) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert eventually(lambda: established(port) == 1)
                assert eventually(lambda: established(port) == 0)
        finally:
            server.terminate()


def established(port: int) -> int:
    """Returns the kernel's connections of the server; a client doesn't notice when one ends."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1:4] for line in lines]
    return sum(local.endswith(f":{port:04X}") and state == "01" for local, _, state in ends)


def connected(port: int) -> socket.socket:
    until = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
