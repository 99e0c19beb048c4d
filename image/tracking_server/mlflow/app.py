"""Imports MLflow, prepares its database, and builds its app behind our limits."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from tracking_server.accounts.assertions import Assertions, Keys
from tracking_server.accounts.logins import Logins
from tracking_server.accounts.people import People
from tracking_server.accounts.permissions import Permissions
from tracking_server.accounts.sign_in import SignIn
from tracking_server.accounts.tables import AccountTables
from tracking_server.artifacts.plugin import gcs_artifact_repository
from tracking_server.boot import encryption, known, schema, secrets
from tracking_server.boot.settings import ServerSettings
from tracking_server.database import engines
from tracking_server.mlflow import auth_app, internals
from tracking_server.mlflow.routing import Composition
from tracking_server.outgoing import egress, iap_keys
from tracking_server.outgoing.mlflow_settings import outgoing_settings
from tracking_server.outgoing.response_limits import ProviderAnswers
from tracking_server.serve import memory

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flask import Flask

    from tracking_server.artifacts.transfers import ProxiedTransfers
    from tracking_server.hot_routes.app import FlaskHeaders
    from tracking_server.hot_routes.searches import Compile

LARGEST_ANSWER, LONGEST_ANSWER = 64 * 1024, 60.0
"""Bytes and seconds of a response from a webhook's address."""

PROVIDERS_VALUES = 50_000
"""JSON values in a model provider's response. An embedding has one for each dimension."""

FREE_THREADS = 8
"""Threads in addition to one for each database connection, for requests that wait for the bucket or
for a connection."""

