"""Brings about what a row of the table says, as far as possible as a user would."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fake_google.ports import free_port
from fake_google.state import LocalError, State
from tests.errors.sites import HOLE, ROOT
from tests.errors.table import CANARY, FOLDER, PORT, Boot, Command
from tests.local.conftest import SERVER
from tests.local.standins import SERVER as ACCOUNT
from tests.local.standins import Project

# More than any of them takes on a busy machine; what hangs fails here.
SECONDS = 60

GOOD = {
    "artifact_url": "gs://my-bucket",
    "database_url": f"postgresql+pg8000://mlflow:{CANARY}@/mlflow"
    "?unix_sock=/cloudsql/p:r:i/.s.PGSQL.5432",
    "tracking_username": "mlflow",
    "tracking_password": CANARY,
    "kek_passphrase": CANARY,
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def for_people(text: str, *secrets: str) -> None:
    """Nothing of the machinery, and no secret."""
    for not_meant_for_them in ("Traceback", 'File "', " object at 0x", "<class "):
        assert not_meant_for_them not in text
    for secret in (CANARY, *secrets):
        assert secret not in text


def says(text: str, said: str) -> None:
    """That `text` is what the table says, or ends with it."""
    wanted = ".*?".join(map(re.escape, said.split(HOLE)))
    assert re.search(rf"(?:\A|\n){wanted}\Z", text.strip(), re.DOTALL), text


@contextmanager
def _cleared(state: State) -> Iterator[None]:
    """Of what a row has left running, and outside its folder."""
    try:
        yield
    finally:
        with suppress(LocalError):
            state.clean()


def run(command: Command, folder: Path) -> Ended:
    port = str(free_port())
    with _cleared(State(folder / "state")), command.before(folder):
        done = subprocess.run(
            [part.replace(FOLDER, str(folder)).replace(PORT, port) for part in command.run],
            check=False, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def _store(google: Project, secrets: Mapping[str, str | None]) -> dict[str, str]:
    """Answers the variables that name them."""
    for name, value in secrets.items():
        google.declare("secretmanager/secret:Secret", secretId=name)
        if value is not None:
            payload = b"\xff" if value == "not UTF-8" else value.encode()
            google.cloud.secrets.add_version(name, payload, enabled=value != "disabled")
        if value != "not granted":
            google.declare(
                "secretmanager/secretIamMember:SecretIamMember",
                secretId=f"projects/local-project/secrets/{name}",
                role="roles/secretmanager.secretAccessor",
                member=f"serviceAccount:{ACCOUNT}",
            )
    return {f"{name.upper()}_SECRET": f"{name}/versions/1" for name in secrets}


def boot(row: Boot, google: Project, folder: Path) -> tuple[Ended, str]:
    """The server's process, and the one line with which it ends."""
    viewer = {"viewer_password": CANARY} if "viewer_username" in row.secrets else {}
    environment = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "GCP_PROJECT": "local-project",
        "ARTIFACTS": "proxied",
        "ARTIFACT_SIGNER": "mlflow-signer@local-project.iam.gserviceaccount.com",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow-1.us-central1.run.app",
        "BIND_ADDRESS": "127.0.0.1",
        "PORT": str(free_port()),
        "BOOT_PATIENCE": "0",
        "CLOUDSQL_ROOT": str(folder),
        "SECRET_MANAGER_ENDPOINT": google.cloud.secret_manager_endpoint,
        **google.cloud.metadata_environment(ACCOUNT),
        **_store(google, {**GOOD, **viewer, **row.secrets}),
        **row.environment,
    }
    done = subprocess.run(
        [SERVER, "-m", "tracking_server"],
        check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [entry for entry in entries if "stack_trace" in entry], done.stdout
    [line] = [entry["message"] for entry in entries if entry["severity"] == "CRITICAL"]
    assert entries[-1]["message"] == line
    return Ended(done.returncode, done.stdout, done.stderr), line
