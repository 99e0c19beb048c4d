"""An instance with several CPUs runs a process for each, and looks like one server."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from fake_google.sql.postgres import Postgres
from tests.server.conftest import StartServer
from tests.server.process import Server

PROCESSES, POOL = 3, 14


@pytest.fixture
def server(fork: StartServer, environment: dict[str, str]) -> Server:
    return fork(
        environment
        | {"WEB_CONCURRENCY": str(PROCESSES), "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": str(POOL)}
    ).ready()


def serving(server: Server) -> list[int]:
    """Wait until all processes have booted, and return them."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if sum("serving on" in entry["message"] for entry in server.entries()) == PROCESSES:
            break
        time.sleep(0.05)
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    found = [int(child) for child in children.read_text().split()]
    assert len(found) == PROCESSES
    return found


def processor_ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def load(server: Server) -> None:
    # One connection for each request, because the kernel distributes connections.
    def ask(_: int) -> int:
        with server.client() as client:
            return client.get("/api/2.0/mlflow/experiments/get?experiment_id=0").status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(150))) == {200}


def test_each_process_serves_shares_the_connections_and_ends_cleanly(
    server: Server, postgres: Postgres, database_url: str
) -> None:
    children = serving(server)
    before = {child: processor_ticks(child) for child in children}
    load(server)
    assert all(processor_ticks(child) > before[child] for child in children)
    name = make_url(database_url).database
    connection = postgres.connection()
    [[held]] = connection.run(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = :name", name=name
    )
    connection.close()
    assert PROCESSES <= held <= POOL // PROCESSES * PROCESSES
    assert server.stop() == 0
    stopped = [entry for entry in server.entries() if entry["message"] == "stopped"]
    assert len(stopped) == PROCESSES


def test_all_processes_end_if_one_dies(server: Server) -> None:
    children = serving(server)
    os.kill(children[0], signal.SIGKILL)
    assert server.process.wait(timeout=20) == 1
    assert "has exited unexpectedly" in server.log()
    for child in children:
        assert not Path(f"/proc/{child}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl, which only Linux has")
def test_no_process_outlives_the_first(server: Server) -> None:
    children = serving(server)
    server.process.kill()
    server.process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
