"""Requests beyond the limit are refused at once and cleanly."""

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest
from mlflow.utils.request_utils import _TRANSIENT_FAILURE_RESPONSE_CODES
from starlette.types import Receive, Scope, Send
from tracking_server.gate import concurrency_limit as admission_module
from tracking_server.gate.callbacks import DEPTH
from tracking_server.gate.concurrency_limit import COME_BACK, SWALLOWED, Admission
from tracking_server.gate.viewer_policy import LOOKING

from tests.server.conftest import StartServer
from tests.server.exchange import Exchange
from tests.server.process import AUTHORIZATION

LIMIT = 3
READ = "/api/2.0/mlflow/experiments/get?experiment_id=0"


class Application:
    """An application that responds when the test tells it to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.reached = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached += 1
        await self.may_answer.wait()
        if scope["path"] == "/broken":
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})
        if scope["path"] == "/goes-on":
            await asyncio.sleep(3600)


def scenario(
    play: Callable[[Application, Admission], Awaitable[None]],
) -> None:
    async def run() -> None:
        application = Application()
        await play(application, Admission(application, limit=LIMIT))

    asyncio.run(asyncio.wait_for(run(), 30))


async def filled(admission: Admission, path: str = "/") -> list[Exchange]:
    running = [Exchange(admission, "POST", path) for _ in range(LIMIT)]
    await asyncio.sleep(0)
    return running


async def refused(admission: Admission) -> bool:
    exchange = Exchange(admission, "POST", "/")
    await asyncio.sleep(0)
    done = exchange.task.done()
    exchange.task.cancel()
    return done and exchange.status == 503


def test_a_request_over_the_limit_is_refused_before_its_body_is_read() -> None:
    async def play(application: Application, admission: Admission) -> None:
        running = await filled(admission)
        large = {"Content-Length": str(SWALLOWED + 1)}
        beyond = Exchange(admission, "POST", "/", headers=large)
        beyond.feed(b"body", more=False)
        await beyond.done()
        assert (beyond.status, beyond.taken) == (503, 0)
        assert beyond.status in _TRANSIENT_FAILURE_RESPONSE_CODES
        first, last = COME_BACK
        assert first <= int(beyond.headers["retry-after"]) <= last
        told = json.loads(beyond.body)
        assert told["error_code"] == "TEMPORARILY_UNAVAILABLE"
        assert "requests, which is the limit" in told["message"]
        assert application.reached == LIMIT
        application.may_answer.set()
        for exchange in running:
            assert (await exchange.done()).body == b"ab"

    scenario(play)


def test_a_refused_small_body_is_discarded_without_waiting_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission_module, "SWALLOWING", 0.1)

    async def play(application: Application, admission: Admission) -> None:
        running = await filled(admission)
        for fed in ((b"bo", b"dy"), (b"bo",)):
            beyond = Exchange(admission, "POST", "/", headers={"Content-Length": "4"})
            beyond.feed(*fed, more=fed == (b"bo",))
            await beyond.done()
            assert (beyond.status, beyond.taken) == (503, len(b"".join(fed)))
        for exchange in running:
            exchange.task.cancel()

    scenario(play)


@pytest.mark.parametrize("path", ["/", "/broken", "/goes-on"])
def test_a_finished_response_frees_its_place(path: str) -> None:
    async def play(application: Application, admission: Admission) -> None:
        running = await filled(admission, path)
        assert await refused(admission)
        application.may_answer.set()
        await asyncio.sleep(0.01)
        again = await filled(admission, path)
        assert application.reached == 2 * LIMIT
        for exchange in running + again:
            exchange.task.cancel()
        await asyncio.gather(*(each.task for each in running + again), return_exceptions=True)

    scenario(play)


def test_an_abandoned_request_frees_its_place() -> None:
    async def play(application: Application, admission: Admission) -> None:
        for exchange in await filled(admission):
            exchange.task.cancel()
        await asyncio.sleep(0)
        assert not await refused(admission)

    scenario(play)


def test_the_probes_are_always_answered() -> None:
    async def play(application: Application, admission: Admission) -> None:
        running = await filled(admission)
        probe = Exchange(admission, "GET", "/health")
        application.may_answer.set()
        assert (await probe.done()).status == 200
        for exchange in running:
            await exchange.done()

    scenario(play)


def looking_at(admission: Admission) -> Exchange:
    """A viewer's request, which starts with the next step of the event loop."""
    before = LOOKING.set(True)
    try:
        return Exchange(admission, "POST", "/")
    finally:
        LOOKING.reset(before)


def test_the_viewer_gets_half_of_the_places_again_and_again() -> None:
    async def play(application: Application, admission: Admission) -> None:
        for _ in range(3):
            application.may_answer.clear()
            viewers = [looking_at(admission) for _ in range(LIMIT // 2 + 1)]
            await asyncio.sleep(0)
            assert [exchange.task.done() for exchange in viewers] == [False, True]
            assert viewers[-1].status == 503
            assert "of the viewer" in json.loads(viewers[-1].body)["message"]
            # The rest is for the user, and no more than that.
            users = [Exchange(admission, "POST", "/") for _ in range(LIMIT - LIMIT // 2 + 1)]
            await asyncio.sleep(0)
            assert [exchange.task.done() for exchange in users] == [False, False, True]
            application.may_answer.set()
            for exchange in viewers[:-1] + users[:-1]:
                assert (await exchange.done()).status == 200

    scenario(play)


def test_a_call_back_belongs_to_a_request_that_has_a_place() -> None:
    async def play(application: Application, admission: Admission) -> None:
        async def called_back(scope: Scope, receive: Receive, send: Send) -> None:
            await admission({**scope, DEPTH: 1}, receive, send)

        running = await filled(admission)
        calls = [Exchange(called_back, "POST", "/") for _ in range(LIMIT)]
        await asyncio.sleep(0)
        assert application.reached == 2 * LIMIT
        application.may_answer.set()
        for exchange in running + calls:
            assert (await exchange.done()).status == 200

    scenario(play)


def test_requests_refused_together_are_not_retried_together() -> None:
    async def play(application: Application, admission: Admission) -> None:
        running = await filled(admission)
        beyond = [await Exchange(admission, "GET", "/").done() for _ in range(100)]
        assert len({exchange.headers["retry-after"] for exchange in beyond}) > 3
        for exchange in running:
            exchange.task.cancel()

    scenario(play)


def test_requests_without_credentials_take_no_place(
    fork: StartServer, environment: dict[str, str]
) -> None:
    server = fork(environment | {"MAX_CONCURRENCY": "1"}).ready()
    path, body = "/api/2.0/mlflow/experiments/create", b'{"name": "first"}'
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {AUTHORIZATION}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with (
        server.client() as user,
        httpx.Client(base_url=server.url) as stranger,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow,
    ):
        for _ in range(5):
            assert stranger.post(path, content=b"{}").status_code == 401
        slow.sendall(head.encode() + body[:5])
        until = time.monotonic() + 20
        while user.get(READ).status_code != 503:
            assert time.monotonic() < until
        assert stranger.post(path, content=b"{}").status_code == 401
        assert stranger.get("/health").status_code == 200
        slow.sendall(body[5:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
        assert user.get(READ).status_code == 200
