"""docs/runbooks.md, carried out: an upgrade is undone, and lost artifacts are restored.

Cloud SQL restores from a daily backup and the archived log; PostgreSQL does the same here.
https://www.postgresql.org/docs/current/continuous-archiving.html
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_google.iam import policy
from fake_google.sql.postgres import Postgres
from tests.chaos.instances import Api, administrator
from tests.chaos.report import Row, rows
from tests.chaos.rollout import Rollout, rolled_out
from tests.chaos.test_boots import Database
from tests.local.conftest import CLIENT

API = "/api/2.0/mlflow"


@pytest.fixture
def rollout() -> Iterator[Rollout]:
    with rolled_out() as made:
        yield made


class Archive:
    """A backup of the whole instance, and every change since then."""

    def __init__(self, rollout: Rollout) -> None:
        [self._postgres] = rollout.cloud.project.databases.values()
        assert isinstance(self._postgres, Postgres)
        self._stack = rollout.stack
        with administrator(self._stack) as connection:
            [[data]] = connection.run("SHOW data_directory")
            self._data = Path(data)
            # In a folder that PostgreSQL's own user can read.
            self._log, self._backup = (self._data.with_name(name) for name in ("log", "backup"))
            connection.run("ALTER SYSTEM SET archive_mode = 'on'")
            connection.run(f"ALTER SYSTEM SET archive_command = 'cp %p {self._log}/%f'")
        self._log.mkdir()
        self._own(self._log)
        self._again()
        with administrator(self._stack) as connection:
            connection.run("SELECT pg_backup_start('daily', true)")
            subprocess.run(["cp", "-a", self._data, self._backup], check=True)
            [[_, label, _]] = connection.run("SELECT * FROM pg_backup_stop()")
        (self._backup / "postmaster.pid").unlink()
        (self._backup / "backup_label").write_text(label)
        self._own(self._backup / "backup_label")

    def _own(self, path: Path) -> None:
        owner = self._data.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def _again(self) -> None:
        self._postgres.stop()
        self._postgres.start()

    def restore(self, moment: str) -> None:
        """Restore onto the same instance, as it was at `moment`."""
        with administrator(self._stack) as connection:
            connection.run("SELECT pg_switch_wal()")
            segment = "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1)"
            until = time.monotonic() + 30
            while not connection.run(f"{segment} FROM pg_stat_archiver")[0][0]:
                assert time.monotonic() < until
                time.sleep(0.1)
        self._postgres.stop()
        shutil.rmtree(self._data)
        subprocess.run(["cp", "-a", self._backup, self._data], check=True)
        moment = moment.replace("Z", "+00")  # PostgreSQL's own setting knows no Z
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(
                f"restore_command = 'cp {self._log}/%f %p'\n"
                f"recovery_target_time = '{moment}'\n"
                "recovery_target_action = 'promote'\n"
                "hot_standby = 'off'\n"
            )
        (self._data / "recovery.signal").touch()
        self._own(self._data / "recovery.signal")
        self._postgres.start()


def test_an_upgrade_is_undone_by_a_restore_to_the_moment_in_its_log(
    rollout: Rollout,
) -> None:
    database = Database(rollout.stack)
    archive = Archive(rollout)
    rollout.up()
    database.restore("previous")
    before = database.schema()
    old = database.previous("log")
    time.sleep(5)
    acknowledged = json.loads(old.communicate("\n", timeout=60)[0].splitlines()[-1])["acknowledged"]
    rollout.up()
    upgraded = database.schema()
    assert upgraded != before
    log = (rollout.stack.folder / "log" / "server.log").read_text()
    moment = re.findall(r"the way back is a restore to (\S+Z) ", log)[-1]
    api = Api(rollout.outputs["tracking_uri"], rollout.credentials())
    status, made = api("POST", f"{API}/runs/create", {"experiment_id": "0", "start_time": 1})
    assert status == 200

    archive.restore(moment)
    assert database.schema() == before
    with administrator(rollout.stack) as connection:
        found = {run for [run] in connection.run("SELECT run_uuid FROM runs")}
    lost = set(acknowledged) - found
    rows.append(
        Row(
            tried="upgrade undone by a point-in-time restore",
            acknowledged=len(acknowledged),
            lost=len(lost),
        )
    )
    assert len(acknowledged) > 5
    assert not lost
    assert made["run"]["info"]["run_id"] not in found
    # And the newer server upgrades it again.
    rollout.up()
    assert database.schema() == upgraded


LOSE = """
import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
with mlflow.start_run() as run:
    for text in ("first", "second"):
        mlflow.log_text(text, "overwritten.txt")
    mlflow.log_text("deleted", "deleted.txt")
    get_artifact_repository(run.info.artifact_uri).delete_artifacts("deleted.txt")
print(run.info.run_id)
"""

RESTORE = """
import sys
from google.cloud import storage
client = storage.Client(project="local-project")
_, bucket, run, soft = sys.argv
bucket = client.bucket(bucket)
def find(name, **which):
    blobs = list(client.list_blobs(bucket, **which))
    return [blob for blob in blobs if run in blob.name and blob.name.endswith(name)]
first, second = find("overwritten.txt", versions=True)
bucket.copy_blob(first, bucket, first.name, source_generation=first.generation)
[deleted] = find("deleted.txt", versions=True)
if soft == "soft":
    # As the bucket's lifecycle rule deletes noncurrent versions after 30 days.
    bucket.blob(deleted.name, generation=deleted.generation).delete()
    [deleted] = find("deleted.txt", soft_deleted=True)
    bucket.restore_blob(deleted.name, generation=deleted.generation)
else:
    bucket.copy_blob(deleted, bucket, deleted.name, source_generation=deleted.generation)
"""

READ = """
import sys, mlflow
for name in ("overwritten.txt", "deleted.txt"):
    print(mlflow.artifacts.load_text(f"runs:/{sys.argv[1]}/{name}"))
"""


@pytest.mark.parametrize("kept", ["noncurrent", "soft"])
def test_artifacts_are_restored_from_older_versions(rollout: Rollout, kept: str) -> None:
    operator = f"operator@{rollout.cloud.project.id}.iam.gserviceaccount.com"
    bucket = rollout.outputs["artifact_bucket"]
    member, admin = f"serviceAccount:{operator}", "roles/storage.admin"
    rollout.cloud.project.grant(member, admin, policy.bucket(bucket), None)
    client = {
        **rollout.credentials(),
        "MLFLOW_TRACKING_URI": rollout.outputs["tracking_uri"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    storage = {
        "API_ENDPOINT_OVERRIDE": rollout.cloud.project.storage_endpoint,
        **rollout.cloud.project.metadata_environment(operator),
    }

    def run(script: str, *arguments: str, **environment: str) -> list[str]:
        ran = subprocess.run(
            [CLIENT, "-c", script, *arguments],
            env={"PATH": os.defpath, "HOME": "/nonexistent", **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()

    name = run(LOSE, **client)[-1]
    run(RESTORE, bucket, name, kept, **storage)
    assert run(READ, name, **client) == ["first", "deleted"]
    rows.append(Row(tried=f"artifacts restored, {kept}", acknowledged=2, lost=0))
