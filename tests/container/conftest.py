"""The image, built once, and the whole stack of `make local` with its container as the server."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.container.builders import Image, build
from tests.container.runners import Docker, Runc, dump
from tests.container.tools import run
from tests.local.conftest import Stack

_sizes: list[str] = []


@dataclass(frozen=True)
class Built:
    image: Image
    runner: Docker | Runc


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    with build() as (image, runner):
        yield Built(image, runner)


@pytest.fixture(scope="session")
def inside(built: Built, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of `inside.py`, run in a container."""
    script = Path(__file__).with_name("inside.py").read_text()
    command = built.runner.command(
        name="mlflow-gcp-test-inside",
        env={},
        sockets={},
        arguments=["/opt/server/bin/python", "-c", script],
        folder=tmp_path_factory.mktemp("inside"),
    )
    seen: dict[str, Any] = json.loads(run(*command, seconds=60))
    megabytes = {name: size / 1e6 for name, size in seen["sizes"].items()}
    _sizes.append(
        f"the image: {megabytes['all']:.0f} MB installed; of these, the server "
        f"{megabytes['server']:.0f} MB; {built.image.compressed_bytes / 1e6:.0f} MB compressed"
    )
    return seen


@dataclass
class ContainerStack(Stack):
    """`local/`'s commands, with a launcher of containers instead of the server's Python."""

    def starting(self, verb: str) -> list[str]:
        launcher = self.folder.parent / "launcher"
        module = "tests.container.launch"
        launcher.write_text(
            f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(self.root))} "
            f"exec {shlex.quote(sys.executable)} -m {module} {shlex.quote(str(launcher.parent))}\n"
        )
        launcher.chmod(0o700)
        return self.command(verb, "--port", str(self.port), "--python", str(launcher))

    def up(self) -> subprocess.CompletedProcess[str]:
        started = super().up()
        assert started.returncode == 0, started.stdout + started.stderr
        return started

    def exit_code(self) -> int:
        return int((self.folder.parent / "exit-code").read_text())

    def server(self) -> Path:
        """Returns the container's process in /proc."""
        (process,) = (
            path
            for path in Path("/proc").glob("[0-9]*")
            if b"/opt/server/bin/python\0-m\0tracking_server" in _read(path / "cmdline")
            and f"\0PORT={self.port}\0".encode() in b"\0" + _read(path / "environ")
        )
        return process


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process is gone, or another user's
        return b""


@pytest.fixture(scope="session")
def stack(built: Built) -> Iterator[ContainerStack]:
    with TemporaryDirectory(prefix="mlflow-gcp-container-") as folder:
        Path(folder, "runner.json").write_text(dump(built.runner))
        Path(folder, "environment.json").write_text(json.dumps(dict(os.environ)))
        stack = ContainerStack(Path(folder, "state"))
        try:
            stack.up()
            yield stack
        finally:
            stack.down()
            stack.run(stack.command("clean"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _sizes:
        terminalreporter.write_line(line)
