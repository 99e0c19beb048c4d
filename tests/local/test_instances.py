"""Several instances: they share the database and the bucket, and nothing else."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fake_google.ports import free_port
from tests.local.conftest import SERVER, Stack
from tests.reaper import reap_process

SESSION = Path(__file__).with_name("logging_session.py")
INSTANCES, EACH = 4, 4
"""The connections that Cloud SQL's smallest machine has for them: 17 of 25."""


@contextmanager
def further_instance(environment: dict[str, str], folder: Path) -> Iterator[int]:
    """Another container of the same revision, started as Cloud Run would."""
    port = free_port()
    with (folder / f"instance-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [SERVER, "-m", "tracking_server"],
            env={**environment, "PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    reap_process(process.pid)
    try:
        yield port
    finally:
        process.terminate()
        assert process.wait(20) == 0


class RoundRobin:
    """Passes each request to the next instance, whatever connection it came through."""

    def __init__(self, ports: list[int]) -> None:
        self._turns = cycle(ports)
        self.answers: Counter[tuple[int, int]] = Counter()

    async def handle(self, request: web.Request) -> web.Response:
        port = next(self._turns)
        async with self._http.request(
            request.method,
            f"http://127.0.0.1:{port}{request.raw_path}",
            headers={**request.headers, "Host": "localhost"},
            data=await request.read(),
        ) as answer:
            body = await answer.read()
        self.answers[port, answer.status] += 1
        passed_on = {
            name: value
            for name, value in answer.headers.items()
            if name not in ("Content-Length", "Transfer-Encoding", "Connection", "Date", "Server")
        }
        return web.Response(status=answer.status, body=body, headers=passed_on)

    @contextmanager
    def serving(self) -> Iterator[str]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        address = asyncio.run_coroutine_threadsafe(self._start(), loop).result(30)
        try:
            yield address
        finally:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), loop).result(30)
            asyncio.run_coroutine_threadsafe(self._http.close(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _start(self) -> str:
        self._http = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{path:.*}", self.handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"


def test_four_instances_lose_no_data_and_no_connection_is_refused(own_stack: Stack) -> None:
    """They also have a private database and a Cloud KMS key."""
    own_stack.config = (
        f"maxInstances={INSTANCES}",
        f"databaseConnections={EACH}",
        "network=private",
        "kmsKey=projects/keys-of-all/locations/us-central1/keyRings/ring/cryptoKeys/mlflow",
    )
    started = own_stack.up()
    assert started.returncode == 0, started.stdout + started.stderr
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, which this system does not have")
    processes = json.loads((own_stack.folder / "processes.json").read_text())
    environ = Path("/proc", str(processes["server mlflow"]["pid"]), "environ").read_text()
    environment = dict(entry.split("=", 1) for entry in environ.split("\0") if entry)
    with ExitStack() as further:
        ports = [own_stack.port] + [
            further.enter_context(further_instance(environment, own_stack.folder))
            for _ in range(INSTANCES - 1)
        ]
        logs = [own_stack.folder / "log" / "server.log", *own_stack.folder.glob("instance-*.log")]
        deadline = time.monotonic() + 60
        while not all("serving on" in log.read_text() for log in logs):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.1)
        robin = RoundRobin(ports)
        with robin.serving() as address:
            ran = own_stack.client(str(SESSION), MLFLOW_TRACKING_URI=address)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {"runs": 40, "lost": []}
    assert {port for port, _ in robin.answers} == set(ports)
    assert not [answer for answer in robin.answers if answer[1] >= 500]
    [database] = (own_stack.folder / "log").glob("mlflow-*.log")
    refused = [line for line in database.read_text().splitlines() if "FATAL" in line]
    # PostgreSQL sends this to a client that checks whether it is ready yet.
    assert [line for line in refused if "is starting up" not in line] == []
