"""`moving/prepare.py` on a small store; tests/chaos/test_moving_in.py moves a whole one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.page_commands import ROOT

SCRIPT = ROOT / "moving" / "prepare.py"
SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT, creation_time INTEGER);
CREATE TABLE runs (experiment_id INTEGER, artifact_uri TEXT);
CREATE TABLE logged_models (experiment_id INTEGER, artifact_location TEXT);
CREATE TABLE model_versions (source TEXT, storage_location TEXT);
CREATE TABLE trace_tags (key TEXT, value TEXT);
CREATE TABLE params (key TEXT, value TEXT);
"""


def prepare(store: Path, bucket: str = "gs://bucket") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, store, bucket], check=False, capture_output=True, text=True
    )


def rows(store: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608


@pytest.fixture
def store(tmp_path: Path) -> Path:
    old = tmp_path / "ml runs"
    (old / "2").mkdir(parents=True)
    (old / "595010299562631383").mkdir()
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        for table, *values in (
            ("experiments", 0, f"{old}/0", 1),
            ("experiments", 2, f"{old}/2", 2),
            (
                "experiments",
                595010299562631383,
                f"file://{tmp_path}/ml%20runs/595010299562631383",
                3,
            ),
            ("experiments", 4, "s3://elsewhere/4", 4),
            ("experiments", 5, "mlflow-artifacts:/5", 5),
            ("runs", 2, f"{old}/2/run/artifacts"),
            ("runs", 2, f"{old}/22/run/artifacts"),
            ("runs", 595010299562631383, f"file://{tmp_path}/ml%20runs/595010299562631383/run"),
            ("runs", 4, "s3://elsewhere/4/run"),
            ("logged_models", 2, f"{old}/2/models/m-1"),
            ("model_versions", "models:/m-1", f"{old}/2/models/m-1"),
            ("trace_tags", "mlflow.artifactLocation", f"{old}/2/traces/tr-1"),
            ("trace_tags", "mine", f"{old}/2"),
            ("params", "data", f"{old}/2/data.csv"),
        ):
            marks = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608
    return path


def test_locations_are_changed_to_the_servers(store: Path, tmp_path: Path) -> None:
    done = prepare(store)
    assert done.returncode == 0, done.stderr
    old = tmp_path / "ml runs"
    assert done.stdout.splitlines() == [
        f"gcloud storage rsync --recursive '{old}/2' gs://bucket/2",
        f"gcloud storage rsync --recursive '{old}/595010299562631383' gs://bucket/6",
    ]
    assert done.stderr == f"{old}/0: no such folder here, nothing is uploaded\n"
    assert rows(store, "experiments") == [
        (0, "mlflow-artifacts:/0", 1),
        (2, "mlflow-artifacts:/2", 2),
        (6, "mlflow-artifacts:/6", 3),
        (4, "s3://elsewhere/4", 4),
        (5, "mlflow-artifacts:/5", 5),
    ]
    assert rows(store, "runs") == [
        (2, "mlflow-artifacts:/2/run/artifacts"),
        (2, f"{old}/22/run/artifacts"),
        (6, "mlflow-artifacts:/6/run"),
        (4, "s3://elsewhere/4/run"),
    ]
    assert rows(store, "logged_models") == [(2, "mlflow-artifacts:/2/models/m-1")]
    assert rows(store, "model_versions") == [("models:/m-1", "mlflow-artifacts:/2/models/m-1")]
    # Other values that contain a path stay.
    assert rows(store, "trace_tags") == [
        ("mlflow.artifactLocation", "mlflow-artifacts:/2/traces/tr-1"),
        ("mine", f"{old}/2"),
    ]
    assert rows(store, "params") == [("data", f"{old}/2/data.csv")]


def test_a_second_run_changes_nothing(store: Path) -> None:
    prepare(store)
    before = rows(store, "experiments")
    assert prepare(store).stdout == ""
    assert rows(store, "experiments") == before


@pytest.mark.parametrize(
    ("file", "bucket", "said"),
    [
        ("none.db", "gs://bucket", "none.db is not a file"),
        ("mlflow.db", "bucket", "bucket isn't a bucket. Wanted: gs:// and the stack's output"),
    ],
)
def test_a_wrong_argument_is_reported(store: Path, file: str, bucket: str, said: str) -> None:
    refused = prepare(store.with_name(file), bucket)
    assert refused.returncode == 1
    assert said in refused.stderr
