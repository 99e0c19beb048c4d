"""Starts the server: settings, secrets, schema, then MLflow behind the gate."""

import gc
import logging
import os
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING

# Garbage collection while a thousand modules are imported takes a third as long as the imports.
gc.disable()

from starlette.types import ASGIApp  # noqa: E402

from tracking_server import logs  # noqa: E402
from tracking_server.accounts.logins import Logins  # noqa: E402
from tracking_server.accounts.permissions import Permissions  # noqa: E402
from tracking_server.accounts.tables import AccountTables  # noqa: E402
from tracking_server.artifacts.plugin import gcs_artifact_repository  # noqa: E402
from tracking_server.boot import encryption, schema, secrets, settings  # noqa: E402
from tracking_server.database import engines  # noqa: E402
from tracking_server.errors import BootError  # noqa: E402
from tracking_server.gate.access_log import AccessLog  # noqa: E402
from tracking_server.gate.callbacks import Callbacks  # noqa: E402
from tracking_server.gate.gate import Gate  # noqa: E402
from tracking_server.mlflow import auth_app, internals  # noqa: E402
from tracking_server.mlflow.routing import Composition  # noqa: E402
from tracking_server.outgoing import egress, google_api  # noqa: E402
from tracking_server.outgoing.response_limits import ProviderAnswers  # noqa: E402
from tracking_server.serve import memory, server, workers  # noqa: E402

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flask import Flask

    from tracking_server.hot_routes.routes import Database

LARGEST_ANSWER, LONGEST_ANSWER = 64 * 1024, 60.0
"""Bytes and seconds of a response from a webhook's address."""

PROVIDERS_VALUES = 50_000
"""JSON values in a model provider's response. An embedding has one for each dimension."""

MAX_FILES = 64 * 1024
"""Open files and connections, if the system allows that many."""

FREE_THREADS = 8
"""Threads in addition to one for each database connection, for requests that wait for the bucket or
for a connection."""

GATEWAY_PROVIDERS = (
    "anthropic",
    "azure",
    "bedrock",
    "deepseek",
    "gemini",
    "groq",
    "mistral",
    "ollama",
    "openai",
    "openrouter",
    "portkey",
    "typesafe",
    "vertex_ai",
    "xai",
)
"""Providers that work with the packages in the container. Databricks is left out: its SDK searches
the server for credentials, and blocks the whole server while it connects to a caller's address."""

log = logging.getLogger("tracking_server")


def prepare(config: settings.ServerSettings) -> tuple["Flask", secrets.SecretValues, Callbacks]:
    """Do the work that all processes share: imports, secrets, schema.

    Raises:
        BootError: with one line that says what is missing.
    """
    google_api.hide_from_mlflow()
    # Fetch the secrets meanwhile: looking up the names of MLflow's settings imports many modules.
    with ThreadPoolExecutor(1, thread_name_prefix="secrets") as thread:
        fetched = thread.submit(secrets.fetch, config)
        internals.configure_server(
            backend_store_uri=engines.PLUGIN_URL,
            # In direct mode too, so that experiments created in proxied mode stay reachable.
            serve_artifacts=True,
            settings=_mlflow_settings(config),
        )
        values = fetched.result()
    internals.configure_stores(
        artifact_root=(
            "mlflow-artifacts:/" if config.artifacts == "proxied" else values.artifact_url
        ),
        artifact_destination=values.artifact_url,
        kek_passphrase=values.kek_passphrase,
        kek_version=config.kek_version,
    )
    tables = None
    if config.default_permission:
        auth_app.configure(
            database_uri=engines.PLUGIN_URL,
            default_permission=config.default_permission,
            session_key=internals.session_key(values.kek_passphrase),
        )
        viewer = values.viewer.username if values.viewer else None
        tables = AccountTables(values.user.username, viewer)
    flask = internals.import_flask(
        gcs_repository=gcs_artifact_repository, accounts=tables is not None
    )
    engines.connect_with(
        values.database.at_root(config.cloudsql_root),
        pool_size=config.pool_share - config.hot_connections,
    )
    engine = engines.single_connection_engine()
    schema.ensure(engine, deadline=config.boot_patience, more=tables)
    encryption.renew(
        engine,
        version=config.kek_version,
        passphrase=values.kek_passphrase,
        known=lambda: secrets.passphrases(config),
    )
    engine.dispose()
    return flask, values, Callbacks(port=config.port)


