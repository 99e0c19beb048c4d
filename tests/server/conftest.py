"""Fixtures shared by these tests: Google's stand-ins and a real Postgres, once per session."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

import pg8000.native
import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from tracking_server.boot import schema
from tracking_server.boot.known import Revisions
from tracking_server.database import engines
from tracking_server.mlflow import internals

from fake_google.sql.postgres import OWNER, InstanceSettings, Postgres
from fake_google.state import State
from infra.facts.connection_name import ConnectionName
from tests.reaper import reap_directory
from tests.server.google import Google
from tests.server.process import HOST, PASSWORD, USER, Server

CONNECTION_NAME = "my-project:us-central1:mlflow-test"
DATABASE_USER, DATABASE_PASSWORD = "mlflow", "canary:p@ss/w%rd"

# Not in a fixture, because google-auth reads the metadata server's address when it is imported.
# The reaper deletes the folder, because hundreds of databases take seconds.
_folder = Path(mkdtemp(prefix="mlflow-gcp-test-"))
reap_directory(_folder)
_google = Google(_folder / "google")
# As in a boot: mlflow.server reads this while the first test that needs it imports it.
internals.configure_server(
    backend_store_uri=engines.PLUGIN_URL,
    serve_artifacts=True,
    settings={
        "MLFLOW_CONFIGURE_LOGGING": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": HOST,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Otherwise MLflow fetches a catalog of models from the internet.
        "MLFLOW_MODEL_CATALOG_URI": "",
    },
)


@pytest.fixture
def google() -> Iterator[Google]:
    yield _google
    _google.answer_next("", 0)
    _google.fault = None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Postgres with the 25 connections of Cloud SQL's smallest machine."""
    state = State(_folder / "postgres")
    state.create()
    settings = InstanceSettings(
        connection_name=ConnectionName.parse(CONNECTION_NAME),
        major=17,
        tier="db-f1-micro",
        connector_required=True,
    )
    running = Postgres(state=state, settings=settings, say=print)
    try:
        running.start()
        running.create_user(DATABASE_USER, DATABASE_PASSWORD)
        # Hundreds of databases that aren't kept: writing them to disk takes longer than the tests
        # that use them.
        with closing(running.connection()) as connection:
            connection.run("ALTER SYSTEM SET fsync = off")
            connection.run("SELECT pg_reload_conf()")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def cloudsql_root(postgres: Postgres) -> Path:
    """The directory that Cloud Run mounts at /cloudsql."""
    root = _folder / "cloudsql"
    (root / CONNECTION_NAME).mkdir(parents=True)
    (root / CONNECTION_NAME / ".s.PGSQL.5432").symlink_to(postgres.socket())
    return root


_databases = (f"mlflow_{number}" for number in count())


WITH_TABLES = "with_tables"


def made_database(postgres: Postgres, name: str, *, password: str = DATABASE_PASSWORD) -> str:
    """Create a database with MLflow's tables. Returns its address, as in the secret.

    It is a copy, because MLflow's migrations take longer than the rest of a boot.
    """
    with closing(postgres.connection()) as connection:
        made = {row[0] for row in connection.run("SELECT datname FROM pg_database")}
        if WITH_TABLES not in made:
            _make_tables(made_empty_database(postgres, WITH_TABLES), postgres)
        if name not in made:
            named = pg8000.native.identifier(name)
            connection.run(f"CREATE DATABASE {named} OWNER {OWNER} TEMPLATE {WITH_TABLES}")
    return database_address(name, password=password)


def made_empty_database(postgres: Postgres, name: str) -> str:
    postgres.create_database(name)
    return database_address(name)


def database_address(name: str, *, password: str = DATABASE_PASSWORD) -> str:
    user = f"{DATABASE_USER}:{quote(password, safe='')}"
    socket = f"/cloudsql/{CONNECTION_NAME}/.s.PGSQL.5432"
    return f"postgresql+pg8000://{user}@/{name}?unix_sock={socket}"


def _make_tables(url: str, postgres: Postgres) -> None:
    address = make_url(url).update_query_dict({"unix_sock": str(postgres.socket())})
    options = {"ssl_context": False}
    engine = create_engine(address, poolclass=NullPool, connect_args=options)
    schema.ensure(engine, deadline=5, more=Revisions())


def made_for_stock(postgres: Postgres, name: str, cloudsql_root: Path) -> str:
    """Create an empty database. Returns its address with the driver that MLflow's users have."""
    postgres.create_database(name)
    user = f"{DATABASE_USER}:{quote(DATABASE_PASSWORD, safe='')}"
    return f"postgresql+psycopg2://{user}@/{name}?host={cloudsql_root / CONNECTION_NAME}"


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    return made_database(postgres, next(_databases))


@pytest.fixture(scope="module")
def shared_environment(postgres: Postgres, cloudsql_root: Path) -> dict[str, str]:
    """Returns the container's environment, for servers that a file's tests share."""
    return container_environment(_google, made_database(postgres, next(_databases)), cloudsql_root)


@pytest.fixture
def environment(google: Google, database_url: str, cloudsql_root: Path) -> dict[str, str]:
    return container_environment(google, database_url, cloudsql_root)


def container_environment(google: Google, database_url: str, cloudsql_root: Path) -> dict[str, str]:
    """Exactly the container's environment, with secrets that exist."""
    return {
        **google.environment,
        "ARTIFACTS": "proxied",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{HOST},mlflow-*.a.run.app,localhost,127.0.0.1",
        # Four for MLflow, and two for the hot routes.
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "6",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "CLOUDSQL_ROOT": str(cloudsql_root),
        "BOOT_PATIENCE": "5",
        "ARTIFACT_URL_SECRET": google.store("gs://my-bucket"),
        "DATABASE_URL_SECRET": google.store(database_url),
        "TRACKING_USERNAME_SECRET": google.store(USER),
        "TRACKING_PASSWORD_SECRET": google.store(PASSWORD),
        "KEK_PASSPHRASE_SECRET": google.store("canary-passphrase"),
    }


StartServer = Callable[[dict[str, str]], Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers as the container does, and end those that still run after the test."""
    with started(tmp_path, forked=False) as start_one:
        yield start_one


@pytest.fixture
def fork(tmp_path: Path) -> Iterator[StartServer]:
    """Like `start`, for tests that don't look at the process: `Server.forked`."""
    with started(tmp_path, forked=True) as start_one:
        yield start_one


@contextmanager
def started(folder: Path, *, forked: bool) -> Iterator[StartServer]:
    servers: list[Server] = []

    def start_one(env: dict[str, str]) -> Server:
        servers.append(Server(env, folder, forked=forked))
        return servers[-1]

    yield start_one
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def pytest_sessionfinish() -> None:
    _google.close()
