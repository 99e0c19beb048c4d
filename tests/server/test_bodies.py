"""All bodies together stay within their room, which is free again after each request."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from tracking_server.gate import body_limits
from tracking_server.gate.body_limits import (
    SMALL,
    SMALL_TOGETHER,
    UNTOLD,
    Bodies,
    Limits,
    Room,
    TooMuch,
)

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
async def test_a_body_reserves_its_own_size(body: bytes, fit: int, told: bool) -> None:
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


def posted(bodies: Bodies, body: bytes, *, whole: bool = True, told: bool = True) -> Exchange:
    headers = {"Content-Length": str(len(body))} if told else {}
    exchange = Exchange(bodies, "POST", "/", headers=headers, http_version="2")
    exchange.feed(body, more=not whole)
    return exchange


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("end", ["answered", "left", "stopped"])
async def test_the_room_is_free_again_however_a_request_ends(end: str, told: bool) -> None:
    app = Waiting()
    bodies = Bodies(app, user=LIMITS)
    for _ in range(4):
        app.go_on.clear()
        exchange = posted(bodies, b"x" * 2 * UNTOLD, whole=end != "left", told=told)
        if end == "left":
            exchange.disconnect()
            with pytest.raises(ClientDisconnect):
                await exchange.done()
            continue
        await app.read.acquire()
        if end == "stopped":
            exchange.task.cancel()
            await asyncio.gather(exchange.task, return_exceptions=True)
        else:
            app.go_on.set()
            assert (await exchange.done()).status == 200
    assert bodies._users_room._free == LIMITS.together


async def test_bodies_wait_for_room_in_turn() -> None:
    app = Waiting()
    bodies = Bodies(app, user=LIMITS)
    first = posted(bodies, b"1" * 2 * UNTOLD)
    await app.read.acquire()
    second = posted(bodies, b"2" * 2 * UNTOLD)
    # It would fit, but its turn is after the second one's.
    third = posted(bodies, b"3" * UNTOLD)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(app.bodies) == 1
    second.task.cancel()
    async with asyncio.timeout(5):
        await app.read.acquire()
    assert [body[:1] for body in app.bodies] == [b"1", b"3"]
    app.go_on.set()
    for exchange in (first, third):
        assert (await exchange.done()).status == 200
    assert bodies._users_room._free == LIMITS.together


async def test_a_small_body_does_not_wait_behind_large_ones() -> None:
    app = Waiting()
    bodies = Bodies(app, user=LIMITS)
    large = [posted(bodies, b"1" * 2 * UNTOLD) for _ in range(2)]
    await app.read.acquire()
    small = [posted(bodies, b"s" * SMALL) for _ in range(SMALL_TOGETHER // SMALL)]
    async with asyncio.timeout(5):
        for _ in small:
            await app.read.acquire()
    # Without a place left among the small ones, it waits like a large one.
    small.append(posted(bodies, b"s"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(app.bodies) == len(small)
    app.go_on.set()
    for exchange in (*large, *small):
        assert (await exchange.done()).status == 200
    assert bodies._users_room._free == LIMITS.together
    assert bodies._users_small._free == SMALL_TOGETHER


async def test_a_body_that_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "WAITING", 0.05)
    app = Waiting()
    bodies = Bodies(app, user=LIMITS)
    first = posted(bodies, b"1" * 2 * UNTOLD)
    await app.read.acquire()
    second = await posted(bodies, b"2" * 2 * UNTOLD).done()
    assert second.status == 503
    assert "retry-after" in second.headers
    app.go_on.set()
    assert (await first.done()).status == 200
    assert bodies._users_room._free == LIMITS.together


async def test_a_body_that_grows_beyond_the_room_does_not_wait() -> None:
    app = Waiting()
    bodies = Bodies(app, user=LIMITS)
    first = posted(bodies, b"1" * 2 * UNTOLD)
    await app.read.acquire()
    growing = posted(bodies, b"2" * UNTOLD, whole=False, told=False)
    growing.feed(b"2", more=False)
    assert (await growing.done()).status == 503
    app.go_on.set()
    assert (await first.done()).status == 200
    assert bodies._users_room._free == LIMITS.together


async def test_a_turn_that_comes_to_a_caller_who_has_just_left_is_passed_on() -> None:
    room = Room(1)
    await room.reserve(1)
    left, waits = (asyncio.create_task(room.reserve(1)) for _ in range(2))
    await asyncio.sleep(0)
    room.free(1)
    left.cancel()
    async with asyncio.timeout(5):
        await waits
    with pytest.raises(TooMuch):
        room.extend(1)
    room.free(1)
    room.extend(1)


async def test_room_is_handed_out_in_order_of_arrival() -> None:
    room = Room(3)
    await room.reserve(2)
    large, small = (asyncio.create_task(room.reserve(size)) for size in (2, 1))
    for _ in range(3):
        await asyncio.sleep(0)
    # There is room for the small one, but it came later.
    assert not small.done()
    room.free(2)
    async with asyncio.timeout(5):
        await asyncio.gather(large, small)
    with pytest.raises(TooMuch):
        room.extend(1)
