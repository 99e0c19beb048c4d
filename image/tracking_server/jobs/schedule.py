"""The worker's periodic work: automatic evaluation, lost jobs, and the age of waiting ones."""

import logging
from collections.abc import Callable
from threading import Event
from time import monotonic

from tracking_server.mlflow import internals

EVERY = 10.0
"""Seconds between two looks at what is due."""

EVALUATE_EVERY = 60.0
RECOVER_EVERY = 10.0
DELETE_EVERY = 3600.0

EXPIRED_FOR = 15.0
"""Seconds after the end of a lease, which a worker renews every ten seconds for thirty."""

STALE_AFTER = 3600.0
"""Seconds without a change, for a running job of another server, which has no lease."""

ATTEMPTS = 3
"""How often a job is begun whose worker ends."""

KEPT_SECONDS = 24 * 3600
"""How long ended jobs of automatic evaluation are kept."""

LONG_WAIT = 900.0
"""Seconds that a job waits before the log says so."""

log = logging.getLogger("tracking_server.jobs")


def run(stopping: Event) -> None:
    """Do what is due, until `stopping` is set."""
    due = dict.fromkeys((evaluate, recover, delete), 0.0)
    while not stopping.wait(EVERY):
        for work, at in due.items():
            if monotonic() < at:
                continue
            due[work] = monotonic() + _PERIODS[work]
            try:
                work()
            except Exception:
                log.warning("%s failed and is tried again", work.__name__, exc_info=True)


def evaluate() -> None:
    """Submit the jobs of automatic evaluation, and say so if jobs wait for long."""
    waited = internals.seconds_of_oldest_waiting_job()
    if waited > LONG_WAIT:
        log.error(
            "a job has waited for %.0f s, so no further automatic evaluation is begun",
            waited,
            extra={"fields": {"job_waits": round(waited)}},
        )
        return
    internals.submit_automatic_evaluations()


def recover() -> None:
    """Queue jobs again whose worker has ended."""
    recovered = internals.recover_jobs(
        expired_for=EXPIRED_FOR, stale_after=STALE_AFTER, attempts=ATTEMPTS
    )
    for job_id, status in recovered.items():
        log.warning(
            "job %s was lost with its worker and is now %s",
            job_id,
            status,
            extra={"fields": {"job": job_id}},
        )


def delete() -> None:
    """Delete old jobs of automatic evaluation."""
    if deleted := internals.delete_automatic_evaluations(seconds=KEPT_SECONDS):
        log.info("deleted %d old jobs of automatic evaluation", deleted)


_PERIODS: dict[Callable[[], None], float] = {
    evaluate: EVALUATE_EVERY,
    recover: RECOVER_EVERY,
    delete: DELETE_EVERY,
}
