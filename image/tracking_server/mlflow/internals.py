"""Wraps the private parts of MLflow that the server needs.

tests/server/test_mlflow_internals.py states what is expected of each, so that an upgrade that
changes one fails there.
"""

import base64
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
    redirect_stdout,
)
from functools import cache, wraps
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, Table

from tracking_server.mlflow import lazy_pandas
from tracking_server.outgoing import response_limits
from tracking_server.outgoing.egress import call_back

R = TypeVar("R")

READABLE_SCHEMES = frozenset({"gs", "mlflow-artifacts", "runs", "models"})
"""Schemes of artifact addresses; the last two resolve to one of the others."""

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI
    from flask import Flask, Response
    from mlflow.entities import GatewayModelDefinition, GatewaySecretInfo
    from mlflow.server.jobs.executor import AbstractJobExecutor, JobExecutorConfig
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils.crypto import KEKManager


def configure_server(
    *, backend_store_uri: str, serve_artifacts: bool, settings: Mapping[str, str]
) -> None:
    """Set the variables that `mlflow.server` reads while it is imported.

    `settings` are public settings of MLflow, by name.
    """
    os.environ.update(settings)  # first: finding the constants imports `mlflow` itself
    constants = _server_constants()
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = backend_store_uri
    if serve_artifacts:
        os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"


def configure_stores(
    *, artifact_root: str, artifact_destination: str, kek_passphrase: str, kek_version: int
) -> None:
    """Set the variables that `mlflow.server` reads while it is imported and later.

    MLflow accepts the passphrase, and a key that is derived from it, in no other way. The kernel
    shows only the environment that the process was started with, which doesn't hold them, and the
    server starts no other program that would inherit them.
    """
    constants = _server_constants()
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifact_root
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = artifact_destination
    os.environ[constants.CRYPTO_KEK_PASSPHRASE_ENV_VAR] = kek_passphrase
    os.environ[constants.CRYPTO_KEK_VERSION_ENV_VAR] = str(kek_version)
    with lazy_pandas.only_named():
        from mlflow.environment_variables import MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY

    # Without this key each process makes its own, and what it stores is unreadable after a restart.
    MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY.set(webhook_key(kek_passphrase))


def import_flask(*, gcs_repository: object, accounts: bool = False) -> "Flask":
    """Import the Flask half of MLflow's server, which has nine of ten routes.

    With `accounts`, import MLflow's auth app as well, and prevent its import otherwise.

    Raises:
        RuntimeError: if MLflow has read other settings, or uses another repository for `gs://` than
            `gcs_repository`.
    """
    with lazy_pandas.only_named():
        from mlflow.server import app, is_running_as_server
        from mlflow.store.artifact.artifact_repository_registry import (
            get_registered_artifact_repositories,
        )

    leave_out_import_hooks()
    # Only then does Flask do the checks, and set the headers, that FastAPI's middleware does.
    if not is_running_as_server:
        raise RuntimeError("mlflow.server was imported before configure_server")
    if accounts:
        with lazy_pandas.only_named():
            import_module("mlflow.server.auth")
    elif _no_auth_app not in sys.meta_path:
        sys.meta_path.insert(0, _no_auth_app)
    # If MLflow can't load a plug-in it only warns, and uses its own repository.
    repositories: Mapping[str, object] = get_registered_artifact_repositories()
    if repositories.get("gs") is not gcs_repository:
        raise RuntimeError("MLflow did not register this package's artifact repository for gs://")
    close_artifact_schemes(READABLE_SCHEMES)
    flask: Flask = app
    return flask


def leave_out_import_hooks() -> None:
    """Keep MLflow from looking at each later import, which it does for its automatic logging.

    It runs hooks with a lock held that each import takes as well, while it holds Python's own lock.
    So two threads that import modules can wait for each other, for example when MLflow imports the
    functions of jobs. The server doesn't log anything automatically.
    https://github.com/mlflow/mlflow/pull/23466
    """
    from mlflow.utils import import_hooks

    import_hooks._import_hook_finder_init = True


