"""A server under measurement: a session of processes, pinned to one core."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = _CORES[0]
_POLL_SECONDS = 0.004
_STOP_SECONDS = 4
_QUIET_SECONDS = 0.05
_IDLE_SHARE = 0.5


class BenchError(Exception):
    """A part can't be measured; the text gives the reason in one line."""


def reserve_cores(wanted: int = 1) -> list[int]:
    """Reserve cores for servers, at most half of all; this process and its children use others."""
    if len(_CORES) < 2:
        raise BenchError("Two cores are needed: one for the server, one for the load.")
    count = min(wanted, len(_CORES) // 2)
    os.sched_setaffinity(0, _CORES[count:])
    return _CORES[:count]


def require(command: str, *, package: str, formula: str) -> str:
    """Returns the path of a program.

    Raises:
            BenchError: with the package to install, on Debian and with Homebrew.
    """
    found = shutil.which(command)
    if found is None:
        raise BenchError(
            f"{command} is needed: `apt install {package}` or `brew install {formula}`."
        )
    return found


@contextlib.contextmanager
def _pinned(core: int) -> Iterator[None]:
    # Affinity belongs to a thread, and a child inherits that of the thread that starts it.
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def basic(username: str, password: str) -> str:
    """Returns an Authorization header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@dataclass
class Server:
    """`port` is the command's port, `authorization` the header that it accepts, if any."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    port: int
    authorization: str | None
    # Whether the database has an open transaction: a thread that waits for a connection looks idle.
    in_transaction: Callable[[], bool]
    core: int = SERVER_CORE

    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name.replace(' ', '-')}.log"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": self.authorization} if self.authorization else {}

    def start(self, *, patience: float = 120) -> float:
        """Start it. Returns the seconds to its first response with data from the database."""
        with self.log.open("ab") as log, _pinned(self.core):
            started = time.perf_counter()
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = started + patience
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > deadline:
                self.stop()
                last = self.log.read_text(errors="replace").strip().splitlines()[-3:]
                raise BenchError(f"{self.name} did not start: " + " | ".join(last))
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - started

    def _answers(self) -> bool:
        """Returns whether a request for experiment 0, which every MLflow database has, succeeds."""
        try:
            status, body = self.call("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and b'"experiment_id":"0"' in body.replace(b" ", b"")

    def call(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send one request on a new connection; `x_name` is the header `x-name`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, self.headers | named)
            answer = connection.getresponse()
            return answer.status, answer.read()

    # Processes and resources

    def pids(self) -> list[int]:
        """Returns every process of its session."""
        if self._process is None:
            return []
        session, found = str(self._process.pid), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (stat := _stat(int(entry.name))) and stat[3] == session:
                found.append(int(entry.name))
        return found

    def cpu_seconds(self) -> float:
        """Returns the seconds of its processes, user and system."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += time.clock_gettime(_cpu_clock(pid))
        return total

    def memory(self, what: str = "Pss") -> float:
        """Returns MiB of its processes; shared pages count once (`Rss`: once for each process)."""
        return sum(_field(pid, "smaps_rollup", what) for pid in self.pids()) / 1024

    def forget_peak(self) -> None:
        """Reset `peak`: proc(5), clear_refs."""
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """Returns the peak of its processes' resident memory in MiB, from the kernel."""
        found = (_field(pid, "status", "VmHWM") for pid in self.pids())
        return sum(found) / 1024

    def written(self) -> float:
        """Returns MiB that its processes have written to files, including log and deleted ones."""
        return sum(_field(pid, "io", "write_bytes") for pid in self.pids()) / (1 << 20)

    def settle(self, *, patience: float = 60) -> None:
        """Wait until it does nothing, so that work for earlier requests is done too."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(_QUIET_SECONDS)
            # Stock's job processes look for work all the time.
            idle = self.cpu_seconds() - before < _QUIET_SECONDS * _IDLE_SHARE
            if idle and not self.in_transaction():
                return
        raise BenchError(f"{self.name} is still busy {patience:.0f} s after its last request.")

    # Start and stop

    def freeze(self) -> None:
        """Pause its processes, so that another server is measured alone."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is None:
            return
        self.thaw()
        if self._process.poll() is None:
            self._process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        while self.pids() and time.monotonic() < deadline:
            self._process.poll()
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _cpu_clock(pid: int) -> int:
    """Returns the clock of a process's CPU time in nanoseconds: clock_getcpuclockid(3) on Linux."""
    return ~pid << 3 | 2


def _stat(pid: int) -> list[str] | None:
    """Returns `/proc/PID/stat` from the third field, the state; None if the process has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields


def _field(pid: int, file: str, name: str) -> int:
    """Returns the number after `name:` in `/proc/PID/FILE`; 0 if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


@contextlib.contextmanager
def alone(server: Server, among: Sequence[Server]) -> Iterator[Server]:
    """Pause all other servers while this one runs."""
    for other in among:
        if other is not server:
            other.freeze()
    server.thaw()
    server.settle()  # first it catches up on its timers
    yield server
