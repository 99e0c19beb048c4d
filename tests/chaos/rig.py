"""The stack with a server, a database and networks that a test can break."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import pg8000.native

from fake_google.ports import free_port
from fake_google.sql.postgres import ADMIN
from fake_google.state import Process, State
from tests.chaos.instances import environment_of
from tests.chaos.network import Network
from tests.local.conftest import CLIENT, SERVER, Stack

SESSION = Path(__file__).with_name("session.py")
BOOT_SECONDS = 60
PATIENT, IMPATIENT = "patient", "impatient"
"""A client with MLflow's own retries, and one without, which sees every error."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """One container of the revision. Its address stays the same when it is restarted."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {**environment, "PORT": str(self.port)}
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, output: int | IO[bytes] | None = None) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [SERVER, "-m", "tracking_server"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output or log,
                stderr=output or log,
            )

    def ready(self) -> Server:
        until = time.monotonic() + BOOT_SECONDS
        while not self.healthy():
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < until, self.log.read_text()[-3000:]
            time.sleep(0.05)
        return self

    def healthy(self) -> bool:
        try:
            with _DIRECT.open(f"{self.address}/health", timeout=2) as answer:
                return int(answer.status) == 200
        except OSError:
            return False

    def end(self, how: signal.Signals) -> int:
        """Send a signal and wait. Returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def statuses(self) -> Counter[int]:
        """Returns how often the server has responded with each status, from its own log."""
        found: Counter[int] = Counter()
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                found[json.loads(line)["httpRequest"]["status"]] += 1
        return found


class Database:
    """The stack's PostgreSQL, stopped and started without the supervisor's knowledge."""

    def __init__(self, stack: Stack, root: Path) -> None:
        self._state = State(stack.folder)
        [(name, entry)] = [
            (name, entry)
            for name, entry in self._state.load("processes.json").items()
            if name.startswith("PostgreSQL ")
        ]
        self._log = stack.folder / "log" / f"{name.removeprefix('PostgreSQL ')}.log"
        proc = Path("/proc", str(entry["pid"]))
        self._command = (proc / "cmdline").read_text().strip("\0").split("\0")
        owner = proc.stat()
        self._user, self._group = owner.st_uid, owner.st_gid
        self.data = Path(self._command[self._command.index("-D") + 1])
        self._leader = entry["pid"]
        self._child: subprocess.Popen[bytes] | None = None
        self._link = next(root.glob("*/.s.PGSQL.5432"))
        self._home = self.socket = self._link.resolve()

    def connect(self, *, user: str = ADMIN, database: str = "mlflow") -> pg8000.native.Connection:
        [password] = self._state.load("postgres.json").values()
        return pg8000.native.Connection(
            user, unix_sock=str(self.socket), password=password, database=database, timeout=10
        )

    def commit_durably(self) -> None:
        """Write everything to disk, as Cloud SQL does; the stand-in could lose its last commits."""
        with self.connect() as admin:
            admin.run("ALTER SYSTEM SET synchronous_commit = on")
            admin.run("SELECT pg_reload_conf()")

    def processes(self) -> list[int]:
        """Returns the postmaster and all its child processes."""
        children = Path(f"/proc/{self._leader}/task/{self._leader}/children").read_text()
        return [self._leader, *map(int, children.split())]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._leader, number)

    def signal_all(self, number: signal.Signals) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def is_gone(self) -> bool:
        return Process.of(self._leader) is None

    def wait_until_gone(self) -> None:
        until = time.monotonic() + 30
        while not self.is_gone():
            assert time.monotonic() < until, "PostgreSQL goes on"
            time.sleep(0.02)

    def wait_until_answers(self) -> None:
        until = time.monotonic() + 30
        while True:
            try:
                return self.connect().close()
            except (OSError, pg8000.exceptions.Error):
                assert time.monotonic() < until, self._log.read_text()[-2000:]
                time.sleep(0.05)

    def start(self, *, sockets: Path | None = None, data: Path | None = None) -> None:
        """Start it as it was, or with its socket or data elsewhere, as on another machine."""
        command, self.socket = list(self._command), self._home
        if data is not None:
            command[command.index("-D") + 1] = str(data)
        if sockets is not None:
            os.chown(sockets, self._user, self._group)
            command += ["-k", str(sockets)]
            self.socket = sockets / self.socket.name
        until = time.monotonic() + 30
        while True:
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(
                    command,
                    cwd="/",
                    env={"PATH": os.defpath, "LC_ALL": "C"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    user=self._user,
                    group=self._group,
                    extra_groups=[],
                    start_new_session=True,
                )
            self._leader = self._child.pid
            while time.monotonic() < until and self._child.poll() is None:
                try:
                    self.connect().close()
                except (OSError, pg8000.exceptions.Error):
                    time.sleep(0.05)
                else:
                    return
            # The shared memory of a killed server is freed when its last process has ended.
            assert time.monotonic() < until, self._log.read_text()[-2000:]
            time.sleep(0.2)

    def lead_here(self) -> None:
        """Point the connector's socket to where the database is now."""
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self.socket)

    def stop(self) -> None:
        if not self.is_gone():
            self.signal_all(signal.SIGCONT)
            self.signal(signal.SIGINT)
            self.wait_until_gone()

    def start_afresh(self) -> None:
        """Start it as before a fault, whatever state the fault has left."""
        self.stop()
        self.start()
        self.lead_here()


