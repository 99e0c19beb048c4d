"""Boots on an empty database, on one of the previous minor with data, and on a newer one.

Many boot at once, some are killed halfway, some start next to an old revision that still serves.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fake_google.state import State
from tests.chaos.instances import Api, administrator, environment_of, started
from tests.local.conftest import ROOT, Stack
from tests.schema import WHOLE_SCHEMA

PREVIOUS = ROOT / ".venvs" / "previous" / "bin" / "python"
PREVIOUS_MINOR = Path(__file__).with_name("previous_minor.py")
BOOTS = 5
RUNS = 10_000
KILLS = 10

SEED = """
INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time,
                  lifecycle_stage, experiment_id, artifact_uri)
SELECT md5(n::text), 'run ' || n, 'LOCAL', 'ada', 'FINISHED', n, n + 1, 'active', 0,
       'gs://none/' || n FROM generate_series(1, RUNS) n;
INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT 'loss', n + step, step, step, false, md5(n::text)
FROM generate_series(1, RUNS) n, generate_series(0, 9) step;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT 'loss', n + 9, 9, 9, false, md5(n::text) FROM generate_series(1, RUNS) n;
INSERT INTO params (key, value, run_uuid)
SELECT 'number', n, md5(n::text) FROM generate_series(1, RUNS) n;
INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status)
SELECT 'tr-' || n, 0, n, 1, 'OK' FROM generate_series(1, RUNS) n;
INSERT INTO trace_request_metadata (key, value, request_id)
SELECT 'mlflow.trace.tokenUsage', '{"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}',
       'tr-' || n FROM generate_series(1, RUNS) n;
""".replace("RUNS", str(RUNS))

# Everything that half a migration could leave behind.
Schema = frozenset[tuple[str, ...]]


class Database:
    """The stack's database, which can be reset to a saved state any number of times."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.environment = environment_of(stack)
        secrets = State(stack.folder).load("secrets.json")
        url = base64.b64decode(secrets["mlflow_database_url"]["1"]["data"]).decode()
        self.url = url.replace("/cloudsql/", f"{self.environment['CLOUDSQL_ROOT']}/")
        with administrator(stack, "postgres") as connection:
            connection.run("CREATE DATABASE empty OWNER cloudsqlsuperuser")
        self.restore("empty")
        assert self.previous("make").wait() == 0
        with administrator(stack) as connection:
            connection.run(SEED)
            connection.run("ANALYZE")
        self.keep("previous")

    def previous(self, what: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PREVIOUS, PREVIOUS_MINOR, what],
            env={"PATH": os.defpath, "DATABASE_URL": self.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def keep(self, name: str) -> None:
        with administrator(self._stack, "postgres") as connection:
            connection.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'mlflow'"
            )
            connection.run(f"CREATE DATABASE {name} TEMPLATE mlflow")

    def restore(self, name: str) -> None:
        with administrator(self._stack, "postgres") as connection:
            connection.run("DROP DATABASE IF EXISTS mlflow WITH (FORCE)")
            connection.run(f"CREATE DATABASE mlflow TEMPLATE {name} OWNER cloudsqlsuperuser")

    def schema(self) -> Schema:
        with administrator(self._stack) as connection:
            return frozenset(tuple(row) for row in connection.run(WHOLE_SCHEMA))

    def servers(self, *, waiting: bool = False) -> int:
        """Returns how many sessions the servers have, or how many of those wait for a lock."""
        with administrator(self._stack) as connection:
            found = connection.run(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = 'mlflow' "
                "AND usename <> 'cloudsqladmin' AND (wait_event_type = 'Lock' OR NOT :waiting)",
                waiting=waiting,
            )
            return int(found[0][0])

    @contextmanager
    def blocked_by(self, statement: str) -> Iterator[None]:
        """Hold a lock with this statement: sessions that need the same object wait."""
        with administrator(self._stack) as connection:
            connection.run("BEGIN")
            connection.run(statement)
            yield
            connection.run("ROLLBACK")


