"""Containers in addition to the one that `local` runs: other revisions, or many at once."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pg8000.native

from fake_google.ports import free_port
from fake_google.sql.postgres import ADMIN
from fake_google.state import State
from tests.local.conftest import SERVER, Stack

BOOT_SECONDS = 120


def environment_of(stack: Stack) -> dict[str, str]:
    """Returns the environment of the stack's own server."""
    processes = State(stack.folder).load("processes.json")
    environ = Path("/proc", str(processes["server mlflow"]["pid"]), "environ").read_text()
    return dict(entry.split("=", 1) for entry in environ.split("\0") if entry)


class Instance:
    """A container of a revision. It starts at once, as Cloud Run starts one."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.port = free_port()
        self.log = folder / f"instance-{self.port}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [SERVER, "-m", "tracking_server"],
                env={**environment, "PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> list[str]:
        """Returns whole lines only: the last one may still be written."""
        lines = self.log.read_text().split("\n")[:-1]
        return [str(json.loads(line).get("message", "")) for line in lines]

    def wait_until_said(self, start: str) -> None:
        until = time.monotonic() + BOOT_SECONDS
        while not any(line.startswith(start) for line in self.said()):
            assert time.monotonic() < until, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)

    def ready(self) -> Instance:
        self.wait_until_said("serving on")
        return self

    def refused(self) -> str:
        """Returns the log line that the boot ended with."""
        assert self.process.wait(BOOT_SECONDS) == 1, self.log.read_text()
        return self.said()[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(20) == 0, self.log.read_text()


@contextmanager
def started(environment: Mapping[str, str], folder: Path, count: int) -> Iterator[list[Instance]]:
    """Start `count` instances at once, and end those that still run when the block ends."""
    instances = [Instance(environment, folder) for _ in range(count)]
    try:
        yield instances
    finally:
        for instance in instances:
            if instance.process.poll() is None:
                instance.kill()


class Api:
    """MLflow's API at an address, with the credentials of a client's environment, no retries."""

    def __init__(self, address: str, known: Mapping[str, str]) -> None:
        user, password = (known[f"MLFLOW_TRACKING_{part}"] for part in ("USERNAME", "PASSWORD"))
        self._address = address
        self._authorization = "Basic " + b64encode(f"{user}:{password}".encode()).decode()

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Returns the status and the response; 0 if there was none."""
        request = urllib.request.Request(
            f"{self._address}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": self._authorization, "Content-Type": "application/json"},
        )
        try:
            with _DIRECT.open(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError:
            return 0, ""


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def administrator(stack: Stack, database: str = "mlflow") -> Iterator[pg8000.native.Connection]:
    """Connect to the stack's database as Cloud SQL's own agents do."""
    state = State(stack.folder)
    [socket] = (state.short_directory() / "pg").glob(".s.PGSQL.?????")
    [password] = state.load("postgres.json").values()
    connection = pg8000.native.Connection(
        ADMIN, unix_sock=str(socket), password=password, database=database
    )
    try:
        yield connection
    finally:
        connection.close()