class Prober:
    """Sends requests that need the database, one after the other, with short timeouts."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._request = urllib.request.Request(
            f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0", headers=dict(headers)
        )
        self.answers: list[tuple[float, int]] = []
        """When each request was sent, and its status; 0 without a response."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            asked = time.time()
            self.answers.append((asked, self.ask()))

    def ask(self) -> int:
        try:
            with _DIRECT.open(self._request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)

    def healed_after(self, moment: float) -> float:
        """Returns the seconds from `moment` to the first good response with no bad one after it."""
        bad = [asked for asked, status in self.answers if asked >= moment and status != 200]
        good = [asked for asked, status in self.answers if status == 200]
        last_bad = max(bad, default=moment)
        assert any(asked > last_bad for asked in good), "the server never responds again"
        return min(asked for asked in good if asked > last_bad) - moment if bad else 0.0


@dataclass
class Outcome:
    """The outcome of a load, with the result of the comparison."""

    acknowledged: int = 0
    refused: int = 0
    kept_though_refused: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)
    patient_refused: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    healed: float = 0.0
    faults: int = 1


class Rig:
    """Everything of one stack; the stack's own server idles."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self._declared = environment_of(stack)
        self.credentials = stack.environment()
        self.root = Path(self._declared["CLOUDSQL_ROOT"])
        self.database = Database(stack, self.root)

    @property
    def headers(self) -> dict[str, str]:
        known = self.credentials
        pair = f"{known['MLFLOW_TRACKING_USERNAME']}:{known['MLFLOW_TRACKING_PASSWORD']}"
        return {"Authorization": "Basic " + b64encode(pair.encode()).decode()}

    @contextmanager
    def network(self, variable: str) -> Iterator[Network]:
        """Put a network between a server and the address in this variable."""
        network = Network(self._declared[variable])
        try:
            yield network
        finally:
            network.close()

    @contextmanager
    def server(self, **changed: str) -> Iterator[Server]:
        with TemporaryDirectory(dir=self.folder) as folder:
            server = Server(self._declared | changed, Path(folder, "server.log"))
            try:
                yield server
            finally:
                if server.process is not None:
                    server.end(signal.SIGTERM)

    def client(self, address: str, **changed: str) -> dict[str, str]:
        """Returns a client's environment. Telemetry would need the internet."""
        known = {"MLFLOW_TRACKING_URI": address, "MLFLOW_DISABLE_TELEMETRY": "true"}
        return self.credentials | known | changed

    def session(self, address: str, *arguments: str, **changed: str) -> str:
        ran = subprocess.run(
            [CLIENT, SESSION, *arguments],
            check=False,
            env=self.client(address, **changed),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def under_load(
        self,
        server: Server,
        fault: Callable[[], None],
        *,
        seconds: float = 24,
        threads: int = 5,
        faults: int = 1,
    ) -> Outcome:
        """Log from two clients, cause a fault after some seconds, and compare at the end."""
        self.session(server.address, "prepare")
        with TemporaryDirectory(dir=self.folder) as folder, ExitLoads() as loads:
            journals = {name: Path(folder, name) for name in (PATIENT, IMPATIENT)}
            for name, journal in journals.items():
                changed = {} if name == PATIENT else {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
                loads.start(
                    [CLIENT, SESSION, "log", journal, str(seconds), str(threads)],
                    self.client(server.address, **changed),
                )
            _wait_for(lambda: all(j.exists() and j.stat().st_size for j in journals.values()), 120)
            with Prober(server.address, self.headers) as prober:
                time.sleep(3)
                fault()
                mended = time.time()
                loads.finish(seconds + 150)
                until = time.monotonic() + 10
                while prober.ask() != 200:
                    assert time.monotonic() < until, "the server never responds again"
                    time.sleep(0.1)
                time.sleep(0.5)
            statuses = server.statuses()
            compared = json.loads(
                self.session(server.address, "compare", *map(str, journals.values())).splitlines()[
                    -1
                ]
            )
            entries = [json.loads(line) for line in journals[PATIENT].read_text().splitlines()]
            return Outcome(
                **compared,
                patient_refused=[entry["error"] for entry in entries if entry["error"]],
                statuses=statuses,
                healed=prober.healed_after(mended),
                faults=faults,
            )


class ExitLoads:
    """The clients of a load. They end with the block in any case."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[Any], environment: Mapping[str, str]) -> None:
        self._running.append(
            subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def finish(self, seconds: float) -> None:
        for each in self._running:
            assert each.wait(seconds) == 0

    def __enter__(self) -> ExitLoads:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._running:
            if each.poll() is None:
                each.kill()
                each.wait()


def _wait_for(what: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.05)