def import_fastapi() -> "FastAPI":
    """Import the FastAPI half of MLflow's server, whose last route is a mount of the Flask app."""
    with lazy_pandas.only_named():
        from mlflow.server import fastapi_app

    app: FastAPI = fastapi_app.app
    return app


def runs_query(
    filter_text: str, order: Sequence[str], view: str
) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """Returns the SQL of a search for runs, and its parameters with their names and values.

    The values of `experiment_ids`, `offset` and `limit` are to be replaced. The result has the
    columns of the runs, in the order of the response.

    Raises:
        Exception: if MLflow doesn't accept the filter or the order.
        ValueError: if the search needs more than joins that keep each run once.
    """
    from mlflow.entities import LifecycleStage, ViewType
    from mlflow.store.tracking import sqlalchemy_store as store
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from mlflow.utils.search_utils import SearchUtils
    from sqlalchemy import ARRAY, BigInteger, Integer, any_, bindparam, select
    from sqlalchemy.dialects import registry
    from sqlalchemy.orm import Session

    runs: Any = SqlRun
    dialect: Any = registry.load("postgresql.asyncpg")()
    session = Session()  # only builds queries
    own, joined, datasets = store._get_sqlalchemy_filter_clauses(
        SearchUtils.parse_search_filter(filter_text), session, "postgresql"
    )
    if datasets:
        raise ValueError("a run can have several datasets that match")
    selected, ordered_by, outer_joined = store._get_orderby_clauses(list(order), session)
    cases = [column for column in selected if getattr(column, "name", "").startswith("clause_")]
    statement = select(*runs.__table__.columns, *cases).select_from(runs)
    for subquery in joined:
        statement = statement.join(subquery)
    for subquery in outer_joined:
        statement = statement.outerjoin(subquery)
    experiment_ids: Any = bindparam("experiment_ids", [], ARRAY(Integer))
    stages = LifecycleStage.view_type_to_stages(ViewType.from_string(view.lower()))
    statement = (
        statement.where(
            runs.experiment_id == any_(experiment_ids),
            runs.lifecycle_stage.in_(sorted(stages)),
            *own,
        )
        .order_by(*ordered_by)
        .offset(bindparam("offset", 0, BigInteger))
        .limit(bindparam("limit", 0, BigInteger))
    )
    compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    return str(compiled), tuple(
        (name, compiled.params[name]) for name in compiled.positiontup or ()
    )


def random_run_name() -> str:
    """Returns a name for a run that was created without one."""
    from mlflow.utils.name_utils import _generate_random_name

    name: str = _generate_random_name()
    return name


def gateway_change(view: object) -> "tuple[str, Any] | None":
    """Returns the kind of change that a view makes to the gateway, and the parsed request."""
    from mlflow.protos import service_pb2
    from mlflow.server import handlers

    for kind, name in (
        ("create_secret", "CreateGatewaySecret"),
        ("update_secret", "UpdateGatewaySecret"),
        ("create_model_definition", "CreateGatewayModelDefinition"),
        ("update_model_definition", "UpdateGatewayModelDefinition"),
    ):
        message = getattr(service_pb2, name)
        if handlers.HANDLERS[message] is view:
            return kind, handlers._get_request_message(message())
    return None


def gateway_secret(secret_id: str) -> "GatewaySecretInfo":
    """Returns a stored secret without its value.

    Raises:
        MlflowException: if it doesn't exist.
    """
    from mlflow.server.handlers import _get_tracking_store

    secret: GatewaySecretInfo = _get_tracking_store().get_secret_info(secret_id)
    return secret


def gateway_model_definition(model_definition_id: str) -> "GatewayModelDefinition":
    """Returns a stored model definition.

    Raises:
        MlflowException: if it doesn't exist.
    """
    from mlflow.server.handlers import _get_tracking_store

    store = _get_tracking_store()
    definition: GatewayModelDefinition = store.get_gateway_model_definition(model_definition_id)
    return definition


