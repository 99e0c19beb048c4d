"""The ways to cause an error, for the rows of the table."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from fake_google.ports import free_port
from fake_google.state import LocalError, State
from tests.local.conftest import CLIENT, ROOT, SERVER, Stack
from tests.local.standins import SERVER as ACCOUNT
from tests.local.standins import StandIns, call, project

# Every secret of a row contains this text. No error may show it.
CANARY = "canary"

# Placeholders in a command and in variables: the row's own empty folder, and a port.
FOLDER, PORT = "FOLDER", "PORT"

# More than any command needs on a busy machine; a command that hangs fails here.
SECONDS = 120


@dataclass(frozen=True)
class Caused:
    """An error as the user sees it."""

    # The exit code, or a response's status; 0 for an exception.
    code: int
    text: str
    # All that the user sees, if it is more than that.
    output: str = ""
    # Secrets of the stack, which `output` mustn't contain.
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fixtures:
    """Gives a cause an empty folder, and the stack that all rows share."""

    folder: Path
    stack: Callable[[], Stack]


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    cause: Callable[[Fixtures], Caused]
    code: int
    # Texts that the error must contain: the given value, an example, a command; not sentences.
    facts: tuple[str, ...]


Before = Callable[[Path], AbstractContextManager[None]]


def nothing(_: Path) -> AbstractContextManager[None]:
    return nullcontext()


def command(
    name: str, run: tuple[str, ...], *facts: str, before: Before = nothing, code: int = 1
) -> Row:
    """Run a command of the manual, in a folder that `before` prepares."""

    def cause(fixtures: Fixtures) -> Caused:
        folder = fixtures.folder
        port = str(free_port())
        environment = {key: text for key, text in os.environ.items() if not key.startswith("MAKE")}
        try:
            with before(folder):
                done = subprocess.run(
                    [part.replace(FOLDER, str(folder)).replace(PORT, port) for part in run],
                    check=False, cwd=ROOT, env=environment, capture_output=True, text=True,
                    timeout=SECONDS, stdin=subprocess.DEVNULL,
                )  # fmt: skip
        finally:
            # Stop what the command has left running.
            with suppress(LocalError):
                State(folder / "state").clean()
        # `up` uses one stream for both.
        return Caused(done.returncode, done.stderr or done.stdout, done.stdout + done.stderr)

    return Row(name=name, cause=cause, code=code, facts=facts)


def local(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "local", "--state", f"{FOLDER}/state", *arguments)


def up(*arguments: str) -> tuple[str, ...]:
    return local("up", "--port", PORT, *arguments)


def client(
    name: str,
    *facts: str,
    changed: Mapping[str, str] | None = None,
    script: str = "",
    python: Path = CLIENT,
) -> Row:
    """Run check_tracking.py or a script with MLflow, with the variables of a running stack."""

    def cause(fixtures: Fixtures) -> Caused:
        stack = fixtures.stack()
        variables = {
            key: value.replace(PORT, str(stack.port)) for key, value in (changed or {}).items()
        }
        program = ["-c", script] if script else [str(ROOT / "sample_client/check_tracking.py")]
        done = stack.client(*program, python=python, **variables)
        return Caused(done.returncode, done.stderr, done.stdout + done.stderr, passwords(stack))

    return Row(name=name, cause=cause, code=1, facts=facts)


def passwords(stack: Stack) -> tuple[str, str]:
    outputs = json.loads((stack.folder / "supervisor.json").read_text())["outputs"]
    return outputs["tracking_password"], outputs["viewer_password"]


_addresses = itertools.count(1)


def request(
    name: str,
    status: int,
    *facts: str,
    method: str = "GET",
    path: str = "/api/2.0/mlflow/experiments/search?max_results=1",
    login: str = "user",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    before: int = 0,
) -> Row:
    """Send a request to a running stack, after `before` other requests.

    `login`: `user`, `viewer`, `wrong` or the value of the header.
    """
    # Wrong passwords are counted by address.
    address = f"192.0.2.{next(_addresses)}"

    def cause(fixtures: Fixtures) -> Caused:
        stack = fixtures.stack()
        users, viewers = passwords(stack)
        pair = {"user": f"mlflow:{users}", "viewer": f"viewer:{viewers}"}.get(login)
        pair = f"mlflow:{CANARY}" if login == "wrong" else pair
        basic = f"Basic {base64.b64encode(pair.encode()).decode()}" if pair else login
        given = {"X-Forwarded-For": address, **({"Authorization": basic} if basic else {})}
        for _ in range(before + 1):
            answer = call(
                method, f"http://127.0.0.1:{stack.port}{path}", body=body,
                headers=given | dict(headers or {}),
            )  # fmt: skip
        assert answer.headers["content-type"].startswith("text/plain")
        return Caused(answer.status, answer.text, secrets=(users, viewers))

    return Row(name=name, cause=cause, code=status, facts=facts)


SECRETS = (
    "artifact_url",
    "database_url",
    "tracking_username",
    "tracking_password",
    "kek_passphrase",
)


@dataclass(frozen=True)
class Stored:
    """A secret's content, or the fault that it has."""

    # None: the secret has no version.
    value: bytes | None = CANARY.encode()
    granted: bool = True
    enabled: bool = True

    def store(self, google: StandIns, name: str) -> None:
        google.declare("secretmanager/secret:Secret", secretId=name)
        if self.value is not None:
            google.cloud.project.secrets.add_version(name, self.value, enabled=self.enabled)
        if self.granted:
            google.declare(
                "secretmanager/secretIamMember:SecretIamMember",
                secretId=f"projects/local-project/secrets/{name}",
                role="roles/secretmanager.secretAccessor",
                member=f"serviceAccount:{ACCOUNT}",
            )


def boot(
    name: str,
    *facts: str,
    environment: Mapping[str, str] | None = None,
    secrets: Mapping[str, Stored] | None = None,
) -> Row:
    """Boot a server that ends with one line in its log."""
    stored = {secret: Stored() for secret in SECRETS} | dict(secrets or {})

    def cause(fixtures: Fixtures) -> Caused:
        folder = fixtures.folder
        with project(folder) as google:
            for secret, what in stored.items():
                what.store(google, secret)
            variables = {
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
                "SECRET_MANAGER_ENDPOINT": google.cloud.project.secret_manager_endpoint,
                **google.cloud.project.metadata_environment(ACCOUNT),
                **{f"{secret.upper()}_SECRET": f"{secret}/versions/1" for secret in stored},
                **(environment or {}),
            }
            done = subprocess.run(
                [SERVER, "-m", "tracking_server"],
                check=False, cwd=folder, env=variables, capture_output=True, text=True,
                timeout=SECONDS,
            )  # fmt: skip
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        [line] = [entry["message"] for entry in entries if entry["severity"] == "CRITICAL"]
        return Caused(done.returncode, line, done.stdout + done.stderr)

    return Row(name=name, cause=cause, code=1, facts=facts)


def raised(name: str, program: Callable[[], object], *facts: str) -> Row:
    """Raise an exception that a command would show, but can't be made to within seconds."""

    def cause(_: Fixtures) -> Caused:
        try:
            program()
        except Exception as error:
            return Caused(0, str(error))
        raise AssertionError("nothing was refused")

    return Row(name=name, cause=cause, code=0, facts=facts)
