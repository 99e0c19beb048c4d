"""Stock MLflow of the same version with its ordinary dependencies, started by its own command."""

from __future__ import annotations

import secrets
from pathlib import Path

from bench.ours import Stack
from bench.process import Server, basic
from bench.report import ROOT
from fake_google.ports import free_port
from fake_google.run.container import base_environment

BIN = ROOT / ".venvs" / "bench" / "bin"
_USER = "admin"


def server(stack: Stack, *, auth: bool, database: str) -> Server:
    """Returns `mlflow server --workers 1`, not started; with `--app-name basic-auth` if `auth`.

    Its users are in a separate database.
    """
    name = "stock basic-auth" if auth else "stock"
    folder = stack.folder / name.replace(" ", "-")
    folder.mkdir()
    port, password = free_port(), secrets.token_urlsafe(16)
    environment = {
        **base_environment(folder),
        "PATH": f"{BIN}:/usr/bin:/bin",
        # No server outside this computer is contacted.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    command = [
        *(str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", stack.url(database)),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    if auth:
        command += ["--app-name", "basic-auth"]
        users = stack.url(stack.new_database(f"{database}_users"))
        environment |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(_auth_config(folder, users)),
            "MLFLOW_AUTH_ADMIN_USERNAME": _USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        }
    return Server(
        name=name,
        command=command,
        environment=environment,
        folder=folder,
        port=port,
        authorization=basic(_USER, password) if auth else None,
        in_transaction=lambda: stack.in_transaction(database),
    )


def _auth_config(folder: Path, database: str) -> Path:
    """Write MLflow's own file with another database, and with its cache of logins on."""
    shipped = next(BIN.parent.glob("lib/python3.*/site-packages/mlflow/server/auth/basic_auth.ini"))
    text = shipped.read_text()
    wanted = "database_uri = sqlite:///basic_auth.db"
    assert wanted in text
    path = folder / "basic_auth.ini"
    ours = f"database_uri = {database.replace('%', '%%')}\nauth_cache_ttl_seconds = 60"
    path.write_text(text.replace(wanted, ours))
    return path
