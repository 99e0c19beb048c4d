"""As many clients as one instance is declared for, at full speed for minutes; then twice as many.

`CHAOS_MINUTES` sets the duration; the default is 10.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.chaos.report import Row, rows
from tests.chaos.rig import Rig, Server
from tests.process_memory import proportional_memory

MINUTES = float(os.environ.get("CHAOS_MINUTES", "10"))
CLIENTS = 64
CONCURRENCY = 80
"""The stack's default; Cloud Run never sends an instance more requests at once."""
CONNECTIONS = 8
GROWTH = 1.05
RETRIES = 7
"""https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html"""
API = "/api/2.0/mlflow"


@dataclass
class Seen:
    """The responses that clients got."""

    answers: Counter[object] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    cut: int = 0
    """Connections that the server closed. Over HTTP/1.1 it closes one when it refuses an upload
    before it has read the whole body. MLflow's client retries."""
    given_up: int = 0
    acknowledged: set[int] = field(default_factory=set)

    @property
    def refused(self) -> int:
        return self.answers[503]

    @property
    def wrong(self) -> dict[object, int]:
        return {what: n for what, n in self.answers.items() if what not in (200, 503)}


class Team:
    """Clients that each log into their own run, one request after the other."""

    def __init__(self, address: str, headers: dict[str, str], *, polite: bool = True) -> None:
        self._address, self._headers, self._polite = address, headers, polite
        self._steps = itertools.count()

    def work(self, clients: int, seconds: float) -> Seen:
        return asyncio.run(self._work(clients, seconds))

    async def _work(self, clients: int, seconds: float) -> Seen:
        seen = Seen()
        until = time.monotonic() + seconds
        async with aiohttp.ClientSession(
            self._address,
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=60),
        ) as http:
            await asyncio.gather(*(self._client(http, seen, until) for _ in range(clients)))
        return seen

    async def _client(self, http: aiohttp.ClientSession, seen: Seen, until: float) -> None:
        made = await self._made_run(http, seen)
        turns = itertools.cycle(range(20))
        while time.monotonic() < until:
            step = next(self._steps)
            match next(turns):
                case 5:
                    await self._ask(http, seen, "GET", f"{API}/runs/get?run_id={made}")
                case 10:
                    search = {"experiment_ids": ["0"], "max_results": 10}
                    await self._ask(http, seen, "POST", f"{API}/runs/search", json=search)
                case 15:
                    path = f"/api/2.0/mlflow-artifacts/artifacts/held/{made}.bin"
                    await self._ask(http, seen, "PUT", path, data=bytes(100_000))
                case _:
                    metric = {"run_id": made, "key": "held", "value": step, "step": step}
                    body = {**metric, "timestamp": step}
                    if await self._ask(http, seen, "POST", f"{API}/runs/log-metric", json=body):
                        seen.acknowledged.add(step)

    async def _made_run(self, http: aiohttp.ClientSession, seen: Seen) -> str:
        while True:
            async with http.post(f"{API}/runs/create", json={"experiment_id": "0"}) as answer:
                if answer.status == 200:
                    return str((await answer.json())["run"]["info"]["run_id"])
                seen.answers[answer.status] += 1
            await asyncio.sleep(0.1)

    async def _ask(
        self, http: aiohttp.ClientSession, seen: Seen, method: str, path: str, **body: object
    ) -> bool:
        """Send a request as MLflow's client does, which retries a 503 up to seven times."""
        for _ in range(1 + RETRIES):
            started = time.monotonic()
            pause = 0
            try:
                async with http.request(method, path, **body) as answer:  # type: ignore[arg-type]
                    await answer.read()
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                seen.cut += 1
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                seen.answers[type(error).__name__] += 1
                return False
            else:
                seen.answers[answer.status] += 1
                if answer.status != 503:
                    seen.seconds.append(time.monotonic() - started)
                    return answer.status == 200
                seen.without_retry_after += "Retry-After" not in answer.headers
                pause = int(answer.headers.get("Retry-After", 0))
            await asyncio.sleep(pause if self._polite else 0.1)
        seen.given_up += 1
        return False