def same_provider(one: str, other: str) -> bool:
    """Whether MLflow treats two names as the same provider."""
    from mlflow.utils.provider_filter import normalize_provider_name

    return bool(normalize_provider_name(one) == normalize_provider_name(other))


def history_exceeds(run_id: str, key: str, values: int) -> bool:
    """Whether a run's metric has more than so many values."""
    from mlflow.server.handlers import _get_tracking_store
    from mlflow.store.tracking.dbmodels.models import SqlMetric

    store: Any = _get_tracking_store()
    with store.ManagedSessionMaker() as session:
        found = session.query(SqlMetric.key).filter_by(run_uuid=run_id, key=key)
        return found.offset(values).limit(1).first() is not None


def mark_calls_back() -> None:
    """Mark the calls that the gateway's guardrails make to this server itself."""
    from mlflow.gateway.guardrails import JudgeGuardrail

    judge, sanitize = JudgeGuardrail._invoke_judge, JudgeGuardrail._sanitize
    if hasattr(judge, "__wrapped__"):
        return

    @wraps(judge)
    def invoke_judge(*args: Any, **kwargs: Any) -> Any:
        with call_back():
            return judge(*args, **kwargs)

    @wraps(sanitize)
    async def sanitized(*args: Any, **kwargs: Any) -> Any:
        with call_back():
            return await sanitize(*args, **kwargs)

    JudgeGuardrail._invoke_judge = invoke_judge  # type: ignore[method-assign]
    JudgeGuardrail._sanitize = sanitized  # type: ignore[method-assign]


def bound_webhooks(*, largest: int, seconds: float) -> None:
    """Limit the responses of webhooks' addresses; see `response_limits.bound_session`."""
    from mlflow.webhooks import delivery

    session = delivery._create_webhook_session()
    response_limits.bound_session(session, largest=largest, seconds=seconds)
    delivery._webhook_session = session


def bound_providers(answers: response_limits.ProviderAnswers) -> None:
    """Limit the responses of model providers."""
    from mlflow.gateway.providers import utils

    post = utils._aiohttp_post
    if getattr(post, "bounded", False):
        return

    @asynccontextmanager
    async def bounded_post(*args: Any, **kwargs: Any) -> "AsyncIterator[Any]":
        async with post(*args, **kwargs) as response:
            with answers.bounded(response.content) as content:
                response.content = content
                yield response

    bounded_post.bounded = True  # type: ignore[attr-defined]
    utils._aiohttp_post = bounded_post


def close_artifact_schemes(allowed: Collection[str]) -> None:
    """Make MLflow refuse artifact addresses with any other scheme."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact import artifact_repository_registry as registry

    def refuse(artifact_uri: str, **_: object) -> "ArtifactRepository":
        scheme = artifact_uri.partition(":")[0][:20] if ":" in artifact_uri else "no scheme"
        raise MlflowException.invalid_parameter_value(
            f"The artifacts are at an address with {scheme!r}, which this server doesn't read: it "
            f"reads {', '.join(sorted(allowed))}"
        )

    for scheme in registry.get_registered_artifact_repositories():
        if scheme not in allowed:
            registry._artifact_repository_registry.register(scheme, refuse)


def error_answers(view: "Callable[..., R]") -> "Callable[..., R | Response]":
    """Wrap a view so that its exceptions become responses as in MLflow's own views."""
    from mlflow.server.handlers import catch_mlflow_exception

    wrapped: Callable[..., R | Response] = catch_mlflow_exception(view)
    return wrapped


def content_disposition(file_name: str) -> str:
    """Returns the header that makes a browser save the response under this name."""
    from mlflow.server.handlers import _content_disposition_attachment

    header: str = _content_disposition_attachment(file_name)
    return header


def mime_type(file_name: str) -> str:
    """Returns the MIME type that MLflow guesses from a name; `MLmodel` and the like are text."""
    from mlflow.utils.mime_type_utils import _guess_mime_type

    guessed: str = _guess_mime_type(file_name)
    return guessed


