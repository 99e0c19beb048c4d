"""The state's files, the lock, leftovers of a killed run, and the life of a service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake_google.ports import free_port
from fake_google.run import container
from fake_google.run.container import BootFailed, Probe, Service, describe
from fake_google.state import LocalError, Process, State


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / ".local")
    made.create()
    return made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_processes_of_a_killed_run_are_stopped(
    state: State, sleeper: subprocess.Popen[bytes]
) -> None:
    state.remember("server", sleeper.pid, command="sleep", how=signal.SIGTERM, seconds=5)
    assert State(state.root).stop_remembered() == [f"server (process {sleeper.pid})"]
    assert sleeper.wait(5) == -signal.SIGTERM
    assert State(state.root).stop_remembered() == []


@pytest.mark.parametrize("field", ["started", "command"])
def test_another_process_with_the_same_id_is_left_alone(
    state: State, sleeper: subprocess.Popen[bytes], field: str
) -> None:
    state.remember("server", sleeper.pid, command="sleep", how=signal.SIGTERM, seconds=5)
    known = state.load("processes.json")
    known["server"][field] = "another"
    state.save("processes.json", known)
    assert state.stop_remembered() == []
    assert sleeper.poll() is None


def test_a_process_that_ended_is_not_found(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    assert process is not None
    assert process.alive()
    sleeper.kill()  # not waited for: a zombie
    assert process.send(signal.SIGTERM, patience=5)


def test_there_is_one_supervisor(state: State) -> None:
    other = State(state.root)
    assert not state.running()
    assert state.acquire()
    assert other.running()
    assert not other.acquire()
    state.release()
    assert other.acquire()
    other.release()


def test_only_the_owner_can_read_the_files(state: State) -> None:
    state.save("secrets.json", {"a": 1})
    assert state.path("secrets.json").stat().st_mode & 0o777 == 0o600
    assert state.directory("storage").stat().st_mode & 0o777 == 0o700
    state.path("secrets.json").write_text("{")
    with pytest.raises(LocalError, match="local-clean"):
        state.load("secrets.json")


def test_another_users_directory_is_refused(state: State, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.symlink_to(tmp_path)
    with pytest.raises(LocalError, match="remove it"):
        state.outside(trap, mode=0o700)
    ours = state.outside(tmp_path / "ours", mode=0o700)
    assert state.outside(ours, mode=0o700) == ours
    state.clean()
    assert not ours.exists()
    assert not state.root.exists()


# A service. The fake responds to /health after a moment, and behaves as its argument says.
SERVER = """
import http.server, json, os, signal, sys, time
how = sys.argv[1]
if how == "refuse":
    print("noise", file=sys.stderr)
    print(json.dumps({"severity": "CRITICAL", "message": "secret x: no access"}), flush=True)
    sys.exit(1)
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "hang":
    time.sleep(60)
started = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(3)
        sick = how == "sick" and time.monotonic() - started > 0.5
        self.send_response(503 if sick else 200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())
    def log_message(self, *_):
        print(json.dumps({"severity": "INFO", "message": "a request"}), flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Running:
    def __init__(self, state: State, how: str, *, seconds: float, liveness: Probe | None) -> None:
        self.said: list[str] = []
        self.stopping = threading.Event()
        port = free_port()
        self.service = Service(
            state=state,
            name="server",
            command=[sys.executable, "-c", SERVER, how],
            environment={
                **container.base_environment(state.directory("home")),
                "PORT": str(port),
            },
            port=port,
            startup=Probe(path="/health", period=seconds, failures=1),
            liveness=liveness,
            say=self.said.append,
            stopping=self.stopping,
        )

    def stop(self) -> None:
        self.stopping.set()
        self.service.stop()


@pytest.fixture
def serve(state: State) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def start(how: str, *, seconds: float = 10, liveness: Probe | None = None) -> Running:
        made.append(Running(state, how, seconds=seconds, liveness=liveness))
        made[-1].service.start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def test_a_service_has_only_its_declared_environment(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")
    running = serve("serve")
    with urllib.request.urlopen(running.service.address) as answer:
        environment = json.load(answer)
    assert set(environment) - {"LC_CTYPE"} == {"PATH", "HOME", "LANG", "PORT"}
    assert environment["HOME"].endswith("/.local/home")
    running.stop()
    assert not running.service.ended.is_set()


def test_a_failed_boot_shows_the_servers_last_log_line(serve: Callable[..., Running]) -> None:
    with pytest.raises(BootFailed, match=r"exit code 1 .* It said: secret x: no access"):
        serve("refuse")


def test_a_boot_has_a_time_limit(serve: Callable[..., Running]) -> None:
    with pytest.raises(BootFailed, match="did not answer /health within 1 s"):
        serve("hang", seconds=1)


def test_a_server_that_ends_is_restarted(serve: Callable[..., Running]) -> None:
    running = serve("serve")
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{running.service.address}/die")
    _until(lambda: "exit code 3: starting it again" in "".join(running.said))
    _until(lambda: Probe(path="/").passes(running.service.address))


def test_a_worker_serves_nothing(state: State) -> None:
    said: list[str] = []
    worker = Service(
        state=state,
        name="worker w",
        command=[sys.executable, "-c", "print('works'); raise SystemExit(3)"],
        environment=container.base_environment(state.directory("home")),
        port=None,
        startup=None,
        liveness=None,
        say=said.append,
        stopping=threading.Event(),
        log="worker",
    )
    worker.start()
    _until(lambda: "the worker ended with exit code 3: starting it again" in "".join(said))
    worker.stop()
    assert b"works" in state.path("log", "worker.log").read_bytes()


def test_a_server_that_fails_its_probe_is_restarted_a_few_times(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "_MAX_RESTARTS", 1)
    running = serve("sick", liveness=Probe(path="/health", period=0.3, failures=1))
    assert running.service.ended.wait(15)
    said = "".join(running.said)
    assert "failed its liveness probe: starting it again" in said
    assert "not started a further time" in said


def test_a_server_that_ignores_sigterm_is_killed(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "GRACE_SECONDS", 0.3)
    running = serve("deaf")
    running.stop()
    assert not Probe(path="/").passes(running.service.address)


def _until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("line", "described"),
    [
        ("plain text", ("DEFAULT", "plain text")),
        ('{"severity": "ERROR", "message": "no"}', ("ERROR", "no")),
        ("[1]", ("DEFAULT", "[1]")),
        (
            '{"severity": "INFO", "message": "x", "httpRequest": {"requestMethod": "GET", '
            '"requestUrl": "/a", "status": 200, "latency": "0.1s", "protocol": "HTTP/1.1"}}',
            ("INFO", "GET /a 200 0.1s"),
        ),
    ],
)
def test_a_log_line_is_shortened(line: str, described: tuple[str, str]) -> None:
    assert describe(line) == described


def test_the_supervisors_own_process_is_known() -> None:
    found = Process.of(os.getpid())
    assert found is not None
    assert found.alive()
    assert found == Process.of(os.getpid())