def assemble(
    config: settings.ServerSettings,
    flask: "Flask",
    values: secrets.SecretValues,
    callbacks: Callbacks,
) -> tuple[ASGIApp, Callable[[], Awaitable[None]]]:
    """Returns MLflow behind the gate, and a function that closes the connections to the bucket."""
    internals.open_stores()
    # Imported only after MLflow has imported the module that Starlette calls deprecated.
    from tracking_server.artifacts.transfers import ProxiedTransfers
    from tracking_server.database.result_limits import AnswerLimit, Answers
    from tracking_server.gate.body_limits import Bodies
    from tracking_server.gate.concurrency_limit import Admission
    from tracking_server.gate.response_headers import ResponseHeaders
    from tracking_server.gate.stall_timeout import Stalls
    from tracking_server.hot_routes.app import HotRoutes
    from tracking_server.mlflow import account_rules, audit, flask_headers, request_limits
    from tracking_server.mlflow.not_offered import NotOffered
    from tracking_server.mlflow.wsgi import FlaskThreads
    from tracking_server.page.compressed_json import CompressedJson
    from tracking_server.page.files import build_folder
    from tracking_server.page.static_files import INDEX, PageFiles

    accounts = config.default_permission is not None
    internals.bound_webhooks(largest=LARGEST_ANSWER, seconds=LONGEST_ANSWER)
    request_limits.enforce(flask)
    if accounts:
        audit.watch_changes(flask)
        auth_app.protect_flask(flask)
        account_rules.enforce(flask)
    request_limits.enforce_on_stored(flask)
    threads = config.pool_share + FREE_THREADS
    shares = memory.shares(config.memory, config.processes)
    answering = FlaskThreads(
        flask,
        threads=threads,
        viewers_threads=max(1, threads // 4),
        cut=engines.cut,
    )
    providers = ProviderAnswers(
        largest=shares.providers // 2, together=shares.providers, values=PROVIDERS_VALUES
    )
    app = NotOffered(
        Composition(
            flask=answering,
            has_flask_route=flask.url_map.bind("").test,
            import_native=lambda: _import_native(providers, accounts=accounts),
            native_problem=request_limits.query_problem,
        )
    )
    permissions = Permissions(auth_app.allows) if accounts else None
    database = _hot_database(config, values, permissions)
    hot = HotRoutes(app, database, flask_headers.responder(flask)) if database else app
    limited = AnswerLimit(hot, user=Answers(shares.answers), viewer=Answers(shares.viewers_answers))
    transfers = ProxiedTransfers(
        Bodies(limited),
        values.artifact_url,
        may_transfer=auth_app.may_transfer if accounts else None,
    )
    page_folder = build_folder()
    page = PageFiles(CompressedJson(transfers), folder=page_folder)
    admission = Admission(Stalls(page), limit=config.max_concurrency)
    gate = Gate(
        admission,
        user=values.user,
        viewer=values.viewer,
        previous_user=values.previous_user,
        previous_viewer=values.previous_viewer,
        hosts=config.allowed_hosts,
        callbacks=callbacks,
        trusted_proxies=config.trusted_proxies,
        on_this_computer=config.on_this_computer,
        logins=_logins(values, flask, permissions) if permissions else None,
    )
    egress.enforce(
        internal_networks=config.internal_networks,
        own_port=config.port,
        may_start_programs=config.on_this_computer,
    )
    access_log = AccessLog(gate, pool_use=engines.pool_use)
    # Outermost: the access log sends a response too, when everything inside has failed.
    headers = ResponseHeaders(
        access_log,
        page=page_folder / INDEX,
        embeddable=internals.embeddable_page(),
    )

    async def close() -> None:
        if database:
            await database.close()
        await transfers.close()

    return headers, close


def _logins(values: secrets.SecretValues, flask: "Flask", permissions: Permissions) -> Logins:
    """Returns the check of people's logins, which is repeated after a change to accounts."""
    own = [login.username for login in (values.user, values.viewer) if login]
    logins = Logins(auth_app.find_account, reserved=own)

    def forget() -> None:
        logins.forget()
        permissions.forget()

    auth_app.watch_accounts(flask, own=own, changed=forget)
    return logins


def _hot_database(
    config: settings.ServerSettings,
    values: secrets.SecretValues,
    permissions: Permissions | None,
) -> "Database | None":
    """Returns the hot routes' own connections to the database, None if the routes are off."""
    from tracking_server.hot_routes.connections import Connections
    from tracking_server.hot_routes.routes import Database
    from tracking_server.hot_routes.searches import Searches
    from tracking_server.hot_routes.statements import SCHEMA_REVISION

    if (revision := internals.latest_schema_revision()) != SCHEMA_REVISION:
        log.warning(
            "hot routes are off: they were tested with the schema %s, and this is %s",
            SCHEMA_REVISION,
            revision,
        )
        return None
    if not config.hot_connections:
        log.info("hot routes are off: they need one more database connection for each process")
        return None
    address = values.database.at_root(config.cloudsql_root)
    connections = Connections(address, count=config.hot_connections)
    return Database(
        connections,
        Searches(internals.runs_query),
        permissions,
        random_name=internals.random_run_name,
    )


def _import_native(providers: ProviderAnswers, *, accounts: bool) -> "FastAPI":
    """Import MLflow's FastAPI half and apply the gateway's limits."""
    app = internals.import_fastapi()
    if accounts:
        auth_app.protect_fastapi(app)
    internals.bound_providers(providers)
    internals.mark_calls_back()
    return app


def _mlflow_settings(config: settings.ServerSettings) -> Mapping[str, str]:
    """Returns settings that make MLflow's own checks accept what the gate accepts."""
    # The last host is that of calls back to this server.
    hosts = [*config.allowed_hosts, "127.0.0.1"]
    # With internal networks, `egress` decides which addresses are allowed. HTTPS is rare there.
    inside = "true" if config.internal_networks else "false"
    schemes = "http,https" if config.internal_networks else "https"
    return {
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": inside,
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": schemes,
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": inside,
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": schemes,
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*hosts, *(f"{host}:*" for host in hosts)]),
        # Guardrails refer to this server by this address; `callbacks` says where their calls go.
        "MLFLOW_GATEWAY_URI": f"http://127.0.0.1:{config.port}",
        "MLFLOW_GATEWAY_ALLOWED_PROVIDERS": ",".join(GATEWAY_PROVIDERS),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(
            f"https://{host}" for host in config.allowed_hosts
        ),
        # The job runner belongs to MLflow's launcher, which isn't used here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_CONFIGURE_LOGGING": "false",
    }