def within(seconds: float, condition: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.temporary() as stack:
        yield stack


@pytest.fixture(scope="module")
def database(stack: Stack) -> Database:
    return Database(stack)


@pytest.fixture(scope="module")
def upgraded(database: Database, stack: Stack) -> dict[str, Schema]:
    """The schema after an undisturbed boot, from each state."""
    found = {}
    for state in ("empty", "previous"):
        database.restore(state)
        with started(database.environment, stack.folder, 1) as [instance]:
            instance.ready()
        found[state] = database.schema()
    return found


@pytest.mark.parametrize("state", ["empty", "previous"])
def test_five_boots_at_once(
    database: Database, stack: Stack, upgraded: dict[str, Schema], state: str
) -> None:
    database.restore(state)
    old = None
    if state == "previous":
        old = database.previous("log")
        assert old.stdout is not None
        assert old.stdout.readline() == "logging\n"
    with started(database.environment, stack.folder, BOOTS) as instances:
        for instance in instances:
            instance.ready()
        said = [line for instance in instances for line in instance.said()]
        assert len([line for line in said if line.startswith("schema: from revision")]) == 1
        assert database.schema() == upgraded[state]
        for number, instance in enumerate(instances):
            api = Api(instance.address, stack.environment())
            made = api("POST", "/api/2.0/mlflow/experiments/create", {"name": f"of {number}"})
            assert made[0] == 200, made
        if old is not None:
            time.sleep(1)
            answer = json.loads(old.communicate("\n", timeout=60)[0])
            print({**answer, "acknowledged": len(answer["acknowledged"])})
            assert answer["acknowledged"]
            for run in answer["acknowledged"]:
                status, found = api("GET", f"/api/2.0/mlflow/runs/get?run_id={run}")
                assert status == 200
                assert found["run"]["info"]["status"] == "FINISHED"
                assert len(found["run"]["data"]["metrics"]) == 1
            with administrator(stack) as connection:
                counted = (
                    "SELECT (SELECT count(*) FROM runs WHERE user_id = 'ada'), "
                    "(SELECT count(*) FROM metrics WHERE key = 'loss')"
                )
                assert connection.run(counted) == [[RUNS, 10 * RUNS]]


def test_a_newer_schema_is_refused_and_left_alone(
    database: Database, stack: Stack, upgraded: dict[str, Schema]
) -> None:
    database.restore("previous")
    with administrator(stack) as connection:
        connection.run("UPDATE alembic_version SET version_num = 'ofthefuture'")
    before = database.schema()
    with started(database.environment, stack.folder, BOOTS) as instances:
        for instance in instances:
            said = instance.refused()
            assert "ofthefuture" in said
            assert "Deploy that version again, or restore the database" in said
    assert database.schema() == before


@pytest.mark.parametrize(
    ("state", "moment", "statement"),
    [
        ("empty", "before the first table", "CREATE TABLE experiments (id integer)"),
        ("empty", "before the first migration", "CREATE TABLE alembic_version (id integer)"),
        ("empty", "between the migrations", "CREATE TABLE trace_info (id integer)"),
        ("previous", "before the first migration", "LOCK TABLE spans"),
        ("previous", "between the migrations", "LOCK TABLE alembic_version IN SHARE MODE"),
        ("previous", "in the last migration", "LOCK TABLE jobs"),
    ],
)
def test_a_boot_killed_while_it_waits_does_not_delay_the_next(
    database: Database,
    stack: Stack,
    upgraded: dict[str, Schema],
    state: str,
    moment: str,
    statement: str,
) -> None:
    database.restore(state)
    before = database.schema()
    with started(database.environment, stack.folder, 1) as [instance]:
        with database.blocked_by(statement):
            instance.wait_until_said("schema: from revision")
            within(60, lambda: database.servers(waiting=True) == 1)
            instance.kill()
            # Sooner than the boot would give up by itself.
            print(f"{moment}: gone after {within(2.5, lambda: database.servers() == 0):.1f} s")
        assert database.schema() == before
    with started(database.environment, stack.folder, 1) as [instance]:
        instance.ready()
    assert database.schema() == upgraded[state]


@pytest.mark.parametrize("state", ["empty", "previous"])
def test_a_boot_that_is_killed_at_any_moment_leaves_all_or_nothing(
    database: Database, stack: Stack, upgraded: dict[str, Schema], state: str
) -> None:
    database.restore(state)
    before = database.schema()
    with started(database.environment, stack.folder, 1) as [instance]:
        instance.wait_until_said("schema: from revision")
        seconds = within(60, lambda: any("schema: at" in line for line in instance.said()))
    outcomes = []
    for number in range(KILLS):
        database.restore(state)
        with started(database.environment, stack.folder, 1) as [instance]:
            instance.wait_until_said("schema: from revision")
            time.sleep(number / (KILLS - 1) * seconds)
            instance.kill()
            within(5, lambda: database.servers() == 0)
        found = database.schema()
        assert found in (before, upgraded[state])
        outcomes.append(found == before)
        with started(database.environment, stack.folder, 1) as [instance]:
            instance.ready()
        assert database.schema() == upgraded[state]
    print(f"{state}: {seconds:.1f} s; {sum(outcomes)} of {KILLS} kills left it as it was")
    assert any(outcomes)
