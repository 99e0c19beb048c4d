"""`make psql`: opens psql on the stack's database, as the server's own user."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from operations.cli_tools import attended, missing
from operations.database import DatabaseLogin, program, proxy
from operations.errors import OperationError
from operations.stack import LocalStack, Stack

# https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-EXIT-STATUS
_NO_CONNECTION = 2


def psql(stack: Stack, *, write: bool) -> int:
    """Runs psql, read-only by default because these are the server's own tables."""
    found = shutil.which("psql")
    if isinstance(stack, LocalStack):
        return _prompt(found or program("psql", stack), stack, stack.sockets(), write=write)
    if not found:
        raise missing("psql")
    with proxy(stack) as sockets:
        return _prompt(found, stack, sockets, write=write)


def _prompt(psql: str, stack: Stack, sockets: Path, *, write: bool) -> int:
    login = DatabaseLogin.of(stack.database_url())
    mode = "you may write" if write else "only reads; WRITE=1 writes"
    print(f"database {login.database} of {stack}: {mode}", file=sys.stderr)
    # A script from a pipe stops at its first error.
    options = [] if sys.stdin.isatty() else ["--set=ON_ERROR_STOP=1"]
    code = attended(psql, *options, env=login.environment(sockets, write=write))
    if code == _NO_CONNECTION:
        raise OperationError(f"psql has no connection to the database of {stack}.")
    return code
