"""Starts the worker: settings, secrets, database, then MLflow's jobs and their gateway."""

import logging
import os
import resource
import sys
from contextlib import suppress
from secrets import token_urlsafe
from threading import Event, Thread

import uvloop

from tracking_server import logs
from tracking_server.artifacts.plugin import gcs_artifact_repository
from tracking_server.boot import schema, secrets
from tracking_server.database import address, engines
from tracking_server.errors import BootError
from tracking_server.gate.callbacks import Callbacks
from tracking_server.jobs import settings
from tracking_server.mlflow import internals
from tracking_server.outgoing import egress, hidden_identity
from tracking_server.outgoing.mlflow_settings import outgoing_settings
from tracking_server.outgoing.response_limits import ProviderAnswers

CONNECTIONS = 3
"""Database connections of the worker itself. `infra/facts/limits.py` reserves as many."""

POLL_SECONDS = 2.0
"""Seconds after which the worker looks for submitted jobs again."""

MEBIBYTE = 1024 * 1024

log = logging.getLogger("tracking_server.jobs")


def run(config: settings.WorkerSettings) -> None:
    """Run jobs until SIGTERM.

    Raises:
        BootError: with one line that says what is missing.
        RuntimeError: if the worker stops without a signal.
    """
    hidden_identity.hide_from_mlflow()
    internals.configure_server(
        backend_store_uri=engines.PLUGIN_URL,
        serve_artifacts=True,
        settings={**_MLFLOW_SETTINGS, **outgoing_settings(config.internal_networks)},
    )
    from tracking_server.jobs import executor, gateway, schedule
    from tracking_server.jobs.process import Surroundings

    executor.prepare()
    values = settings.WorkerSecrets(**secrets.read_stores(config, config.secrets))
    internals.configure_stores(
        artifact_root=values.artifact_url,
        artifact_destination=values.artifact_url,
        kek_passphrase=values.kek_passphrase,
        kek_version=config.kek_version,
    )
    internals.import_flask(gcs_repository=gcs_artifact_repository)
    database = address.parse(values.database_url).at_root(config.cloudsql_root)
    engines.connect_with(database, pool_size=CONNECTIONS)
    engine = engines.single_connection_engine()
    try:
        schema.require(engine, deadline=config.boot_patience)
    finally:
        engine.dispose()
    internals.open_stores()
    app = internals.import_fastapi()
    internals.bound_providers(
        ProviderAnswers(largest=16 * MEBIBYTE, together=64 * MEBIBYTE, values=50_000)
    )
    internals.mark_calls_back()
    port, password = gateway.free_port(), token_urlsafe(32)
    egress.enforce(
        internal_networks=config.internal_networks, own_port=port, may_start_programs=False
    )
    processes = executor.ProcessExecutor(
        internals.executor_config(),
        Surroundings(
            project=config.project,
            artifact_url=values.artifact_url,
            database=database,
            gateway_port=port,
            gateway_password=password,
            internal_networks=config.internal_networks,
        ),
    )
    stopping = Event()
    jobs = Thread(
        target=internals.run_submitted_jobs,
        args=(processes,),
        kwargs={"stopping": stopping, "poll_seconds": POLL_SECONDS},
        daemon=True,
    )
    Thread(target=schedule.run, args=(stopping,), daemon=True).start()
    jobs.start()
    log.info("ready for jobs")
    callbacks = Callbacks(port=port)
    guarded = gateway.JobsGateway(app, password=password, callbacks=callbacks)
    try:
        # Not `run`, which would wait for requests that still run.
        uvloop.new_event_loop().run_until_complete(
            gateway.serve(guarded, port=port, stopping=stopping, jobs=jobs)
        )
    finally:
        processes.stop_executor()


_MLFLOW_SETTINGS = {
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:*",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
    "MLFLOW_SERVER_JOB_EXECUTION_ENGINE": "executor",
    # Custom scorers are users' code.
    "MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS": "false",
    "MLFLOW_SERVER_JOB_DEFAULT_TIMEOUT": "3600",
    # Of each kind; `executor.TOGETHER` is for all kinds.
    "MLFLOW_SERVER_JUDGE_INVOKE_MAX_WORKERS": "2",
    "MLFLOW_SERVER_ONLINE_SCORING_MAX_WORKERS": "2",
    "MLFLOW_SERVER_JOB_LEASE_TTL": "30",
    # Traces are evaluated this many seconds after they began, and at the next minute.
    "MLFLOW_ONLINE_SCORING_DEFAULT_TRACE_COMPLETION_BUFFER_SECONDS": "45",
    "MLFLOW_GENAI_EVAL_MAX_WORKERS": "4",
    # There is no Git.
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ONLINE_SCORING_MAX_WORKER_THREADS": "4",
}


def main() -> int:
    """Run the worker. Returns 0 after SIGTERM, 1 if the boot or the worker fails."""
    # A core dump would hold every secret.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(os.environ.get("GCP_PROJECT"))
    try:
        run(settings.load(os.environ))
    except BootError as error:
        log.critical("%s", error)
        return 1
    except Exception:
        log.critical("the worker has failed", exc_info=True)
        return 1
    log.info("stopped")
    return 0


if __name__ == "__main__":
    code = main()
    with suppress(OSError):
        sys.stdout.flush()
    # A normal exit would wait for threads that wait for jobs.
    os._exit(code)