def main() -> int:
    """Run the server. Returns 0 after SIGTERM, 1 if the boot or the server fails."""
    # A core dump would hold every secret.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Each connection uses a file descriptor; without a free one nobody is served.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_FILES), most))
    memory.give_back_large_blocks()
    logs.configure(os.environ.get("GCP_PROJECT"))
    started = perf_counter()
    log.info("mlflow-gcp %s, MLflow %s", version("tracking-server"), version("mlflow"))
    try:
        config = settings.load(os.environ)
        flask, values, callbacks = prepare(config)
        gc.freeze()
    except BootError as error:
        log.critical("%s", error)
        return 1
    except Exception:
        log.critical("the boot has failed", exc_info=True)
        return 1

    def run() -> int:
        try:
            app, close = assemble(config, flask, values, callbacks)
            gc.enable()
            log.info("booted in %.2f s", perf_counter() - started)
            server.run(app, address=config.bind_address, port=config.port, close=close)
        except Exception:
            log.critical("the server has failed", exc_info=True)
            return 1
        engines.close_pool()
        log.info("stopped")
        return 0

    return run() if config.processes == 1 else workers.run(config.processes, run)


if __name__ == "__main__":
    code = main()
    # Fails if nobody reads the log any more or its disk is full; there is nowhere to report that.
    with suppress(OSError):
        sys.stdout.flush()
    # A normal exit would abort, because granian's threads still call into the interpreter.
    os._exit(code)