def open_stores() -> None:
    """Connect the tracking store and the registry, as MLflow's own launcher does."""
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores()


def open_store_of_bucket(uri: str, *, bucket: str) -> "SqlAlchemyStore":
    """Returns a tracking store for a job, whose artifacts are in the bucket, without a server."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    use_artifacts_of_bucket(bucket)
    return SqlAlchemyStore(uri, bucket)


def use_artifacts_of_bucket(bucket: str) -> None:
    """Make MLflow find all artifacts in the bucket.

    It would call a server for the addresses that clients reach through it.
    """
    from mlflow.store.artifact import artifact_repository_registry as registry

    def of_bucket(artifact_uri: str, **_: object) -> "ArtifactRepository":
        path = artifact_uri.removeprefix("mlflow-artifacts:/")
        return registry.get_artifact_repository(f"{bucket.rstrip('/')}/{path}")

    close_artifact_schemes({"gs"})
    registry._artifact_repository_registry.register("mlflow-artifacts", of_bucket)


def run_submitted_jobs(
    executor: "AbstractJobExecutor", *, stopping: Event, poll_seconds: float
) -> None:
    """Claim submitted jobs and have the executor run them, until `stopping` is set.

    MLflow calls this only in a process that its launcher starts, next to huey.
    """
    from mlflow.server.jobs._executor_runner import run_executor_loop

    run_executor_loop(executor, stopping, poll_seconds)


def executor_config() -> "JobExecutorConfig":
    """Returns MLflow's settings of job executors."""
    from mlflow.server.jobs.executor_registry import _build_executor_config_from_env

    return _build_executor_config_from_env()


def call_job(job_id: str, function: str, params: Mapping[str, Any]) -> Any:
    """Call a job's function in this process, and return its result."""
    from mlflow.server.jobs.progress import JobTracker, _set_job_tracker
    from mlflow.server.jobs.utils import _load_function

    _set_job_tracker(JobTracker(job_id))
    return _load_function(function)(**params)


def is_transient(error: Exception, *, function: str) -> bool:
    """Whether a job that failed with this error is to be tried again."""
    from mlflow.server.jobs import TransientError
    from mlflow.server.jobs.utils import _load_function

    known = _load_function(function)._job_fn_metadata.transient_error_classes or []  # type: ignore[attr-defined]
    return isinstance(error, TransientError) or type(error) in known


def submit_automatic_evaluations() -> None:
    """Submit a job for each experiment whose new traces are evaluated automatically.

    MLflow's own schedule for this needs huey.
    """
    from mlflow.genai.scorers.job import run_online_scoring_scheduler

    run_online_scoring_scheduler()


def recover_jobs(*, expired_for: float, stale_after: float, attempts: int) -> dict[str, str]:
    """Queue the jobs again whose worker has ended, and return the new status of each.

    Their lease expired so many seconds ago, or a worker that stopped has handed them back. Jobs
    without a lease are from another server, and stale if nothing has changed them for so long. A
    job that was tried that often fails.
    """
    from mlflow.entities._job_status import JobStatus
    from mlflow.server.handlers import _get_job_store
    from mlflow.store.jobs.abstract_store import JobUpdateStatus
    from mlflow.store.tracking.dbmodels.models import SqlJob
    from mlflow.utils.time import get_current_time_millis
    from sqlalchemy import and_, func, or_

    store: Any = _get_job_store()
    job: Any = SqlJob
    now = get_current_time_millis()
    running, handed_back = JobStatus.RUNNING, JobStatus.NEEDS_RECOVERY
    expires = func.coalesce(
        job.lease_expires_at + int(1000 * expired_for),
        job.last_update_time + int(1000 * stale_after),
    )
    lost = or_(
        job.status == handed_back.to_int(),
        and_(job.status == running.to_int(), expires < now),
    )
    recovered: dict[str, str] = {}
    with store.ManagedSessionMaker(read_only=False) as session:
        found = session.query(job.id, job.retry_count).filter(lost).all()
        for job_id, tried in found:
            status = JobStatus.FAILED if tried + 1 >= attempts else JobStatus.PENDING
            values = (
                store._terminal_update_values(
                    status, f"The worker ended {attempts} times while it ran this job", now
                )
                if status is JobStatus.FAILED
                else store._pending_update_values(now, increment_retry=True)
            )
            applied = store._conditional_status_update(
                session, job_id, (running, handed_back), values, additional_filters=(lost,)
            )
            if applied == JobUpdateStatus.APPLIED:
                recovered[job_id] = str(status)
    return recovered


