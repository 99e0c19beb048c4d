"""The whole stack on this computer, started once for all tests as `make local-up` does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest

from fake_google.ports import free_port
from fake_google.state import State
from tests.reaper import reap_directory

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / ".venvs" / "client" / "bin" / "python"
SERVER = ROOT / ".venvs" / "server" / "bin" / "python"

# A server without MLflow, for tests of the commands. It boots in a tenth of the time.
LIGHT_SERVER = f"""#!{sys.executable} -IS
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass
class Stack:
    """One `.local` directory and the commands on it."""

    folder: Path
    root: Path = ROOT
    python: Path = SERVER
    config: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "local", "--state", str(self.folder), *arguments]

    def starting(self, verb: str) -> list[str]:
        options = [part for setting in self.config for part in ("--config", setting)]
        return self.command(verb, "--port", str(self.port), "--python", str(self.python), *options)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, check=False, cwd=self.root, capture_output=True, text=True, timeout=120
        )

    def state(self) -> State:
        return State(self.folder)

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.run(self.starting("up"))

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.run(self.command("down"))

    def environment(self) -> dict[str, str]:
        """Returns the variables that `source .local/env` sets in a clean shell."""
        script = f"set -a; . {self.folder}/env; env -0"
        listed = subprocess.run(
            ["/bin/sh", "-c", script],
            env={"PATH": os.defpath, "HOME": str(self.folder / "home")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return dict(entry.split("=", 1) for entry in listed.split("\0") if "=" in entry)

    @classmethod
    @contextmanager
    def temporary(cls, *, config: tuple[str, ...] = (), up: bool = True) -> Iterator[Self]:
        """Yield a stack in a temporary folder, which is removed afterwards."""
        with TemporaryDirectory(prefix="mlflow-gcp-stack-") as folder:
            reap_directory(folder)
            stack = cls(Path(folder, "state"), config=config)
            if up:
                started = stack.up()
                assert started.returncode == 0, started.stdout + started.stderr
            yield stack
            stack.down()
            stack.run(stack.command("clean"))

    def client(
        self, *arguments: str, python: Path = CLIENT, **changed: str
    ) -> subprocess.CompletedProcess[str]:
        """Run stock MLflow's Python in the environment of a user who has sourced `.local/env`."""
        env = {name: value for name, value in (self.environment() | changed).items() if value}
        return subprocess.run(
            [str(python), *arguments],
            check=False,
            env=env,
            capture_output=True,
            text=True,
            timeout=180,
        )


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack shared by the tests that don't change it."""
    with Stack.temporary() as stack:
        yield stack


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """A stack that a test may start, break and stop."""
    with Stack.temporary(up=False) as stack:
        yield stack


@pytest.fixture
def light_stack(own_stack: Stack, tmp_path: Path) -> Stack:
    """Like `own_stack`, with a server that only responds."""
    own_stack.python = tmp_path / "server"
    own_stack.python.write_text(LIGHT_SERVER)
    own_stack.python.chmod(0o700)
    return own_stack
