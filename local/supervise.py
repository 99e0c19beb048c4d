"""Supervises one run of the stack on this computer, from start to stop."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from fake_google.ports import free_port
from fake_google.state import SETTINGS, LocalError, Process, State
from local.person import RUN_CONTEXT, run_context

if TYPE_CHECKING:
    from fake_google.cloud import Cloud

ROOT = Path(__file__).resolve().parent.parent

DEFAULTS = {
    "gcp:project": "local-project",
    "gcp:region": "us-central1",
    "mlflow-gcp:deletionProtection": "false",
    # A ready image, so that nothing is built: the code in image/ runs directly.
    "mlflow-gcp:image": "us-central1-docker.pkg.dev/local-project/images/server:local",
}
# The smallest database has room for the worker's connections and for these.
WITH_JOBS = {"mlflow-gcp:databaseConnections": "5"}


@dataclass(frozen=True)
class Options:
    port: int
    config: Mapping[str, str]
    command: Sequence[str]
    # In the background, the server's lines only go to its log.
    detached: bool = False


def fitting(remembered: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Returns the remembered settings without versions of passwords that this run doesn't generate.

    The program would refuse such a version, which the user hasn't set for this run.
    """

    def generated(who: str) -> bool:
        own = (given.get(f"mlflow-gcp:{who}{name}") for name in ("Password", "PasswordSecret"))
        return not any(own) and bool(who == "tracking" or given.get(f"mlflow-gcp:{who}Username"))

    idle = {
        f"mlflow-gcp:{key}"
        for who in ("tracking", "viewer")
        if not generated(who)
        for key in (f"{who}PasswordVersion", f"previous{who.title()}Password")
    }
    return {key: value for key, value in remembered.items() if key not in idle}


def check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalError(
                f"Port {port} can't be used ({error.strerror}). Take another: "
                f"`make local PORT={free_port()}`."
            ) from None


class Supervisor:
    def __init__(self, *, state: State, options: Options, installing: float = 0.0) -> None:
        self._state, self._options = state, options
        self._started = time.monotonic()
        self._installing = installing

    def say(self, line: str) -> None:
        if self._options.detached and line.startswith(("server   ", "worker   ")):
            return
        print(f"{time.monotonic() - self._started:6.1f} s  {line}", flush=True)

    def run(self) -> None:
        state = self._state
        state.create()
        if state.lock is None and not state.acquire():
            raise LocalError(already_running(state))
        me = Process.of(os.getpid())
        assert me is not None  # noqa: S101
        address = f"http://127.0.0.1:{self._options.port}"
        entry = {"process": asdict(me), "address": address, "options": asdict(self._options)}
        try:
            for orphan in state.stop_remembered():
                self.say(f"stopped {orphan}, left by a run that was killed")
            check_port(self._options.port)
            state.save("supervisor.json", {**entry, "ready": False})
            self._supervise(entry)
        finally:
            state.path("supervisor.json").unlink(missing_ok=True)
            state.release()

    def _supervise(self, entry: dict[str, Any]) -> None:
        # These take a second to import, and only this function needs them.
        from fake_google.cloud import Cloud
        from fake_google.project import Container, Project
        from local import program

        options = self._options
        remembered = fitting(self._state.load(SETTINGS), options.config)
        more = WITH_JOBS if options.config.get("mlflow-gcp:jobs") == "true" else {}
        config = {**DEFAULTS, **more, **remembered, **options.config}
        entry = {**entry, "config": config}
        cloud = Cloud(
            Project(
                state=self._state,
                id=config["gcp:project"],
                region=config["gcp:region"],
                container=Container(command=options.command, port=options.port),
                say=self.say,
            )
        )
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: cloud.project.stopping.set())
        try:
            self.say("creating the database, the bucket and the server on this computer")
            outputs = program.run(main=ROOT / "__main__.py", cloud=cloud, config=config)
            cloud.check_reachable()
            # Even with a load balancer, which doesn't run here.
            [service] = cloud.project.services.values()
            outputs["tracking_uri"] = service.address
            self._write_env(cloud, outputs, config)
            ready = took(installing=self._installing, starting=time.monotonic() - self._started)
            lines = screen(self._state, outputs, ready=ready, detached=options.detached)
            print(lines, flush=True)
            # Last, because `up` shows everything that is printed before this.
            jobs = {name: asdict(job) for name, job in cloud.project.jobs.items()}
            entry |= {"jobs": jobs, "outputs": outputs, "ready": True}
            self._state.save("supervisor.json", entry)
            ended = [service.ended for service in cloud.project.services.values()]
            while not cloud.project.stopping.wait(0.5):
                if any(event.is_set() for event in ended):
                    log = self._state.path("log", "server.log")
                    raise LocalError(
                        "The server has ended too often and is not started again. Its log says "
                        f"why: {log}"
                    )
        except Exception:
            # Don't report a boot that was interrupted as a failure.
            if not cloud.project.stopping.is_set():
                raise
        finally:
            self.say("stopping")
            cloud.project.close()
            self.say("stopped; the data stays")

    def _write_env(
        self, cloud: Cloud, outputs: Mapping[str, Any], config: Mapping[str, str]
    ) -> None:
        environment = {
            "MLFLOW_TRACKING_URI": outputs["tracking_uri"],
            "MLFLOW_TRACKING_USERNAME": outputs["tracking_username"],
            "MLFLOW_TRACKING_PASSWORD": outputs["tracking_password"],
            "MLFLOW_EXPERIMENT_NAME": "quickstart",
            RUN_CONTEXT: run_context(),
        }
        # A proxy can't reach this computer's own address.
        for name in ("no_proxy", "NO_PROXY") if getproxies() else ():
            others = os.environ.get(name, "")
            environment[name] = ",".join(filter(None, ["127.0.0.1", others]))
        lines = []
        if config.get("mlflow-gcp:artifacts") == "direct":
            environment |= cloud.project.client_environment()
            lines.append("unset GOOGLE_APPLICATION_CREDENTIALS STORAGE_EMULATOR_HOST")
        lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        self._state.write("env", "\n".join([*lines, ""]))


def already_running(state: State) -> str:
    address = state.supervisor().get("address", "an address not chosen yet")
    return f"It already runs, at {address}. `make local-down` stops it."


def took(*, installing: float, starting: float) -> str:
    """Returns how long installing and starting took, in whole seconds."""
    before, after = round(installing), max(1, round(starting))
    if not before:
        return f"ready in {after} s"
    return f"ready in {before + after} s: {before} s installing, {after} s starting"


def screen(state: State, outputs: Mapping[str, Any], *, ready: str, detached: bool) -> str:
    """Returns the text that is shown when the stack is ready: address, login, next commands."""
    env = state.path("env")
    if env.is_relative_to(Path.cwd()):
        env = env.relative_to(Path.cwd())
    stop = "make local-down stops it" if detached else "Ctrl-C stops it"
    viewer = outputs.get("viewer_username")
    return "\n".join(
        [
            "",
            f"{ready}. Open it in a browser, and log in:",
            "",
            f"  address    {outputs['tracking_uri']}",
            f"  username   {outputs['tracking_username']}",
            f"  password   {outputs['tracking_password']}",
            *([f"  viewer     {viewer}, with {outputs['viewer_password']}"] if viewer else []),
            "",
            "Or log a run with everything in it and read it back"
            + (":" if detached else ", in another shell:"),
            "",
            f"  source {shlex.quote(str(env))}",
            "  make check",
            "",
            f"{stop}; the data stays until make local-clean.",
            "",
        ]
    )


def fail(error: LocalError) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 1
