"""FastTrackML, a server in Go with the API of MLflow 2, to compare with on the same PostgreSQL."""

from __future__ import annotations

import shutil
from urllib.parse import quote

from bench.ours import Stack
from bench.process import Server
from bench.report import ROOT
from fake_google.ports import free_port
from fake_google.run.container import base_environment

PROGRAM = ROOT / ".venvs" / "bench-go" / "bin" / "fml"


def server(stack: Stack) -> Server | None:
    """Returns `fml server` on an empty database, not started; None if it isn't installed."""
    if shutil.which(PROGRAM) is None:
        print("FastTrackML is not measured: `make .venvs/bench-go.done` installs it")
        return None
    database = stack.new_database("fasttrackml")
    folder = stack.folder / "fasttrackml"
    folder.mkdir()
    port = free_port()
    socket = stack.postgres.socket()
    role, password = stack.role
    address = (
        f"postgres://{role}:{quote(password)}@/{database}"
        f"?host={quote(str(socket.parent))}&port={socket.suffix.removeprefix('.')}"
    )
    return Server(
        name="FastTrackML",
        command=[
            *(str(PROGRAM), "server", "--database-uri", address, "--log-level", "error"),
            *("--listen-address", f"127.0.0.1:{port}"),
            *("--default-artifact-root", str(folder / "artifacts")),
        ],
        environment=base_environment(folder),
        folder=folder,
        port=port,
        authorization=None,
        in_transaction=lambda: stack.in_transaction(database),
    )