log = logging.getLogger("tracking_server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlflow:
    """MLflow's app, and what the layers in front of it need from MLflow.

    `transfers` handles artifacts, and passes on other requests. `logins`, `sign_in` and
    `permissions` are those of accounts, if there are accounts.
    """

    app: ASGIApp
    transfers: Callable[[ASGIApp], "ProxiedTransfers"]
    close: Callable[[], Awaitable[None]]
    schema_revision: str
    flask_headers: "FlaskHeaders"
    runs_query: "Compile" = internals.runs_query
    random_run_name: Callable[[], str] = internals.random_run_name
    pool_use: Callable[[], dict[str, int]] = engines.pool_use
    logins: Logins | None
    sign_in: SignIn | None
    permissions: Permissions | None


def prepare(config: ServerSettings, fetched: Callable[[], secrets.SecretValues]) -> "Flask":
    """Do the work that all processes share: imports, settings, schema.

    `fetched` returns the secrets, and waits until they have been fetched: looking up the names of
    MLflow's settings imports many modules.

    Raises:
        BootError: with one line that says what is missing.
    """
    internals.configure_server(
        backend_store_uri=engines.PLUGIN_URL,
        # In direct mode too, so that experiments created in proxied mode stay reachable.
        serve_artifacts=True,
        settings=_mlflow_settings(config),
    )
    values = fetched()
    internals.configure_stores(
        artifact_root=(
            "mlflow-artifacts:/" if config.artifacts == "proxied" else values.artifact_url
        ),
        artifact_destination=values.artifact_url,
        kek_passphrase=values.kek_passphrase,
        kek_version=config.kek_version,
    )
    tables: schema.Tables = known.Revisions()
    if config.default_permission:
        auth_app.configure(
            database_uri=engines.PLUGIN_URL,
            default_permission=config.default_permission,
            session_key=internals.session_key(values.kek_passphrase),
        )
        viewer = values.viewer.username if values.viewer else None
        tables = AccountTables(values.user.username, viewer)
    flask = internals.import_flask(
        gcs_repository=gcs_artifact_repository, accounts=config.default_permission is not None
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
    return flask


def build(config: ServerSettings, flask: "Flask", values: secrets.SecretValues) -> Mlflow:
    """Build the app of this process."""
    internals.open_stores()
    # Imported only after MLflow has imported the module that Starlette calls deprecated.
    from tracking_server.artifacts.transfers import ProxiedTransfers
    from tracking_server.mlflow import account_rules, audit, flask_headers, request_limits
    from tracking_server.mlflow.not_offered import NotOffered
    from tracking_server.mlflow.wsgi import FlaskThreads

    accounts = config.default_permission is not None
    internals.bound_webhooks(largest=LARGEST_ANSWER, seconds=LONGEST_ANSWER)
    request_limits.enforce(flask)
    if accounts:
        audit.watch_changes(flask)
        auth_app.protect_flask(flask)
        account_rules.enforce(flask)
    request_limits.enforce_on_stored(flask)
    threads = config.pool_share + FREE_THREADS
    providers = memory.shares(config.memory, config.processes).providers
    answers = ProviderAnswers(largest=providers // 2, together=providers, values=PROVIDERS_VALUES)
    composition = Composition(
        flask=FlaskThreads(
            flask,
            threads=threads,
            viewers_threads=max(1, threads // 4),
            cut=engines.cut,
        ),
        has_flask_route=flask.url_map.bind("").test,
        import_native=lambda: _import_native(answers, accounts=accounts),
        native_problem=request_limits.query_problem,
    )
    permissions = Permissions(auth_app.allows) if accounts else None
    logins, sign_in = _people(config, values, flask, permissions) if permissions else (None, None)
    egress.enforce(
        internal_networks=config.internal_networks,
        own_port=config.port,
        may_start_programs=config.on_this_computer,
    )
    return Mlflow(
        app=NotOffered(composition, jobs=config.jobs),
        transfers=partial(
            ProxiedTransfers,
            root=values.artifact_url,
            may_transfer=auth_app.may_transfer if accounts else None,
        ),
        close=composition.close,
        flask_headers=flask_headers.responder(flask),
        schema_revision=internals.latest_schema_revision(),
        logins=logins,
        sign_in=sign_in,
        permissions=permissions,
    )


def _people(
    config: ServerSettings, values: secrets.SecretValues, flask: "Flask", permissions: Permissions
) -> tuple[Logins, SignIn | None]:
    """Returns the checks of people's accounts, which are repeated after a change to accounts."""
    own = [login.username for login in (values.user, values.viewer) if login]
    people = People(auth_app.begin, config.administrators, config.domains)
    logins, sign_in = Logins(people.find, reserved=own), None
    if config.iap_audience:
        keys = Keys(lambda: iap_keys.fetch(config.iap_keys))
        assertions = Assertions(audience=config.iap_audience, keys=keys)
        sign_in = SignIn(assertions, people.find_or_create, reserved=own)

    def forget() -> None:
        logins.forget()
        permissions.forget()
        if sign_in:
            sign_in.forget()

    auth_app.watch_accounts(
        flask,
        own=own,
        administrators=config.administrators,
        removing=people.keep_out,
        changed=forget,
    )
    return logins, sign_in


def _import_native(answers: ProviderAnswers, *, accounts: bool) -> "FastAPI":
    """Import MLflow's FastAPI half and apply the gateway's limits."""
    app = internals.import_fastapi()
    if accounts:
        auth_app.protect_fastapi(app)
    internals.bound_providers(answers)
    internals.mark_calls_back()
    return app


def _mlflow_settings(config: ServerSettings) -> Mapping[str, str]:
    """Returns settings that make MLflow's own checks accept what the gate accepts."""
    # The last host is that of calls back to this server.
    hosts = [*config.allowed_hosts, "127.0.0.1"]
    return {
        **outgoing_settings(config.internal_networks),
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join([*hosts, *(f"{host}:*" for host in hosts)]),
        # Guardrails refer to this server by this address; `callbacks` says where their calls go.
        "MLFLOW_GATEWAY_URI": f"http://127.0.0.1:{config.port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(
            f"https://{host}" for host in config.allowed_hosts
        ),
        # `tracking_server.jobs` runs what is submitted here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true" if config.jobs else "false",
        "MLFLOW_SERVER_JOB_EXECUTION_ENGINE": "executor",
        # Custom scorers are users' code.
        "MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS": "false",
        "MLFLOW_CONFIGURE_LOGGING": "false",
    }
