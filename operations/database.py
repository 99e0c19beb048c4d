"""Connects this machine to a stack's database, and finds PostgreSQL's programs for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from operations.cli_tools import missing, refusal
from operations.errors import OperationError
from operations.stack import CloudStack, LocalStack

if TYPE_CHECKING:
    from pg8000.native import Connection  # type: ignore[import-untyped]

# The name that a client looks for in the socket's directory.
_SOCKET = ".s.PGSQL.5432"
_PROXY_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class DatabaseLogin:
    user: str
    password: str = field(repr=False)
    database: str

    @classmethod
    def of(cls, url: str) -> DatabaseLogin:
        """Parses the server's URL, `postgresql+pg8000://user:password@/database?…`."""
        parts = urlsplit(url.strip())
        if not (parts.username and parts.password and parts.path.strip("/")):
            raise OperationError(
                "The secret with the database's address is not what the stack wrote: "
                "`pulumi up` writes it again."
            )
        return cls(
            user=unquote(parts.username),
            password=unquote(parts.password),
            database=parts.path.strip("/"),
        )

    def environment(self, sockets: Path, *, write: bool) -> dict[str, str]:
        """Returns the environment for psql and pg_dump.

        https://www.postgresql.org/docs/current/libpq-envars.html. Every process could read a
        password in the arguments. The user's own `PG…` variables are left out.
        """
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {
            **clean,
            "PGHOST": str(sockets),
            "PGPORT": "5432",
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
            # A local socket needs no TLS; the proxy uses TLS for the network.
            "PGSSLMODE": "disable",
            "PGOPTIONS": "" if write else "-c default_transaction_read_only=on",
        }


# The following functions import slow modules, which only a stack on this computer needs.


@contextlib.contextmanager
def connection(stack: LocalStack) -> Iterator[Connection]:
    import pg8000.native

    login = DatabaseLogin.of(stack.database_url())
    try:
        made = pg8000.native.Connection(
            login.user,
            password=login.password,
            database=login.database,
            unix_sock=str(stack.sockets() / _SOCKET),
        )
    except (OSError, pg8000.exceptions.Error) as error:
        raise OperationError(f"the database doesn't answer ({error})") from None
    with contextlib.closing(made):
        yield made


def program(name: str, stack: LocalStack) -> str:
    """Returns the path of a program of the PostgreSQL that runs here, so that versions match."""
    from fake_google.sql.postgres import choose, installations

    with connection(stack) as asked:
        [[version]] = asked.run("SHOW server_version_num")
    major = int(version) // 10000
    found = choose(installations(), wanted=major, data=major).bin / name
    if not found.exists():
        raise OperationError(f"PostgreSQL {major} has no {name} in {found.parent}.")
    return str(found)


@contextlib.contextmanager
def proxy(stack: CloudStack) -> Iterator[Path]:
    """Runs Google's Cloud SQL proxy, and yields the directory of its socket.

    https://github.com/GoogleCloudPlatform/cloud-sql-proxy/blob/main/docs/cmd/cloud-sql-proxy.md
    """
    if not shutil.which("cloud-sql-proxy"):
        raise missing("cloud-sql-proxy")
    with tempfile.TemporaryDirectory(prefix="mlflow-gcp-") as folder:
        sockets, log = Path(folder), Path(folder, "log")
        where = f"{stack.connection_name}?unix-socket-path={sockets / _SOCKET}"
        options = ["--quiet", *(["--private-ip"] if stack.setting("network") == "private" else [])]
        with log.open("w") as output:
            process = subprocess.Popen(
                ["cloud-sql-proxy", *options, where],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C ends a query, not the way to the database
            )
        try:
            deadline = time.monotonic() + _PROXY_SECONDS
            while not (sockets / _SOCKET).exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise OperationError(f"cloud-sql-proxy did not start: {_said(log)}")
                time.sleep(0.05)
            try:
                yield sockets
            except OperationError as error:
                # The proxy's client only notices that the connection was closed.
                if log.stat().st_size:
                    raise OperationError(f"{error} cloud-sql-proxy: {_said(log)}") from None
                raise
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _said(log: Path) -> str:
    said = refusal(log.read_text(errors="replace")) or "it said nothing"
    if "could not find default credentials" in said:
        said += " `gcloud auth application-default login` makes them."
    return said
