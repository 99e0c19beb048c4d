"""Our server and the resources that it needs: the stack of local/, as `make local` creates it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pg8000.native  # type: ignore[import-untyped]

from bench.process import BenchError, Server, basic
from bench.report import ROOT, SERVER_PYTHON
from fake_google.cloud import Cloud
from fake_google.errors import BootRefused
from fake_google.ports import free_port
from fake_google.project import Container, Project
from fake_google.sql.postgres import Postgres
from fake_google.state import State
from local import program
from local.supervise import DEFAULTS

COMMAND = (str(SERVER_PYTHON), "-m", "tracking_server")
OUR_DATABASE = "mlflow"
_ROLE = "bench"
_PASSWORD = secrets.token_urlsafe(16)
# Stock holds more connections than the smallest tier accepts.
LARGER_DATABASE = {"mlflow-gcp:databaseTier": "db-custom-1-3840"}


class Stack:
    """The running stand-ins and database, with the declared environment.

    `make local`'s own server is started once, to get its environment, and stopped.
    """

    def __init__(self, *, cloud: Cloud, outputs: Mapping[str, Any], folder: Path) -> None:
        self.cloud, self.outputs, self.folder = cloud, outputs, folder
        [(name, service)] = cloud.project.services.items()
        pid = cloud.project.state.load("processes.json")[f"server {name}"]["pid"]
        # The environment as the kernel shows it, so that it is what the process was really given.
        entries = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
        self.environment = dict(entry.split("=", 1) for entry in entries)
        service.stop()
        [database] = cloud.project.databases.values()
        assert isinstance(database, Postgres)
        self.postgres = database
        self.postgres.create_user(_ROLE, _PASSWORD)
        with self.postgres.connection() as connection:
            # Grants access to the tables that our server created.
            connection.run(f"ALTER ROLE {_ROLE} SUPERUSER")

    @property
    def role(self) -> tuple[str, str]:
        """Returns a database superuser and its password."""
        return _ROLE, _PASSWORD

    @property
    def bucket(self) -> str:
        return str(self.outputs["artifact_bucket"])

    @property
    def authorization(self) -> str:
        return basic(self.outputs["tracking_username"], self.outputs["tracking_password"])

    def server(
        self,
        name: str = "ours",
        *,
        command: Sequence[str] = COMMAND,
        environment: Mapping[str, str] | None = None,
    ) -> Server:
        """Returns one instance, not started. `environment` is added to the declared one."""
        port = free_port()
        return Server(
            name=name,
            command=command,
            environment={**self.environment, "PORT": str(port), **(environment or {})},
            folder=self.folder,
            port=port,
            authorization=self.authorization,
            in_transaction=self.in_transaction,
        )

    def new_database(self, name: str, *, like: str = "template1") -> str:
        """Create a database on the same PostgreSQL, empty or a copy of one without connections."""
        self.sql(f"CREATE DATABASE {name} TEMPLATE {like}", database="postgres")
        return name

    def url(self, database: str) -> str:
        """Returns the URL for stock MLflow: our driver, and PostgreSQL's own socket."""
        return (
            f"postgresql+pg8000://{_ROLE}:{_PASSWORD}@/{database}"
            f"?unix_sock={self.postgres.socket()}"
        )

    def sql(self, statement: str, *, database: str = OUR_DATABASE, **values: Any) -> list[Any]:
        """Run a statement. Returns the rows as lists."""
        with contextlib.closing(
            pg8000.native.Connection(
                _ROLE,
                unix_sock=str(self.postgres.socket()),
                password=_PASSWORD,
                database=database,
                # Don't load all certificate authorities for a socket without TLS.
                ssl_context=False,
            )
        ) as connection:
            return list(connection.run(statement, **values) or ())

    def in_transaction(self, database: str = OUR_DATABASE) -> bool:
        statement = (
            "SELECT FROM pg_stat_activity "
            "WHERE datname = :name AND state <> 'idle' AND pid <> pg_backend_pid()"
        )
        return bool(self.sql(statement, database="postgres", name=database))


@contextlib.contextmanager
def stack(config: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Yield the whole stack, in a temporary directory that is removed at the end of the block."""
    with TemporaryDirectory(prefix="mlflow-gcp-bench-") as temporary:
        state = State(Path(temporary, "state"))
        state.create()
        settings = {**DEFAULTS, **(config or {})}
        cloud = Cloud(
            Project(
                state=state,
                id=settings["gcp:project"],
                region=settings["gcp:region"],
                container=Container(command=COMMAND, port=free_port()),
                say=lambda line: None,
            )
        )
        try:
            outputs = program.run(main=ROOT / "__main__.py", cloud=cloud, config=settings)
            folder = Path(temporary, "servers")
            folder.mkdir()
            yield Stack(cloud=cloud, outputs=outputs, folder=folder)
        except BootRefused as refused:
            # The log is deleted with the directory.
            log = state.path("log", "server.log").read_text(errors="replace")
            raise BenchError(f"{refused}\n{log}") from None
        finally:
            cloud.project.close()
            state.clean()
