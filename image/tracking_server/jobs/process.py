"""Runs one job, in a process that is forked for it and ends with it."""

import json
import logging
import multiprocessing
import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

# Imported before the fork, once for all jobs.
import mlflow.genai.discovery.job
import mlflow.genai.evaluation.job
import mlflow.genai.scorers.job  # noqa: F401

from tracking_server import logs
from tracking_server.boot.settings import Network
from tracking_server.database import engines
from tracking_server.database.address import Address
from tracking_server.mlflow import internals
from tracking_server.outgoing import egress

GATEWAY_USERNAME = "job"

CONNECTIONS = 2
"""Database connections of a job. `infra/facts/limits.py` reserves those of all jobs together."""

LARGEST_RESULT = 16 * 1024 * 1024
"""Bytes of a job's result, which the database keeps."""

OFFERED = frozenset(
    {
        "invoke_scorer",
        "invoke_genai_evaluate",
        "invoke_issue_detection",
        "run_online_trace_scorer",
        "run_online_session_scorer",
    }
)
"""Jobs that work with the packages in the container. The optimization of prompts needs litellm."""

log = logging.getLogger("tracking_server.jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every job needs to reach the database, the bucket and the gateway.

    `gateway_password` is for the worker's own gateway, and for nothing else.
    """

    project: str
    artifact_url: str
    database: Address
    gateway_port: int
    gateway_password: str = field(repr=False)
    internal_networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that was submitted."""

    id: str
    name: str
    function: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """`result` is JSON."""

    result: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A job that failed with this error; a transient one is tried again."""

    error: str
    is_transient: bool = False


def run(job: Job, surroundings: Surroundings, outcome: Connection) -> None:
    """Run the job and send its outcome."""
    Thread(target=_end_with_worker, daemon=True, name="end-with-worker").start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(surroundings.project)
    logging.getLogger().handlers[0].addFilter(lambda record: _name_job(record, job.id))
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # MLflow prints for people
    log.info("%s begins", job.name)

    try:
        _surround(surroundings)
        done: Succeeded | Failed = _call(job)
    except Exception as error:
        log.warning("%s failed", job.name, exc_info=True)
        done = Failed(repr(error), internals.is_transient(error, function=job.function))
    else:
        log.info("%s is done", job.name)
    outcome.send(done)
    outcome.close()
    with suppress(OSError):
        sys.__stdout__.flush()  # type: ignore[union-attr]
    # Without waiting for threads that MLflow has left behind.
    os._exit(0)


def _call(job: Job) -> Succeeded | Failed:
    if job.name not in OFFERED:
        return Failed(f"This server doesn't offer the job {job.name}: run it in your own program")
    result = json.dumps(internals.call_job(job.id, job.function, job.params))
    if len(result) > LARGEST_RESULT:
        return Failed(
            f"The result has {len(result)} bytes, more than {LARGEST_RESULT}: select fewer traces"
        )
    return Succeeded(result)


def _surround(surroundings: Surroundings) -> None:
    port = surroundings.gateway_port
    os.environ |= {
        "MLFLOW_TRACKING_URI": engines.PLUGIN_URL,
        # Judges' models are endpoints of the gateway; the worker's own has the same ones.
        "MLFLOW_GATEWAY_URI": f"http://127.0.0.1:{port}",
        "MLFLOW_TRACKING_USERNAME": GATEWAY_USERNAME,
        "MLFLOW_TRACKING_PASSWORD": surroundings.gateway_password,
    }
    engines.connect_with(surroundings.database, pool_size=CONNECTIONS)
    internals.use_artifacts_of_bucket(surroundings.artifact_url)
    internals.leave_out_import_hooks()
    egress.enforce(
        internal_networks=surroundings.internal_networks,
        own_port=port,
        may_call_itself=True,
        may_start_programs=False,
    )


def _name_job(record: logging.LogRecord, job_id: str) -> bool:
    record.fields = {**getattr(record, "fields", {}), "job": job_id}
    return True


def _end_with_worker() -> None:
    worker = multiprocessing.parent_process()
    assert worker is not None  # noqa: S101
    worker.join()
    os._exit(1)
