"""Moves the spans of old traces from the database to the bucket, with MLflow's own archival.

The traces' other rows stay, and the server reads archived spans from the bucket.
"""

import logging
from time import monotonic
from typing import TYPE_CHECKING

from tracking_server.mlflow import internals

if TYPE_CHECKING:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

FOLDER = "trace-archive"

TOGETHER = 500
"""Traces in one pass. MLflow plans a pass, and then moves one trace after the other."""

LONGEST = 3 * 3600.0
"""Seconds after which no pass is begun; Cloud Run ends the job after four hours."""

MOST_COUNTED = 100_000

log = logging.getLogger(__name__)


def archive(store: "SqlAlchemyStore", *, root: str, days: int, dry_run: bool) -> bool:
    """Returns whether all traces older than `days` are archived."""
    if dry_run:
        count = internals.count_traces_to_archive(store, days=days, most=MOST_COUNTED)
        more = " or more" if count == MOST_COUNTED else ""
        log.info("archive: would move the spans of %d%s traces", count, more)
        return True
    until = monotonic() + LONGEST
    done = 0
    while moved := internals.archive_traces(store, location=folder(root), days=days, most=TOGETHER):
        done += moved
        log.info(
            "archive: moved the spans of %d traces", done, extra={"fields": {"archived": done}}
        )
        if monotonic() > until:
            log.warning("archive: the time is over; the next run continues")
            return True
    left = internals.count_traces_to_archive(store, days=days, most=TOGETHER)
    if left:
        log.error("archive: %d or more traces could not be moved, for the reasons above", left)
    return not left


def folder(root: str) -> str:
    """Returns the address of the folder with all archived spans, by experiment."""
    return f"{root.rstrip('/')}/{FOLDER}"
