"""Wraps the private parts of MLflow's auth app: users, roles and permissions."""

import os
import re
import tempfile
from collections.abc import Callable, Collection
from configparser import ConfigParser
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from tracking_server.accounts.identity import AUTHORIZATION_FUNCTION
from tracking_server.accounts.permissions import Action
from tracking_server.mlflow import internals

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flask import Flask

_VERSION_TABLE = "alembic_version_auth"

_MLFLOW = r"/(?:ajax-)?api/[0-9.]+/mlflow/"
_ACCOUNTS = re.compile(_MLFLOW + "(?:users|roles)/")
_OWN_STAY = re.compile(_MLFLOW + "users/(?P<change>delete|update-admin|update-password)")


def configure(*, database_uri: str, default_permission: str, session_key: str) -> None:
    """Set what MLflow's auth app reads while it is imported.

    `default_permission` is what everyone may do without a grant. `session_key` signs the cookies
    of its sign-up form, and must be the same in all instances.
    """
    config = ConfigParser(interpolation=None)
    config["mlflow"] = {
        "database_uri": database_uri,
        "default_permission": default_permission,
        "authorization_function": AUTHORIZATION_FUNCTION,
    }
    with tempfile.NamedTemporaryFile("w", prefix="auth-", suffix=".ini", delete=False) as file:
        config.write(file)
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = file.name
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = session_key
    os.environ["MLFLOW_BASIC_AUTH_FAIL_CLOSED"] = "true"
    # The schema's upgrade creates the administrator's account.
    os.environ["_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED"] = "true"


def protect_flask(flask: "Flask") -> None:
    """Add MLflow's routes for accounts, and its permission checks before each Flask view."""
    from mlflow.server import auth

    auth.create_app(flask)


def watch_accounts(
    flask: "Flask",
    *,
    own: Collection[str],
    administrators: Collection[str],
    removing: Callable[[str], None],
    changed: Callable[[], None],
) -> None:
    """Call `removing` before an account is removed, and `changed` after each change to accounts.

    Changes to the stack's `own` accounts are refused, and to what its settings say of
    `administrators`.
    """
    from flask import Response, request
    from mlflow.exceptions import MlflowException
    from mlflow.server import auth

    @internals.error_answers
    def check() -> None:
        if not (found := _OWN_STAY.fullmatch(request.path)):
            return
        name, change = auth._get_request_param("username"), found["change"]
        if name in own:
            raise MlflowException.invalid_parameter_value(
                "This is the login of the stack itself. Its password is in Secret Manager: "
                "make rotate replaces it. It can't be removed, and its rights don't change."
            )
        if name in administrators and change != "update-password":
            raise MlflowException.invalid_parameter_value(
                "The stack's setting accountsAdministrators lists this person: remove the address "
                "from it, and run pulumi up."
            )
        if change == "delete" and isinstance(name, str):
            # Earlier than MLflow: without an account, Google's sign-in would create another one.
            removing(name)

    def tell(response: Response) -> Response:
        if _ACCOUNTS.match(request.path) and request.method != "GET" and response.status_code < 400:
            changed()
        return response

    flask.before_request(check)
    flask.after_request(tell)


def protect_fastapi(app: "FastAPI") -> None:
    """Add MLflow's permission checks before each route of the FastAPI half."""
    from mlflow.server import auth

    auth.add_fastapi_permission_middleware(app)


def begin() -> AbstractContextManager[Connection]:
    """Returns a connection to the accounts' tables, in a transaction."""
    from mlflow.server import auth

    engine: Engine = auth.store.engine
    return engine.begin()


def may_transfer(username: str, method: str, path: str) -> bool:
    """Whether an account may download (GET) or upload (PUT) an artifact.

    `path` is the request's whole path.
    """
    from mlflow.server import auth

    action = {"GET": "read", "PUT": "update"}[method]
    return bool(auth._authorize_fastapi_artifact_proxy(path, username, None, action))


def allows(username: str, action: Action, *, experiment_id: str, run_id: str) -> bool:
    """Whether an account gets from a hot route exactly what it would get from MLflow's own.

    This makes the checks that MLflow makes before the route. After the route, MLflow leaves out a
    run's models if the account is denied models.
    """
    from mlflow.server import auth
    from mlflow.server.auth.permissions import RESOURCE_TYPE_LOGGED_MODEL, RESOURCE_TYPE_RUN
    from mlflow.server.auth.requirements import ACTION_NOT_DENIED, Requirement

    if action in ("read run", "update run"):
        required = auth._run_requirement(run_id, action.removesuffix(" run"))
        granted = required is not None and auth.authorize(username, *required)
    elif action == "create run":
        granted = auth._authorize_create_in_experiment_as(
            username, experiment_id, RESOURCE_TYPE_RUN
        )
    elif action == "read experiment":
        granted = auth._get_experiment_permission(experiment_id, username).can_read
    else:
        runs = Requirement(RESOURCE_TYPE_RUN, "*", ACTION_NOT_DENIED)
        may_read = auth._role_based_read_predicate(username, "experiment", also_require=[runs])
        granted = may_read(experiment_id)
    if action in ("read run", "search runs"):
        granted = granted and not auth._denied_sibling_tiers(
            username, (RESOURCE_TYPE_LOGGED_MODEL,)
        )
    return bool(granted)


def is_own_source() -> bool:
    """Whether the model version that the current request creates has a source that it may have.

    MLflow checks that the caller may read the run and the logged model that the request names, and
    that a source in `mlflow-artifacts:` is among their artifacts. This checks the same for the
    bucket's own addresses.
    """
    from mlflow.protos.model_registry_pb2 import CreateModelVersion
    from mlflow.server import handlers

    message = handlers._get_request_message(CreateModelVersion())
    if handlers._normalized_uri_parts(message.source)[0] != "gs":
        return True
    roots = []
    if message.run_id:
        run = handlers._get_source_run(message.run_id, message.source)
        roots.append(run.info.artifact_uri)
    if message.model_id:
        model = handlers._get_source_model(message.model_id, message.source)
        roots.append(model.artifact_location)
    return any(handlers._is_uri_within_root(message.source, root) for root in roots)


def grantable_types() -> list[str]:
    """Returns the types of resources that a permission may be granted on."""
    from mlflow.server.auth.permissions import RESOURCE_TYPE_WORKSPACE, VALID_RESOURCE_TYPES

    return sorted(VALID_RESOURCE_TYPES - {RESOURCE_TYPE_WORKSPACE})


def tables_revision(connection: Connection) -> str | None:
    """Returns the revision of the accounts' tables, None if there are none."""
    context = MigrationContext.configure(connection, opts={"version_table": _VERSION_TABLE})
    return context.get_current_revision()


def latest_tables_revision() -> str | None:
    """Returns the revision that this version of MLflow requires."""
    return _scripts().get_current_head()


def known_tables_revisions() -> frozenset[str]:
    """Returns the revisions that this version of MLflow can upgrade from."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def create_or_upgrade_tables(connection: Connection) -> None:
    """Create or upgrade the accounts' tables, in the connection's transaction.

    MLflow's own function opens other connections.
    """
    scripts = _scripts()
    with EnvironmentContext(
        _config(), scripts, fn=lambda revision, _: scripts._upgrade_revs("head", revision)
    ) as environment:
        environment.configure(connection=connection, version_table=_VERSION_TABLE)
        environment.run_migrations()


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


@cache
def _config() -> Config:
    from mlflow.server.auth.db.utils import _get_alembic_config

    config: Config = _get_alembic_config(url="")
    return config
