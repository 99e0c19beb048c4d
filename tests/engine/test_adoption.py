"""docs/moving.md on the guide's manual deployment: it is adopted in place, without data loss."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.engine.deployment import BUCKET, INSTANCE, VERSION, Deployment
from tests.page_commands import commands, run, stand_in

API = "gcp:projects/service:Service"
DATABASE = "gcp:sql/database:Database"
SECRET = "gcp:secretmanager/secret:Secret"
USER = "gcp:sql/user:User"
OLD = {
    "mlflow_artifact_url": "gs://my-artifacts",
    "mlflow_database_url": "postgresql+pg8000://mlflow:old@/mlflow?unix_sock=/cloudsql/x",
    "mlflow_tracking_username": "ada",
    "mlflow_tracking_password": "a password of before",
}
GCLOUD = """#!/bin/sh
case "$*" in
    "secrets versions access latest --secret "*) cat "{values}/$6" ;;
    *) echo "gcloud $*" >> "{log}" ;;
esac
"""


@pytest.fixture
def by_hand(fresh: Deployment) -> Deployment:
    """A deployment as gcloud has made it, with an artifact in it."""
    cloud = fresh.cloud
    for api in ("run", "sqladmin", "secretmanager", "storage"):
        cloud.create(API, api, {"service": f"{api}.googleapis.com"})
    cloud.create(BUCKET, "", {"name": "my-artifacts", "location": "US"})
    file = cloud.project.store.files / "artifact"
    file.write_bytes(b"precious")
    cloud.project.store.put({"bucket": "my-artifacts", "name": "1/model"}, [file])
    settings = {"tier": "db-f1-micro", "edition": "ENTERPRISE"}
    instance = {"name": "my-instance", "databaseVersion": "POSTGRES_15", "settings": settings}
    cloud.create(INSTANCE, "", instance)
    cloud.create(DATABASE, "", {"name": "mlflow", "instance": "my-instance"})
    cloud.create(USER, "", {"name": "mlflow", "instance": "my-instance", "password": "old"})
    for secret_id, value in OLD.items():
        made, _ = cloud.create(SECRET, "", {"secretId": secret_id, "replication": {"auto": {}}})
        cloud.create(VERSION, "", {"secret": made, "secretData": value})
    return fresh


def test_a_deployment_made_by_hand_is_taken_over(by_hand: Deployment, tmp_path: Path) -> None:
    cloud, log = by_hand.cloud, tmp_path / "gcloud.log"
    for secret_id, value in OLD.items():
        (tmp_path / secret_id).write_text(value)
    stand_in(tmp_path / "bin", "gcloud", GCLOUD.format(values=tmp_path, log=log))
    kept = {
        key: live for key, live in cloud.project.live.items() if key[0] not in (USER, VERSION, API)
    }
    environment = {**by_hand.environment, "PULUMI_SKIP_CONFIRMATIONS": "true"}
    # The last block is for other names: tests/local/test_other_names.py.
    *blocks, _ = commands("docs/moving.md", "From a deployment made by hand")
    for block in blocks:
        run(block, folder=by_hand.project, environment=environment)
    assert [line.split()[:4] for line in log.read_text().splitlines()] == [
        ["gcloud", "sql", "backups", "create"],
        ["gcloud", "run", "services", "delete"],
    ]
    # None of it is created again; only the user gets another password.
    assert [key for key, live in kept.items() if cloud.project.live.get(key) is not live] == []
    counts = cloud.counts()
    assert [counts[token] for token in (BUCKET, INSTANCE, DATABASE, USER)] == [1, 1, 1, 1]
    assert cloud.one(USER)["password"] != "old"
    for secret_id, value in OLD.items():
        versions = cloud.project.secrets.versions(secret_id)
        assert versions is not None
        assert base64.b64decode(versions["1"]["data"]).decode() == value
        latest = base64.b64decode(versions[max(versions)]["data"]).decode()
        assert (latest == value) is (secret_id != "mlflow_database_url")
    assert by_hand.up().touched == set()
    # The instance and the bucket stay unprotected by Pulumi: they are the user's own.
    by_hand.configure(deletionProtection=False)
    by_hand.up()
    by_hand.destroy()
    assert cloud.project.store.get("my-artifacts", "1/model")
    assert cloud.counts()[INSTANCE] == 1
