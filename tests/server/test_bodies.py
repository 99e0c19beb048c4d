"""Only requests with a body reserve room for one."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send
from tracking_server.gate.body_limits import UNTOLD, Bodies, Limits

from tests.server.exchange import Exchange

LIMITS = Limits(size=2 * UNTOLD, values=100, together=3 * UNTOLD)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Waiting:
    """An application that has read the body and continues to work."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.read = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        self.bodies.append((await receive())["body"])
        self.read.release()
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("body", "fit"), [(b"", 200), (b"x" * 1000, 200), (b"x" * UNTOLD, 3), (b"x" * 2 * UNTOLD, 1)]
)
@pytest.mark.parametrize("told", [True, False])
async def test_a_body_takes_its_own_size(body: bytes, fit: int, told: bool) -> None:
    """Over HTTP/2 a request may omit the length, and most of those without a body do."""
    app = Waiting()
    bodies = Bodies(app, user=LIMITS)
    headers = {"Content-Length": str(len(body))} if told and body else {}
    exchanges = []
    for _ in range(fit):
        exchange = Exchange(bodies, "POST", "/", headers=headers, http_version="2")
        exchange.feed(body, more=False)
        exchanges.append(exchange)
    async with asyncio.timeout(10):
        for _ in range(fit):
            await app.read.acquire()
    assert set(app.bodies) == {body}
    app.go_on.set()
    for exchange in exchanges:
        assert (await exchange.done()).status == 200
