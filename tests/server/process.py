"""Runs the server as a separate process, as the container does."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from fake_google.ports import free_port
from tests.reaper import reap_process
from tests.server.forked import Fork

USER, PASSWORD = "mlflow", "canary-password"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
HOST = "mlflow-1.us-central1.run.app"
BOOT_SECONDS = 180
# httpx reads all certificates for each client without one, which takes longer than many tests.
TLS = httpx.create_ssl_context()


def is_healthy(port: int) -> bool:
    """Returns whether the server on this port serves. Cheap, as boots are polled."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@dataclass
class Server:
    """Starts at once; `ready` waits until the server accepts requests or has ended."""

    env: Mapping[str, str]
    folder: Path
    module: str = "tracking_server"
    forked: bool = False
    """For tests that don't look at the process or at its imports; the boot is much shorter."""
    port: int = field(init=False)
    process: subprocess.Popen[bytes] | Fork = field(init=False)

    def __post_init__(self) -> None:
        self.port = free_port()
        self._log = self.folder / f"server-{self.port}.log"
        env = {
            "PATH": os.defpath,
            **self.env,
            "BIND_ADDRESS": "127.0.0.1",
            "PORT": str(self.port),
        }
        if self.forked:
            self._log.touch()
            self.process = Fork(env, self.folder, self._log)
        else:
            with self._log.open("wb") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", self.module],
                    env=env,
                    stdout=output,
                    stderr=output,
                    cwd=self.folder,
                )
        reap_process(self.process.pid)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log.read_text()

    def entries(self) -> list[dict[str, Any]]:
        """Returns all logged lines; fails if one isn't JSON."""
        return [json.loads(line) for line in self.log().splitlines()]

    def shown(self) -> str:
        """Returns everything that other users of the machine can see of the running process."""
        if sys.platform != "linux":
            return ""
        process = Path("/proc", str(self.process.pid))
        return (process / "environ").read_text() + (process / "cmdline").read_text()

    def accepts(self) -> bool:
        """Returns whether it accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ready(self) -> "Server":
        until = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the server has ended: {self.log()}")
            if is_healthy(self.port):
                return self
            time.sleep(0.05)
        raise AssertionError(f"the server does not answer: {self.log()}")

    def failed(self) -> str:
        """Returns the one line with which the boot ended."""
        assert self.process.wait(BOOT_SECONDS) == 1, self.log()
        critical = [entry for entry in self.entries() if entry["severity"] == "CRITICAL"]
        assert len(critical) == 1, self.log()
        assert "stack_trace" not in critical[0]
        return str(critical[0]["message"])

    def client(self, **options: Any) -> httpx.Client:
        options = {"auth": (USER, PASSWORD), "timeout": 30, **options}
        return httpx.Client(base_url=self.url, verify=TLS, **options)

    def stop(self) -> int:
        """Send SIGTERM as Cloud Run does. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not stop within 10 s") from None


def eventually(holds: Callable[[], bool], *, seconds: float = 60.0) -> bool:
    """Returns whether the condition becomes true within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.1)
    return False
