"""One run of the stack: from an empty or a used `.local/` to a server that answers, and back."""

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
from typing import Any

from local import program
from local.cloud import Cloud, Container
from local.state import LocalError, Process, State

ROOT = Path(__file__).resolve().parent.parent

DEFAULTS = {
    "gcp:project": "local-project",
    "gcp:region": "us-central1",
    "mlflow-gcp:deletionProtection": "false",
    # Ready, so that nothing is built: what runs is image/ itself.
    "mlflow-gcp:image": "us-central1-docker.pkg.dev/local-project/mlflow/server:local",
}


@dataclass(frozen=True)
class Options:
    port: int
    config: Mapping[str, str]
    command: Sequence[str]
    # In the background nobody reads along: the server's lines are in its own log.
    detached: bool = False


def check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LocalError(
                f"Port {port} can't be used ({error.strerror}). Choose another: "
                f"`PORT={port + 1} make local`."
            ) from None


class Supervisor:
    def __init__(self, *, state: State, options: Options) -> None:
        self._state, self._options = state, options
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        if self._options.detached and line.startswith("server   "):
            return
        print(f"{time.monotonic() - self._started:6.1f} s  {line}", flush=True)

    def run(self) -> None:
        state = self._state
        state.create()
        if not state.acquire():
            raise LocalError(already_running(state))
        me = Process.of(os.getpid())
        assert me is not None  # noqa: S101
        entry = {"process": asdict(me), "address": f"http://127.0.0.1:{self._options.port}"}
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
        options = self._options
        config = {**DEFAULTS, **options.config}
        cloud = Cloud(
            state=self._state,
            project=config["gcp:project"],
            region=config["gcp:region"],
            container=Container(command=options.command, port=options.port),
            say=self.say,
        )
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: cloud.stopping.set())
        try:
            self.say("running __main__.py, making real what it declares")
            outputs = program.run(main=ROOT / "__main__.py", cloud=cloud, config=config)
            cloud.check_reachable()
            # Also where a load balancer would be the way in: none stands here.
            [service] = cloud.services.values()
            outputs["tracking_uri"] = service.address
            self._write_env(cloud, outputs, config)
            self._state.save("supervisor.json", {**entry, "outputs": outputs, "ready": True})
            print(screen(self._state, outputs, detached=options.detached), flush=True)
            ended = [service.ended for service in cloud.services.values()]
            while not cloud.stopping.wait(0.5):
                if any(event.is_set() for event in ended):
                    log = self._state.path("log", "server.log")
                    raise LocalError(f"The server is gone. Its log: {log}")
        except Exception:
            # A boot that was interrupted is no failure to report.
            if not cloud.stopping.is_set():
                raise
        finally:
            self.say("stopping")
            cloud.close()
            self.say("stopped; the data stays")

    def _write_env(
        self, cloud: Cloud, outputs: Mapping[str, Any], config: Mapping[str, str]
    ) -> None:
        environment = {
            "MLFLOW_TRACKING_URI": outputs["tracking_uri"],
            "MLFLOW_TRACKING_USERNAME": outputs["tracking_username"],
            "MLFLOW_TRACKING_PASSWORD": outputs["tracking_password"],
            "MLFLOW_EXPERIMENT_NAME": "quickstart",
        }
        lines = []
        if config.get("mlflow-gcp:artifacts") == "direct":
            environment |= cloud.client_environment()
            lines.append("unset GOOGLE_APPLICATION_CREDENTIALS STORAGE_EMULATOR_HOST")
        lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
        self._state.write("env", "\n".join([*lines, ""]))


def already_running(state: State) -> str:
    address = state.supervisor().get("address", "an address not chosen yet")
    return f"It already runs, at {address}. `make local-down` stops it."


def screen(state: State, outputs: Mapping[str, Any], *, detached: bool) -> str:
    """All that one needs next, on one screen."""
    first = ("tracking_uri", "tracking_username", "tracking_password")
    names = [*first, *sorted(outputs.keys() - set(first))]
    shown = {name: outputs[name] for name in names if isinstance(outputs[name], str)}
    width = max(map(len, shown))
    env = os.path.relpath(state.path("env"))
    stop = "make local-down stops it" if detached else "Ctrl-C stops it"
    rows = [f"  {name:{width}}  {value}" for name, value in shown.items()]
    return "\n".join(
        [
            "",
            *rows,
            "",
            "Try it, in another shell:" if not detached else "Try it:",
            "",
            f"  source {shlex.quote(env)}",
            "  make check    # logs a run with everything in it and reads it back",
            "",
            "Or open the address in a browser. In an environment of your own that has MLflow:",
            "python sample_client/check_tracking.py",
            "",
            f"{stop}; the data stays until make local-clean.",
            "",
        ]
    )


def fail(error: LocalError) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 1
