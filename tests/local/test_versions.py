"""Overwritten and deleted objects of a bucket, restored with Google's own client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import SERVER as SERVER_PYTHON
from tests.local.standins import PROJECT, project

OPERATOR = f"operator@{PROJECT}.iam.gserviceaccount.com"
KEPT = {"versioning": {"enabled": True}, "softDeletePolicy": {"retentionDurationSeconds": 604800}}
GONE = {"versioning": {"enabled": False}, "softDeletePolicy": {"retentionDurationSeconds": 0}}


def run(root: Path, script: str, *, role: str, **declared: Any) -> str:
    """Run the script. Returns its error output, empty if it succeeded."""
    with project(root) as made:
        made.declare("storage/bucket:Bucket", name="b", location="us-central1", **declared)
        made.account(OPERATOR)
        made.declare(
            "storage/bucketIAMMember:BucketIAMMember",
            bucket="b",
            role=role,
            member=f"serviceAccount:{OPERATOR}",
        )
        environment: Mapping[str, str] = {
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "API_ENDPOINT_OVERRIDE": made.cloud.project.storage_endpoint,
            **made.cloud.project.metadata_environment(OPERATOR),
        }
        answer = subprocess.run(
            [SERVER_PYTHON, "-c", SETUP + script],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        files = len(list(made.cloud.project.store.files.iterdir()))
        kept = made.cloud.project.store.versions("b", deleted=False)
        deleted = made.cloud.project.store.versions("b", deleted=True)
        live = made.cloud.project.store.below("b", after="", prefix="")
        # Every file belongs to an object that is still listed.
        assert files == len([*kept, *deleted, *live])
    return answer.stderr


SETUP = """
from google.api_core import exceptions
from google.cloud import storage

client = storage.Client(project="local-project")
bucket = client.bucket("b")

def store(name, *texts):
    for text in texts:
        bucket.blob(name).upload_from_string(text)

def read(name, **which):
    return bucket.blob(name, **which).download_as_text()

def versions(**which):
    return [(blob.name, blob.generation) for blob in client.list_blobs("b", **which)]

store("twice", "first", "second")
store("deleted", "text")
bucket.blob("deleted").delete()
"""

BACK = """
assert [name for name, _ in versions()] == ["twice"]
(_, only), (_, first), (_, second) = versions(versions=True)
assert first < second
assert read("twice", generation=first) == "first"
assert read("twice", generation=second) == read("twice") == "second"
assert read("deleted", generation=only) == "text"
for name, generation in (("twice", first), ("deleted", only)):
    bucket.copy_blob(bucket.blob(name), bucket, name, source_generation=generation)
assert (read("twice"), read("deleted")) == ("first", "text")
assert len(versions(versions=True)) == 5

# Permanently: a deletion that names a generation keeps no version.
for name, generation in versions(versions=True):
    bucket.blob(name, generation=generation).delete()
assert versions(versions=True) == []
gone = versions(soft_deleted=True)
assert len(gone) == 5
try:
    read("twice", generation=first)
except exceptions.NotFound:
    pass
else:
    raise AssertionError
bucket.restore_blob("twice", generation=second)
assert read("twice") == "second"
assert versions(soft_deleted=True) == gone
"""


@pytest.mark.skipif(not SERVER_PYTHON.exists(), reason="the server's environment is not installed")
def test_versions_and_soft_deleted_objects_can_be_restored(tmp_path: Path) -> None:
    assert run(tmp_path, BACK, role="roles/storage.admin", **KEPT) == ""


@pytest.mark.skipif(not SERVER_PYTHON.exists(), reason="the server's environment is not installed")
def test_a_bucket_without_either_keeps_nothing(tmp_path: Path) -> None:
    script = (
        "assert versions(versions=True) == versions()\nassert versions(soft_deleted=True) == []"
    )
    assert run(tmp_path, script, role="roles/storage.admin", **GONE) == ""


@pytest.mark.skipif(not SERVER_PYTHON.exists(), reason="the server's environment is not installed")
def test_the_server_cannot_restore_soft_deleted_objects(tmp_path: Path) -> None:
    script = """
[(name, generation)] = [each for each in versions(versions=True) if each[0] == "deleted"]
bucket.blob(name, generation=generation).delete()
bucket.restore_blob(name, generation=generation)
"""
    assert "storage.objects.restore" in run(
        tmp_path, script, role="roles/storage.objectUser", **KEPT
    )
