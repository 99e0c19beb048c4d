"""The boot: settings, secrets, schema, MLflow behind the gate, serve."""

import gc
import logging
import os
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

# Collecting while a thousand modules are imported costs as much as a third of them.
gc.disable()

from starlette.types import ASGIApp  # noqa: E402

from tracking_server import (  # noqa: E402
    database,
    encryption,
    logs,
    mlflow_internals,
    schema,
    secrets,
    serve,
    settings,
    workers,
)
from tracking_server.composition import Composition  # noqa: E402
from tracking_server.errors import BootError  # noqa: E402
from tracking_server.gate import Gate  # noqa: E402
from tracking_server.replica import ViewersApart  # noqa: E402

if TYPE_CHECKING:
    from flask import Flask

FREE_THREADS = 8
"""Beside one for each database connection: for what waits for the bucket, or for a connection."""

log = logging.getLogger("tracking_server")


def prepare(config: settings.Settings) -> tuple["Flask", secrets.Secrets]:
    """All that one process can do for every other: imports, secrets, schema.

    Raises:
        BootError: with the one line that says what is missing.
    """
    # Secret Manager answers while the names of MLflow's settings are found, which imports much.
    with ThreadPoolExecutor(1, thread_name_prefix="secrets") as thread:
        fetched = thread.submit(secrets.fetch, config)
        mlflow_internals.configure_server(
            backend_store_uri=database.PLUGIN_URL,
            # In direct mode too: experiments that were made while it was proxied stay reachable.
            serve_artifacts=True,
            settings=_mlflow_settings(config),
        )
        values = fetched.result()
    mlflow_internals.configure_stores(
        artifact_root=(
            "mlflow-artifacts:/" if config.artifacts == "proxied" else values.artifact_url
        ),
        artifact_destination=values.artifact_url,
        kek_passphrase=values.kek_passphrase,
        kek_version=config.kek_version,
    )
    flask = mlflow_internals.import_flask()
    database.connect_with(
        values.database_url,
        pool_size=config.pool_share,
        cloudsql_root=config.cloudsql_root,
        replica=config.database_replica,
    )
    engine = database.single_connection_engine()
    schema.ensure(engine, deadline=config.boot_patience)
    encryption.renew(
        engine,
        version=config.kek_version,
        passphrase=values.kek_passphrase,
        known=lambda: secrets.passphrases(config),
    )
    engine.dispose()
    return flask, values


def assemble(
    config: settings.Settings, flask: "Flask", values: secrets.Secrets
) -> tuple[ASGIApp, Callable[[], Awaitable[None]]]:
    """MLflow behind the gate, with this process's own connections, and what closes some of them."""
    mlflow_internals.open_stores()
    # Not before MLflow's own import of what Starlette calls deprecated.
    from tracking_server.admission import Admission
    from tracking_server.runs import answer_at_once
    from tracking_server.transfers import ProxiedTransfers
    from tracking_server.wsgi import FlaskThreads

    answer_at_once(flask)
    threads = config.pool_share + FREE_THREADS
    answering: ASGIApp = FlaskThreads(flask, threads=threads)
    if config.database_replica:
        answering = ViewersApart(users=answering, viewers=FlaskThreads(flask, threads=threads))
    app = Composition(
        flask=answering,
        has_flask_route=flask.url_map.bind("").test,
        import_native=mlflow_internals.import_fastapi,
    )
    transfers = ProxiedTransfers(app, values.artifact_url)
    admission = Admission(transfers, limit=config.max_concurrency)
    gate = Gate(
        admission,
        user=values.user,
        viewer=values.viewer,
        hosts=config.allowed_hosts,
        trusted_proxies=config.trusted_proxies,
    )
    return logs.AccessLog(gate, pool_use=database.pool_use), transfers.close


def _mlflow_settings(config: settings.Settings) -> Mapping[str, str]:
    """MLflow's own checks behind the gate, set so that they let by what the gate lets by."""
    hosts = config.allowed_hosts
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*hosts, *(f"{host}:*" for host in hosts)]),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"https://{host}" for host in hosts),
        # The job runner belongs to MLflow's launcher, which isn't used here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_CONFIGURE_LOGGING": "false",
    }


def main() -> int:
    """The exit code: 0 after SIGTERM, 1 if the boot or the server fails."""
    # A core dump would hold every secret.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(os.environ.get("GCP_PROJECT"))
    started = perf_counter()
    try:
        config = settings.load(os.environ)
        flask, values = prepare(config)
        gc.freeze()
    except BootError as error:
        log.critical("%s", error)
        return 1
    except Exception:
        log.critical("the boot has failed", exc_info=True)
        return 1

    def run() -> int:
        try:
            app, close = assemble(config, flask, values)
            gc.enable()
            log.info("booted in %.2f s", perf_counter() - started)
            serve.run(app, address=config.bind_address, port=config.port, close=close)
        except Exception:
            log.critical("the server has failed", exc_info=True)
            return 1
        database.close_pool()
        log.info("stopped")
        return 0

    return run() if config.processes == 1 else workers.run(config.processes, run)


if __name__ == "__main__":
    code = main()
    # Where nobody reads the log any more, or its disk is full, nothing more can be said.
    with suppress(OSError):
        sys.stdout.flush()
    # At the interpreter's own end granian's threads would still call into it, and abort.
    os._exit(code)