def delete_automatic_evaluations(*, seconds: int) -> int:
    """Delete the ended jobs of automatic evaluation that are so old, and return how many.

    There is one for each experiment and minute.
    """
    from mlflow.entities._job_status import JobStatus
    from mlflow.genai.scorers import job
    from mlflow.server.handlers import _get_job_store
    from mlflow.utils.time import get_current_time_millis

    store = _get_job_store()
    ended = [status for status in JobStatus if JobStatus.is_finalized(status)]
    ids = [
        found.job_id
        for name in (job.ONLINE_TRACE_SCORER_JOB_NAME, job.ONLINE_SESSION_SCORER_JOB_NAME)
        for found in store.list_jobs(
            name, ended, end_timestamp=get_current_time_millis() - 1000 * seconds
        )
    ]
    return len(store.delete_jobs(job_ids=ids)) if ids else 0


def seconds_of_oldest_waiting_job() -> float:
    """Returns how long the oldest job has waited for a worker; 0 if none waits."""
    from mlflow.entities._job_status import JobStatus
    from mlflow.server.handlers import _get_job_store
    from mlflow.utils.time import get_current_time_millis

    oldest = next(iter(_get_job_store().list_jobs(statuses=[JobStatus.PENDING])), None)
    return (get_current_time_millis() - oldest.creation_time) / 1000 if oldest else 0.0


def collect_garbage(store: "SqlAlchemyStore", kind: str, ids: Sequence[str], *, days: int) -> None:
    """Do what `mlflow gc --older-than` does, for these ids of a kind only.

    The command itself can't be told to delete nothing of the other kinds.

    Raises:
        MlflowException: if one isn't deleted, or was deleted later.
    """
    from mlflow.cli import _gc_tracking_resources

    with redirect_stdout(StringIO()):
        _gc_tracking_resources(
            backend_store=store,
            run_ids=[*ids] if kind == "run" else [],
            experiment_ids=[*ids] if kind == "experiment" else None,
            logged_model_ids=[*ids] if kind == "logged model" else [],
            older_than=f"{days}d",
            time_delta=days * 24 * 3600 * 1000,
            skip_experiments=kind != "experiment",
            skip_logged_models=kind != "logged model",
        )


def archive_traces(store: "SqlAlchemyStore", *, location: str, days: int, most: int) -> int:
    """Move the spans of the oldest traces, and return of how many.

    MLflow's scheduler calls this every few minutes, in a process that only its launcher starts.
    """
    return store.archive_traces(
        resolved_trace_archival_location=location,
        broader_retention=f"{days}d",
        max_traces_per_pass=most,
    )


def count_traces_to_archive(store: "SqlAlchemyStore", *, days: int, most: int) -> int:
    """Returns how many traces `archive_traces` would move, up to `most`."""
    with store.ManagedSessionMaker() as session:
        _, found = store._plan_trace_archival(
            session=session,
            now_millis=store._get_archive_traces_now_millis(),
            broader_retention_millis=days * 24 * 3600 * 1000,
            long_retention_allowlist=set(),
            max_traces_per_pass=most,
        )
    return len(found)


def delete_artifacts(location: str) -> None:
    """Delete all artifacts at an address."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(location).delete_artifacts()


def schema_revision(connection: Connection) -> str | None:
    """Returns the database's Alembic revision, None if MLflow has never used the database."""
    from mlflow.store.db.utils import _get_schema_version

    revision: str | None = _get_schema_version(_OneConnection(connection))
    return revision


