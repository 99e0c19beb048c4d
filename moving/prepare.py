"""Prepares MLflow's SQLite store for the move to the server's PostgreSQL; see docs/moving.md.

    python moving/prepare.py mlflow.db gs://my-bucket > upload.sh

Changes the file, and prints the commands that upload the artifacts to the server's bucket. Requires
only Python.
"""

from __future__ import annotations

import shlex
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The maximum of PostgreSQL's `integer`, the type of MLflow's experiment ids. A file store's ids
# have 18 digits.
LARGEST = 2**31 - 1

# The columns with addresses of artifacts.
ADDRESSES = (
    ("experiments", "artifact_location", "true"),
    ("runs", "artifact_uri", "true"),
    ("logged_models", "artifact_location", "true"),
    ("model_versions", "source", "true"),
    ("model_versions", "storage_location", "true"),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
)


# The tables of a store that has the schema version of the server's database.
TABLES = {table for table, _, _ in ADDRESSES}


def check(store: sqlite3.Connection, file: str) -> None:
    """Checks the store before anything is changed."""
    try:
        found = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
        # Fails at once if another process is writing.
        store.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        sys.exit(
            f"{file} can't be changed ({error}). Wanted: MLflow's SQLite store, such as "
            "mlflow.db, that you may write and whose server is stopped"
        )
    if "experiments" not in found:
        sys.exit(
            f"{file} isn't MLflow's store: it has no table experiments. Often mlflow.db is "
            "where the server was started"
        )
    if missing := sorted(TABLES - found):
        sys.exit(
            f"{file} is from an older MLflow: it has no table {', '.join(missing)}. Bring it to "
            f"this version first: mlflow db upgrade sqlite:///{file}"
        )


def renumber(store: sqlite3.Connection) -> None:
    tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master")]
    numbered = [
        table
        for table in tables
        if any(
            column[1] == "experiment_id" for column in store.execute(f"PRAGMA table_info({table})")
        )
    ]
    within = "SELECT coalesce(max(experiment_id), 0) FROM experiments WHERE experiment_id <= ?"
    [(last,)] = store.execute(within, [LARGEST])
    beyond = "SELECT experiment_id FROM experiments WHERE experiment_id > ? ORDER BY creation_time"
    for new, (old,) in enumerate(store.execute(beyond, [LARGEST]).fetchall(), last + 1):
        for table in numbered:
            store.execute(
                f"UPDATE {table} SET experiment_id = ? WHERE experiment_id = ?", [new, old]
            )


def folder(location: str) -> Path | None:
    """Returns the folder on this computer that a location names, or None."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(location)


def relocate(store: sqlite3.Connection) -> Iterator[tuple[Path, int]]:
    """Moves artifacts from local folders to the server; yields each folder and its experiment.

    Only addresses in the store change.
    """
    experiments = "SELECT experiment_id, artifact_location FROM experiments"
    for experiment, location in store.execute(experiments).fetchall():
        if (local := folder(location)) is None:
            continue
        for table, column, which in ADDRESSES:
            store.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                f"WHERE {which} AND ({column} = :old OR "
                f"substr({column}, 1, length(:old) + 1) = :old || '/')",
                {"old": location, "new": f"mlflow-artifacts:/{experiment}"},
            )
        yield local, experiment


def main(file: str, bucket: str) -> None:
    if not Path(file).is_file():
        sys.exit(f"{file} is not a file. Wanted: MLflow's SQLite store, such as mlflow.db")
    parts = urlsplit(bucket)
    if parts.scheme != "gs" or not parts.netloc:
        sys.exit(
            f"{bucket} isn't a bucket. Wanted: gs:// and the stack's output artifact_bucket, such "
            "as gs://my-project-mlflow-artifacts-1a2b3c"
        )
    with closing(sqlite3.connect(file, timeout=1)) as store, store:
        check(store, file)
        renumber(store)
        for local, experiment in relocate(store):
            if local.is_dir():
                target = f"{bucket.rstrip('/')}/{experiment}"
                print(shlex.join(["gcloud", "storage", "rsync", "--recursive", str(local), target]))
            else:
                print(f"{local}: no such folder here, nothing is uploaded", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Usage: python moving/prepare.py mlflow.db gs://my-bucket > upload.sh")
    main(*sys.argv[1:])
