"""`mlflow gc` as docs/operating.md runs it: it removes deleted runs permanently, nothing else."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from fake_google.state import State
from tests.chaos.report import Row, rows
from tests.chaos.rig import Rig
from tests.local.conftest import SERVER

RUNS = """
import sys, tempfile
from pathlib import Path
from mlflow import MlflowClient
client = MlflowClient()
made = []
for number in range(4):
    run = client.create_run("0").info.run_id
    client.log_metric(run, "m", number)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "f.txt")
        file.write_text(str(number))
        client.log_artifact(run, str(file), "deep/er")
    made.append(run)
for run in made[:2]:
    client.delete_run(run)
print(*made)
"""
LEFT = """
import sys
from mlflow import MlflowClient
client = MlflowClient()
for number, run in enumerate(sys.argv[1:], 2):
    assert client.get_run(run).data.metrics == {"m": number}
    assert open(client.download_artifacts(run, "deep/er/f.txt")).read() == str(number)
"""


def database_url(rig: Rig) -> str:
    """Returns what `gcloud secrets versions access` prints; the proxy's socket is a local one."""
    [version] = State(rig.stack.folder).load("secrets.json")["mlflow_database_url"].values()
    return base64.b64decode(version["data"]).decode().replace("/cloudsql", str(rig.root))


def objects(rig: Rig) -> set[str]:
    """Returns the names of all objects in the bucket."""
    index = rig.stack.folder / "storage" / "index.db"
    with closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as stored:
        return {name for (name,) in stored.execute("SELECT name FROM objects")}


def ran(command: list[str | Path], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_gc_removes_deleted_runs_and_nothing_else(rig: Rig) -> None:
    client = rig.client(f"http://127.0.0.1:{rig.stack.port}")
    made = rig.stack.client("-c", RUNS, MLFLOW_DISABLE_TELEMETRY="true")
    assert made.returncode == 0, made.stderr
    runs = made.stdout.split()
    assert runs
    before = objects(rig)
    assert all(any(run in name for name in before) for run in runs)
    # Any environment with mlflow and pg8000 will do, such as the image's.
    gc = [SERVER.with_name("mlflow"), "gc", "--backend-store-uri", database_url(rig)]
    ran(gc, {**client, "PATH": os.defpath, "HOME": str(rig.folder)})
    after = objects(rig)
    assert before - after == {name for name in before if runs[0] in name or runs[1] in name}
    assert after <= before
    left = rig.stack.client("-c", LEFT, *runs[2:], MLFLOW_DISABLE_TELEMETRY="true")
    assert left.returncode == 0, left.stderr
    with rig.database.connect() as admin:
        found = {run for [run] in admin.run("SELECT run_uuid FROM runs")}
    assert found & set(runs) == set(runs[2:])
    rows.append(
        Row(tried="mlflow gc", acknowledged=len(runs), refused=0, lost=0, answers="2 of 4 gone")
    )
