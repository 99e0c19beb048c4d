"""A viewer reads from the replica, which is behind; whoever writes finds what has been written."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from tracking_server import database, schema
from tracking_server.replica import ReplicaPool
from tracking_server.viewing import LOOKING

from local.postgres import Postgres
from local.state import State
from tests.server.conftest import CONNECTION_NAME, StartServer
from tests.server.google import Google
from tests.server.process import Server

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
def server(
    environment: dict[str, str], google: Google, standby: Postgres, start: StartServer
) -> Server:
    viewer = {
        f"VIEWER_{part}_SECRET": google.store(value)
        for part, value in zip(("USERNAME", "PASSWORD"), VIEWER, strict=True)
    }
    server = start({**environment, **viewer, "DATABASE_REPLICA": REPLICA}).ready()
    # What the boot has made of the empty database is there.
    time.sleep(2 * LAG)
    return server


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
