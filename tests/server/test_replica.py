"""A viewer reads from the replica, which is behind; whoever writes finds what has been written."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from tracking_server import database, driver, schema
from tracking_server import replica as replicas
from tracking_server.outage import DatabaseUnavailable
from tracking_server.pool import NestingPool
from tracking_server.replica import ReplicaPool
from tracking_server.viewing import LOOKING

from local.postgres import Postgres
from local.state import State
from tests.server.conftest import CONNECTION_NAME, StartServer
from tests.server.google import Google
from tests.server.process import PASSWORD, USER, Server
from tests.server.test_outage import Wire, wire

LAG = 1.0
REPLICA = "my-project:us-central1:mlflow-replica"
VIEWER = ("viewer", "canary-viewer")


@pytest.fixture
def standby(tmp_path: Path, postgres: Postgres, cloudsql_root: Path) -> Iterator[Postgres]:
    """PostgreSQL's own streaming replication, with a lag as of a busy replica."""
    state = State(tmp_path / "standby")
    state.create()
    settings = replace(
        postgres.settings,
        connection_name=REPLICA,
        flags=(("recovery_min_apply_delay", f"{LAG * 1000:.0f}ms"),),
    )
    running = Postgres(state=state, settings=settings, say=print, primary=postgres)
    link = cloudsql_root / REPLICA / ".s.PGSQL.5432"
    try:
        running.start()
        link.parent.mkdir()
        link.symlink_to(running.socket())
        yield running
    finally:
        running.stop()
        state.clean()
        link.unlink(missing_ok=True)
        link.parent.rmdir()


@pytest.fixture
def with_replica(environment: dict[str, str], google: Google, standby: Postgres) -> dict[str, str]:
    viewer = {
        f"VIEWER_{part}_SECRET": google.store(value)
        for part, value in zip(("USERNAME", "PASSWORD"), VIEWER, strict=True)
    }
    return {**environment, **viewer, "DATABASE_REPLICA": REPLICA}


@pytest.fixture
def server(with_replica: dict[str, str], start: StartServer) -> Server:
    server = start(with_replica).ready()
    # What the boot has made of the empty database is there.
    time.sleep(2 * LAG)
    return server


HASTY = """\
import runpy

from tracking_server import database, driver, replica

database.CONNECT_TIMEOUT = driver.PING_TIMEOUT = 1.0
replica.PATIENCE, replica.ANSWER, replica.AWAY = 0.5, 1.5, 1.0
runpy.run_module("tracking_server", run_name="__main__")
"""