class Sampler:
    """Samples numbers every second during the load."""

    def __init__(self, **asks: Callable[[], int]) -> None:
        self._asks = asks
        self.found: dict[str, list[int]] = {name: [] for name in asks}

    async def __call__(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            for name, ask in self._asks.items():
                self.found[name].append(await asyncio.to_thread(ask))
            await asyncio.sleep(1)


def memory(server: Server) -> int:
    assert server.process is not None
    return proportional_memory(server.process.pid)


@pytest.fixture(scope="module")
def server(rig: Rig) -> Iterator[Server]:
    with rig.server() as server:
        server.start()
        yield server.ready()


def connections(rig: Rig) -> tuple[Callable[[], int], Callable[[], None]]:
    admin = rig.database.connect()

    def ask() -> int:
        # The stack's own server idles at the same time, in another process of the same name.
        [[number]] = admin.run("SELECT count(*) FROM pg_stat_activity WHERE usename = 'mlflow'")
        return int(number)

    return ask, admin.close


def lost(rig: Rig, seen: Seen) -> set[int]:
    with rig.database.connect() as admin:
        found = {int(step) for [step] in admin.run("SELECT step FROM metrics WHERE key = 'held'")}
    return seen.acknowledged - found


def note(tried: str, seen: Seen, missing: set[int], answers: str) -> None:
    rows.append(
        Row(
            tried=tried,
            acknowledged=seen.answers[200],
            refused=seen.refused,
            lost=len(missing),
            answers=answers,
        )
    )


def test_a_full_instance_holds_its_load(rig: Rig, server: Server) -> None:
    ask, close = connections(rig)
    idle = ask()
    sampler = Sampler(memory=lambda: memory(server), connections=ask)

    async def load() -> Seen:
        stop = asyncio.Event()
        sampling = asyncio.create_task(sampler(stop))
        seen = await asyncio.to_thread(
            Team(server.address, rig.headers).work, CLIENTS, MINUTES * 60
        )
        stop.set()
        await sampling
        return seen

    seen = asyncio.run(load())
    close()
    samples, used = sampler.found["memory"], sampler.found["connections"]
    quarter = len(samples) // 4
    before, after = (
        statistics.mean(samples[quarter : 2 * quarter]),
        statistics.mean(samples[-quarter:]),
    )
    missing = lost(rig, seen)
    speed = seen.answers[200] / (MINUTES * 60)
    note(
        f"{CLIENTS} clients for {MINUTES:g} minutes",
        seen,
        missing,
        f"{speed:.0f} a second, {before / 2**20:.0f} MiB then {after / 2**20:.0f}, "
        f"{max(used) - idle + 1} connections at most",
    )
    assert set(seen.answers) == {200}
    assert seen.cut == 0
    assert not missing
    assert after < before * GROWTH
    # `idle` counts the stack's own server, and one connection from this server's boot.
    assert max(used) <= idle + CONNECTIONS


@pytest.mark.parametrize("polite", [True, False], ids=["polite", "rude"])
def test_twice_the_load_is_refused_cheaply(rig: Rig, server: Server, polite: bool) -> None:
    team = Team(server.address, rig.headers, polite=polite)
    alone = team.work(CLIENTS, 10)
    assert set(alone.answers) == {200}
    crowded = team.work(2 * CONCURRENCY, 30)
    afterwards = team.work(CLIENTS, 10)
    missing = lost(rig, crowded)
    worst = statistics.quantiles(crowded.seconds, n=100)[98]
    before = statistics.quantiles(alone.seconds, n=100)[98]
    kind = "that retry as told" if polite else "that retry at once"
    note(
        f"{2 * CONCURRENCY} clients {kind}",
        crowded,
        missing,
        f"{crowded.given_up} gave up, {crowded.cut} connections cut; p99 of what succeeded "
        f"{worst * 1000:.0f} ms, with {CLIENTS} clients {before * 1000:.0f} ms",
    )
    assert not crowded.wrong
    assert crowded.refused > 0
    assert crowded.without_retry_after == 0
    assert crowded.cut <= crowded.refused / 1000
    assert not missing
    # The server handles about as many requests as before, about as fast: refusals cost little.
    assert crowded.answers[200] / 30 > alone.answers[200] / 10 * 0.5
    assert worst < 4 * before
    assert set(afterwards.answers) == {200}
    assert afterwards.cut == 0
    if polite:
        assert crowded.given_up <= crowded.answers[200] / 1000
