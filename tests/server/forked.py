"""Starts the server in a fork of a process that has imported MLflow, which takes most of a boot."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.server.preloaded"])


class Fork:
    """Has the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, env: Mapping[str, str], folder: Path, log: Path) -> None:
        self._process = _PROCESSES.Process(target=_boot, args=(dict(env), folder, log), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("tracking_server", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _boot(env: dict[str, str], folder: Path, log: Path) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    with log.open("wb") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    from tracking_server import __main__

    code = __main__.main()
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(code)
