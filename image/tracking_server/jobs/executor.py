"""Runs each of MLflow's jobs in a process of its own, which can be cancelled.

MLflow's own executor starts programs that inherit its environment, with the database's password.
Here the processes are forked from one that has imported MLflow and knows no secret, and each gets
what it needs through a pipe.
"""

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Event, Semaphore
from time import monotonic
from typing import Any

from mlflow.entities._job_status import JobStatus
from mlflow.exceptions import MlflowException
from mlflow.server.jobs.executor import (
    AbstractJobExecutor,
    JobExecutionContext,
    JobExecutorConfig,
    JobRecoveryResult,
    JobResult,
)
from mlflow.utils.environment import _PythonEnv

from tracking_server.jobs import process
from tracking_server.jobs.process import Failed, Job, Succeeded, Surroundings

TOGETHER = 2
"""Jobs that run at a time. They mostly wait for a model's responses."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    process: BaseProcess
    outcome: Connection
    until: float
    cancelled: bool = False


class ProcessExecutor(AbstractJobExecutor):
    """Runs jobs in forked processes, at most `TOGETHER` at a time."""

    def __init__(self, config: JobExecutorConfig, surroundings: Surroundings) -> None:
        super().__init__(config)
        self._surroundings = surroundings
        self._slots = Semaphore(TOGETHER)
        self._running: dict[str, _Running] = {}
        self._stopped = False

    def submit_job(
        self,
        job_id: str,
        job_name: str,
        fn_fullname: str,
        params: Mapping[str, Any],
        context: JobExecutionContext,
        python_env: _PythonEnv | None = None,
        timeout: float | None = None,
    ) -> None:
        """Start a process for the job, as soon as one may start."""
        del context
        if python_env is not None:
            raise MlflowException.invalid_parameter_value(
                f"The job {job_name} requires other packages, which this server doesn't "
                "install: run it in your own program"
            )
        self._slots.acquire()
        _require_origin()
        try:
            ours, theirs = _FORKING.Pipe(duplex=False)
            with theirs:
                job = Job(id=job_id, name=job_name, function=fn_fullname, params=params)
                started = _FORKING.Process(
                    target=process.run, args=(job, self._surroundings, theirs), daemon=True
                )
                started.start()
        except BaseException:
            self._slots.release()
            raise
        seconds = self.config.default_timeout if timeout is None else timeout
        self._running[job_id] = _Running(started, ours, monotonic() + seconds)

    def wait_for_job(self, job_id: str) -> JobResult:
        """Wait for the job's process, which is ended if it takes too long."""
        running = self._running[job_id]
        try:
            return self._wait(running)
        finally:
            _end(running.process)
            running.process.join()
            running.outcome.close()
            del self._running[job_id]
            self._slots.release()

    def _wait(self, running: _Running) -> JobResult:
        try:
            ended = running.outcome.poll(max(0.0, running.until - monotonic()))
            outcome = running.outcome.recv() if ended else None
        except EOFError:
            outcome = Failed("The job's process ended before the job did", is_transient=True)
        if self._stopped:
            # The worker has handed the job back to the queue, where another one may have it by
            # now. This thread ends with the process.
            Event().wait()
        if running.cancelled:
            return JobResult(JobStatus.CANCELED)
        match outcome:
            case Succeeded(result):
                return JobResult(JobStatus.SUCCEEDED, result=result)
            case Failed(error, is_transient):
                return JobResult(
                    JobStatus.FAILED, error_message=error, is_transient_error=is_transient
                )
        return JobResult(JobStatus.TIMEOUT, error_message="The job took too long")

    def cancel_job(self, job_id: str) -> None:
        """End the job's process."""
        if running := self._running.get(job_id):
            running.cancelled = True
            _end(running.process)

    def recover_jobs(self, unfinished_job_ids: list[str]) -> list[JobRecoveryResult]:
        """Have each job run again, because processes end with their worker."""
        return [JobRecoveryResult(job_id, action="requeue") for job_id in unfinished_job_ids]

    def stop_executor(self) -> None:
        """End all processes."""
        self._stopped = True
        for running in [*self._running.values()]:
            _end(running.process)


def _end(process: BaseProcess) -> None:
    if process.is_alive():  # otherwise another process may have its id by now
        process.kill()


_FORKING = get_context("forkserver")


def prepare() -> None:
    """Start the process that jobs are forked from.

    It inherits the environment of this process, which must not have a secret yet.
    """
    _FORKING.set_forkserver_preload([process.__name__])
    forkserver.ensure_running()


def _require_origin() -> None:
    """End the worker if the process that jobs are forked from has ended.

    Python would start another one, which would inherit the secrets that this process has by now.
    """
    origin = getattr(forkserver, "_forkserver")._forkserver_pid  # noqa: B009
    if sys.platform == "linux" and os.waitid(
        os.P_PID, origin, os.WEXITED | os.WNOHANG | os.WNOWAIT
    ):
        log.critical("the process that jobs are forked from has ended, so the worker ends as well")
        os._exit(1)