@cache
def latest_schema_revision() -> str:
    """Returns the revision that this version of MLflow requires; Alembic reads all migrations."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    revision: str = _get_latest_schema_revision()
    return revision


def known_schema_revisions() -> frozenset[str]:
    """Returns the revisions that this version of MLflow can upgrade from."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(db_url=""))
    return frozenset(script.revision for script in scripts.walk_revisions())


def create_or_upgrade_schema(connection: Connection) -> None:
    """Create the tables in an empty database, or upgrade the existing ones.

    Everything happens in the connection's transaction; MLflow's own function uses several.
    """
    from alembic import command
    from mlflow.store.db.utils import _all_tables_exist, _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    if schema_revision(connection) is None and not _all_tables_exist(connection):
        InitialBase.metadata.create_all(connection)
    config = _get_alembic_config(db_url="")
    config.attributes["connection"] = _OneConnection(connection)
    command.upgrade(config, "heads")


class _OneConnection:
    """Stands in for an engine, so that MLflow's code uses this connection and opens no other.

    Alembic doesn't begin or commit a transaction if the connection already has one.
    """

    def __init__(self, connection: Connection) -> None:
        self.engine = self
        self._connection = connection

    def connect(self) -> AbstractContextManager[Connection]:
        return nullcontext(self._connection)


def gateway_keys() -> Table:
    """Returns the table of the gateway's API keys.

    Each is encrypted with its own key, which the passphrase of version `kek_version` has wrapped.
    """
    from mlflow.store.tracking.dbmodels.models import SqlGatewaySecret

    table: Table = SqlGatewaySecret.__table__
    return table


def webhooks() -> Table:
    """Returns the table of webhooks, whose secrets are encrypted with `webhook_key`."""
    from mlflow.store.model_registry.dbmodels.models import SqlWebhook

    table: Table = SqlWebhook.__table__
    return table


def rewrapped(wrapped: bytes, *, old: tuple[int, str], new: tuple[int, str]) -> bytes | None:
    """Wrap a key with another version and passphrase; None if the old ones can't unwrap it."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.crypto import rotate_secret_encryption

    try:
        renewed: bytes = rotate_secret_encryption(b"", wrapped, _kek(*old), _kek(*new)).wrapped_dek
    except MlflowException:
        return None
    return renewed


@cache
def _kek(version: int, passphrase: str) -> "KEKManager":
    """Returns a key manager, cached: deriving its key takes a third of a second, on purpose."""
    from mlflow.utils.crypto import KEKManager

    return KEKManager(passphrase=passphrase, kek_version=version)


def webhook_key(passphrase: str) -> str:
    """Returns the key for the webhooks' secrets, derived from the passphrase."""
    return _fernet_key(passphrase, purpose="webhooks")


def session_key(passphrase: str) -> str:
    """Returns the key that signs the cookies of Flask, derived from the passphrase."""
    return _fernet_key(passphrase, purpose="sessions")


def _fernet_key(passphrase: str, *, purpose: str) -> str:
    """Derive a key by RFC 5869, which reveals neither the passphrase nor other purposes' keys."""
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode())
    return base64.urlsafe_b64encode(key.derive(passphrase.encode())).decode()


class _NoAuthApp(MetaPathFinder):
    """Makes the import of MLflow's auth app fail, as it does if Flask-WTF isn't installed.

    Every search for runs imports it if it can, and then asks it for the caller's permissions. A
    server without accounts has no such app.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "mlflow.server.auth":
            raise ModuleNotFoundError(f"{fullname} is for servers with accounts", name=fullname)


_no_auth_app = _NoAuthApp()


def _server_constants() -> ModuleType:
    """Import `mlflow.server.constants` without `mlflow.server`, which reads the environment."""
    with lazy_pandas.only_named():
        package = find_spec("mlflow.server")
    assert package is not None and package.origin is not None  # noqa: S101, PT018
    spec = spec_from_file_location(
        "tracking_server.mlflow_server_constants", Path(package.origin).with_name("constants.py")
    )
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
