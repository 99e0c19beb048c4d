"""docs/moving.md on other names: the program's user gets the tables that another user created."""

from __future__ import annotations

import os
from pathlib import Path

import pg8000.native

from fake_google.sql.postgres import InstanceSettings, Postgres, choose, installations
from fake_google.state import State
from infra.facts.connection_name import ConnectionName
from tests.page_commands import commands, run, stand_in


def test_the_programs_user_owns_the_tables_afterwards(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.create()
    settings = InstanceSettings(
        connection_name=ConnectionName.parse("my-project:us-central1:my-instance"),
        major=15,
        tier="db-f1-micro",
    )
    database = Postgres(state=state, settings=settings, say=print)
    try:
        database.start()
        database.create_user("old_user", "old_password")
        database.create_database("old_name")
        socket = str(database.socket())
        with pg8000.native.Connection(
            "old_user", unix_sock=socket, password="old_password", database="old_name"
        ) as old:
            old.run("CREATE TABLE runs (name text)")
            old.run("INSERT INTO runs VALUES ('kept')")
        stand_in(tmp_path, "cloud-sql-proxy", "#!/bin/sh\nexec sleep 60\n")
        block = commands("docs/moving.md", "From a deployment made by hand")[-1]
        # PostgreSQL's own socket replaces the proxy's port, and needs no sleep.
        block = block.replace("PGHOST=127.0.0.1", f"PGHOST={database.socket().parent}")
        block = block.replace("sleep 5", "")
        # psql comes with the server.
        psql = choose(installations(), wanted=settings.major, data=None).bin
        path = os.pathsep.join([str(tmp_path), str(psql), os.defpath])
        run(
            block,
            folder=tmp_path,
            environment={"PATH": path, "HOME": str(tmp_path), "PGPORT": str(database.port)},
        )
        database.create_user("mlflow", "new")
        with pg8000.native.Connection(
            "mlflow", unix_sock=socket, password="new", database="mlflow"
        ) as new:
            new.run("ALTER TABLE runs ADD COLUMN id integer")
            assert new.run("SELECT name FROM runs") == [["kept"]]
    finally:
        database.stop()
        state.clean()
