"""docs/moving-out.md: stock MLflow continues with the data of the stack."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from fake_google.ports import free_port
from tests.chaos.instances import administrator
from tests.chaos.moving_stand_ins import path
from tests.local.conftest import CLIENT, SERVER, Stack
from tests.page_commands import commands, run, stand_in

SESSION = Path(__file__).with_name("moving_session.py")
# Stock MLflow with the driver at hand: the client's environment has none for PostgreSQL.
MLFLOW = """#!/bin/sh
shift
for word; do shift; set -- "$@" "$(echo "$word" | sed 's|^postgresql:|postgresql+pg8000:|')"; done
exec "{python}" -m mlflow server --port {port} --workers 1 "$@"
"""


def session(what: str, environment: dict[str, str], folder: Path) -> Any:
    done = subprocess.run(
        [CLIENT, SESSION, what],
        check=False, cwd=folder, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if what == "show" else None


def test_stock_mlflow_continues_with_the_data_of_the_stack() -> None:
    with Stack.temporary() as stack:
        folder = stack.folder.parent / "elsewhere"
        folder.mkdir()
        session("make", stack.environment(), folder)
        before = session("show", stack.environment(), folder)
        environment = {"PATH": path(stack, folder / "bin"), "HOME": str(folder)}
        port, proxy = free_port(), free_port()
        stand_in(folder / "bin", "mlflow", MLFLOW.format(python=SERVER, port=port))
        stand_in(folder / "bin", "pip", "#!/bin/sh\n")
        take, bring = (
            re.sub(r"(127\.0\.0\.1:|--port )5432", rf"\g<1>{proxy}", block)
            for heading in ("Take the data", "Start another server")
            for block in commands("docs/moving-out.md", heading)
        )
        run(take, folder=folder, environment=environment)
        with administrator(stack, "postgres") as connection:
            connection.run("CREATE DATABASE elsewhere OWNER cloudsqlsuperuser")
        # The page's new database is reached like the old one here.
        opened = take[: take.index("pg_dump")]
        new = opened + 'NEW_DATABASE="${DATABASE%/*}/elsewhere"\n' + bring
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", new],
            cwd=folder, env=environment, start_new_session=True,
        ) as shell:  # fmt: skip
            try:
                address = f"http://127.0.0.1:{port}"
                wait_for(address, shell)
                there = {"MLFLOW_TRACKING_URI": address}
                assert session("show", there, folder) == before
                session("more", there, folder)
            finally:
                os.killpg(shell.pid, signal.SIGTERM)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health"):
                return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.3)
