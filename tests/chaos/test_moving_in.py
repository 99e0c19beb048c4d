"""docs/moving.md, command by command: the stack has everything that the old store had."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_google.ports import free_port
from tests.chaos.instances import administrator
from tests.chaos.moving_stand_ins import path
from tests.local.conftest import CLIENT, ROOT, Stack
from tests.page_commands import commands, run
from tests.schema import WHOLE_SCHEMA

SESSION = Path(__file__).with_name("moving_session.py")
PAGE = "docs/moving.md"


class Move:
    """A clone's folder, an old store next to it, and a new stack."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.stack, self.old, self.clone = stack, folder / "old", folder / "clone"
        self.old.mkdir()
        shutil.copytree(ROOT / "moving", self.clone / "moving")
        self.port = str(free_port())
        self.environment = {
            "PATH": path(stack, folder / "bin"),
            "HOME": str(folder),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.schema = self.found()

    def found(self) -> set[tuple[str, ...]]:
        with administrator(self.stack) as connection:
            rows = {tuple(row) for row in connection.run(WHOLE_SCHEMA)}
        # PostgreSQL prints a restored check constraint with more casts.
        return {row for row in rows if not row[2].startswith("CHECK")}

    def does(self, block: str, **environment: str) -> str:
        for said, here in (
            ("/path/to", str(self.old)),
            ("127.0.0.1:5432", f"127.0.0.1:{self.port}"),
            ("--port 5432", f"--port {self.port}"),
        ):
            block = block.replace(said, here)
        return run(block, folder=self.clone, environment=self.environment | environment)

    def session(self, what: str, **environment: str) -> Any:
        known = {**os.environ, **self.environment, **environment}
        done = subprocess.run(
            [CLIENT, SESSION, what],
            check=False, cwd=self.old, env=known, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if what in ("show", "read") else None

    def arrived(self) -> Any:
        # Nothing can be read from the old store any more.
        self.old.rename(self.old.with_name("gone"))
        self.old.mkdir()
        seen = self.session("show", **self.stack.environment())
        assert self.found() == self.schema
        return seen


@pytest.fixture
def move() -> Iterator[Move]:
    if shutil.which("pgloader") is None:
        message = "pgloader is missing: apt install pgloader, or brew install pgloader"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with Stack.temporary() as stack:
        yield Move(stack.folder.parent, stack)


def test_from_an_sqlite_file(move: Move) -> None:
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{move.old}/mlflow.db"}
    move.session("make", **store)
    before = move.session("show", **store)
    for block in commands(PAGE, "From an SQLite file"):
        move.does(block)
    assert move.arrived() == before
    # And it continues from there.
    move.session("more", **move.stack.environment())


def test_from_a_folder(move: Move) -> None:
    store = {
        "MLFLOW_TRACKING_URI": (move.old / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    move.session("make", **store)
    before = move.session("show", **store)
    [migrate] = commands(PAGE, "From a folder mlruns")
    move.does(migrate)
    # The page says "As from an SQLite file" after the commands that make one.
    for block in commands(PAGE, "From an SQLite file")[1:]:
        move.does(block)
    assert move.arrived() == before
    move.session("more", **move.stack.environment())


def test_from_a_server_on_postgres(move: Move) -> None:
    known = move.stack.environment()
    move.session("make", **known)
    before = move.session("show", **known)
    with administrator(move.stack, "postgres") as connection:
        connection.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'mlflow'"
        )
        connection.run("CREATE DATABASE old TEMPLATE mlflow OWNER cloudsqlsuperuser")
    with administrator(move.stack) as connection:
        connection.run("TRUNCATE experiments, registered_models CASCADE")
    [artifacts, rest] = commands(PAGE, "From another server")
    served = move.clone / "mlartifacts" / "7" / "run"
    served.mkdir(parents=True)
    (served / "model").write_text("weights")
    move.does(artifacts)
    # The page's old database is reached like the new one here.
    move.does(rest.replace("pg_dump", 'OLD_DATABASE="${DATABASE%/*}/old"\npg_dump'))
    # Boot again, as the page asks.
    assert move.stack.down().returncode == 0
    assert move.stack.up().returncode == 0
    assert move.arrived() == before
    assert move.session("read", **known) == "weights"
    move.session("more", **known)