@pytest.fixture
def hasty_server(with_replica: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """With limits that a test can wait for."""
    (tmp_path / "hasty.py").write_text(HASTY)
    server = Server(with_replica, tmp_path, module="hasty")
    try:
        server.ready()
        time.sleep(2 * LAG)
        yield server
    finally:
        server.stop()


@contextmanager
def hung(postgres: Postgres) -> Iterator[None]:
    """Takes connections, as the kernel does that for it, and says nothing."""
    assert postgres._child is not None
    processes = [postgres._child.pid]
    # First the one that starts the others.
    os.kill(processes[0], signal.SIGSTOP)
    listed = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True)
    processes += [
        int(pid)
        for pid, parent in (line.split() for line in listed.splitlines())
        if int(parent) == processes[0]
    ]
    try:
        for process in processes[1:]:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def post(client: httpx.Client, what: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/api/2.0/mlflow/{what}", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def script(client: httpx.Client, name: str) -> str:
    """What every training does: each step finds what the one before has made."""
    experiment = str(post(client, "experiments/create", name=name)["experiment_id"])
    seen = client.get("/api/2.0/mlflow/experiments/get", params={"experiment_id": experiment})
    assert seen.status_code == 200, seen.text
    run = post(client, "runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
    post(client, "runs/log-metric", run_id=run, key="loss", value=0.5, timestamp=1, step=0)
    found = post(client, "runs/search", experiment_ids=[experiment])["runs"]
    assert found[0]["data"]["metrics"][0]["value"] == 0.5
    return experiment


def test_a_viewer_reads_from_the_replica_and_nobody_else_does(
    server: Server, standby: Postgres
) -> None:
    with server.client() as user, server.client() as viewer:
        viewer.auth = httpx.BasicAuth(*VIEWER)

        def sees(experiment: str) -> int:
            asked = {"experiment_id": experiment}
            return viewer.get("/api/2.0/mlflow/experiments/get", params=asked).status_code

        for number in range(5):
            experiment = script(user, f"trained-{number}")
        assert sees(experiment) == 404
        until = time.monotonic() + 10 * LAG
        while sees(experiment) == 404 and time.monotonic() < until:
            time.sleep(LAG / 10)
        assert sees(experiment) == 200
        refused = viewer.post("/api/2.0/mlflow/experiments/create", json={"name": "not theirs"})
        assert refused.status_code == 403

        # Without it the primary has all there is, at once.
        standby.stop()
        answers = {sees(script(user, f"trained-alone-{number}")) for number in range(3)}
        # What was on its way to the replica may be asked again.
        assert answers <= {200, 503}
        assert sees(script(user, "trained-last")) == 200
    said = [e["message"] for e in server.entries() if "the replica is away" in e["message"]]
    assert len(said) == 1


def test_a_replica_that_hangs_keeps_nobody_long_and_who_trains_not_at_all(
    hasty_server: Server, standby: Postgres
) -> None:
    def ask(who: tuple[str, str], experiment: str = "0") -> tuple[int, float]:
        with hasty_server.client() as client:
            found = client.get(
                "/api/2.0/mlflow/experiments/get", params={"experiment_id": experiment}, auth=who
            )
        return found.status_code, time.monotonic()

    def sees_what_is_made_at_once(name: str) -> bool:
        with hasty_server.client() as user:
            made = post(user, "experiments/create", name=name)
        status, _ = ask(VIEWER, made["experiment_id"])
        assert status in (200, 404)
        return status == 200

    assert ask(VIEWER)[0] == 200
    assert not sees_what_is_made_at_once("before")
    viewers, pool_size = 24, 4
    with ThreadPoolExecutor(2 * viewers) as executor, hung(standby):
        first = [executor.submit(ask, VIEWER) for _ in range(viewers)]
        time.sleep(0.2)
        training = [executor.submit(ask, (USER, PASSWORD)).result() for _ in range(3)]
        answers = [each.result() for each in first]
        assert {status for status, _ in training} == {200}
        # Every one of the viewers was still waiting then.
        assert max(at for _, at in training) < min(at for _, at in answers)
        # Whose statement was cut in the middle may ask again.
        statuses = [status for status, _ in answers]
        assert set(statuses) <= {200, 503}
        assert statuses.count(503) <= pool_size
        # Those who come now find the primary, also while the replica is asked again.
        until = time.monotonic() + 2
        while time.monotonic() < until:
            again = executor.map(ask, [VIEWER] * viewers)
            assert {status for status, _ in again} == {200}
        assert sees_what_is_made_at_once("meanwhile")
    until = time.monotonic() + 20
    number = 0
    while sees_what_is_made_at_once(f"after-{number}") and time.monotonic() < until:
        number += 1
        time.sleep(0.2)
    assert not sees_what_is_made_at_once("last")
    said = [e["message"] for e in hasty_server.entries() if "the viewer reads" in e["message"]]
    assert len(said) == 2, said
    assert "the replica is away" in said[0]
    assert "from the replica again" in said[1]


@pytest.fixture
def pools(
    database_url: str, cloudsql_root: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator["Pools"]:
    """A viewer's way to a database that is its own replica, to which a wire leads."""
    for name, seconds in (("PATIENCE", 0.1), ("ANSWER", 0.5), ("AWAY", 0.5)):
        monkeypatch.setattr(replicas, name, seconds)
    monkeypatch.setattr(database, "CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(database, "_shared_pool", None)
    primary = f"{cloudsql_root}/{CONNECTION_NAME}/.s.PGSQL.5432"
    with wire(postgres) as (between, root):
        database.connect_with(
            make_url(database_url).update_query_dict({"unix_sock": primary}),
            pool_size=4,
            cloudsql_root=str(root),
            replica=CONNECTION_NAME,
        )
        once = database.single_connection_engine()
        schema.ensure(once, deadline=5)
        once.dispose()
        engine = create_engine(database.PLUGIN_URL)
        pool = engine.pool
        assert isinstance(pool, ReplicaPool)
        assert isinstance(pool.replica, NestingPool)
        before = LOOKING.set(True)
        yield engine, pool, pool.replica, between
        LOOKING.reset(before)
        database.close_pool()


Pools = tuple[Engine, ReplicaPool, NestingPool, Wire]


@pytest.mark.parametrize("has_connections_left", [True, False])
def test_a_long_search_is_not_taken_for_a_replica_that_hangs(
    pools: Pools, monkeypatch: pytest.MonkeyPatch, *, has_connections_left: bool
) -> None:
    engine, _, replica, _ = pools
    asked = 0
    ask = replicas._open_another

    def ask_and_count(pool: NestingPool) -> None:
        nonlocal asked
        asked += 1
        if not has_connections_left:
            raise driver.DatabaseError({"C": "53300", "M": "too many clients already"})
        ask(pool)

    monkeypatch.setattr(replicas, "_open_another", ask_and_count)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(1)"))
        assert replica.checkedout() == 1
    assert asked > 1
    with engine.connect():
        assert replica.checkedout() == 1


def test_a_statement_that_is_not_answered_is_cut_and_the_next_is_the_primarys(
    pools: Pools, caplog: pytest.LogCaptureFixture
) -> None:
    engine, primary, replica, between = pools
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        between.cut()
        with pytest.raises(DatabaseUnavailable):
            connection.execute(text("SELECT :n"), {"n": 1})
    assert "no answer within 0.5 s" in caplog.text
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
            assert (primary.checkedout(), replica.checkedout()) == (1, 0)
        # Long enough for it to be asked again, and found away still.
        time.sleep(2 * replicas.AWAY)
    between.mend()
    until = time.monotonic() + 5
    found = 0
    while not found and time.monotonic() < until:
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
            found = replica.checkedout()
        time.sleep(0.05)
    assert found == 1


def test_who_waits_for_a_replica_that_is_found_away_goes_on_to_the_primary(pools: Pools) -> None:
    engine, primary, replica, between = pools

    def look() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT 1")).scalar_one())

    # As many as may, and one that waits behind them.
    with engine.connect() as connection, ThreadPoolExecutor(1) as executor:
        connection.execute(text("SELECT 1"))
        between.cut()
        started = time.monotonic()
        assert executor.submit(copy_context().run, look).result() == 1
        assert time.monotonic() - started < replica.timeout() / 2
    assert primary.checkedout() == 0


def test_a_replica_that_is_busy_is_not_away(pools: Pools) -> None:
    engine, primary, replica, _ = pools
    replica._timeout = 0.5
    with engine.connect(), ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(copy_context().run, engine.connect)
        with pytest.raises(DatabaseUnavailable, match="no connection of 4 became free"):
            waiting.result()
        assert primary.checkedout() == 0


def test_who_holds_one_of_the_primarys_waits_for_none_of_the_replicas(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, primary, replica, _ = pools
    monkeypatch.setattr(primary, "_away", True)
    monkeypatch.setattr(primary, "_ask_at", time.monotonic() + 60)
    with engine.connect():
        monkeypatch.setattr(primary, "_away", False)
        with engine.connect():
            assert (primary.checkedout(), replica.checkedout()) == (2, 0)
    with engine.connect():
        assert (primary.checkedout(), replica.checkedout()) == (0, 1)


def test_a_connection_that_hangs_while_its_schema_is_looked_at(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, replica, between = pools
    connection = replica.connect()
    raw = connection.dbapi_connection
    assert isinstance(raw, driver.Connection)
    replicas.check_schema(raw)
    assert raw._usock.gettimeout() == database.ANSWER_TIMEOUT
    between.cut()
    started = time.monotonic()
    with pytest.raises(driver.InterfaceError):
        replicas.check_schema(raw)
    assert time.monotonic() - started < 5
    connection.close()


@pytest.mark.parametrize("found", ["nothing", "an older schema", "the server's"])
def test_a_replica_that_has_not_the_schema_yet_is_not_asked(
    database_url: str,
    cloudsql_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    found: str,
) -> None:
    monkeypatch.setattr(database, "_shared_pool", None)
    database.connect_with(
        make_url(database_url),
        pool_size=4,
        cloudsql_root=str(cloudsql_root),
        replica=CONNECTION_NAME,
    )
    primary_engine = database.single_connection_engine()
    if found == "the server's":
        schema.ensure(primary_engine, deadline=5)
    elif found == "an older schema":
        with primary_engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num text)")
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('older')")
    primary_engine.dispose()
    engine = create_engine(database.PLUGIN_URL)
    assert isinstance(engine.pool, ReplicaPool)
    before = LOOKING.set(True)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            primary, replica = (pool.status() for pool in (engine.pool, engine.pool.replica))
    finally:
        LOOKING.reset(before)
        database.close_pool()
    used, idle = "Current Checked out connections: 1", "Current Checked out connections: 0"
    asked = found == "the server's"
    assert (used in replica, idle in primary) == (asked, asked)
    assert ("the replica is away" in caplog.text) is not asked
