"""`python -m local`: runs the stack on this computer, for `make local`, `local-up` and others."""

from __future__ import annotations

import argparse
import errno
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from fake_google.state import LocalError, Process, State
from local.supervise import ROOT, Options, Supervisor, already_running, fail

_START_SECONDS = 10
_STOP_SECONDS = 60
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    parser.add_argument("--state", type=Path, default=ROOT / ".local", help="the data folder")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("run", "run until Ctrl-C"), ("up", "run in the background")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--port", default="8080")
        command.add_argument("--begun", type=float, default=0.0, help=argparse.SUPPRESS)
        command.add_argument(
            "--config",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="a setting, such as artifacts=direct",
        )
        command.add_argument(
            "--python",
            default=str(ROOT / ".venvs/server/bin/python"),
            help="the server's own interpreter",
        )
        command.add_argument("--lock", type=int, help=argparse.SUPPRESS)
    commands.add_parser("down", help="stop it; its data stays")
    commands.add_parser("status", help="print whether it runs, and its address")
    commands.add_parser("env", help="print what a client needs, for eval")
    commands.add_parser("clean", help="remove its data")
    return parser.parse_args(arguments)


def _port(given: str) -> int:
    if not (given.isdecimal() and 0 < int(given) < 65536):
        raise LocalError(f"PORT is a number from 1 to 65535, such as 8080, not {given!r}.")
    return int(given)


def _options(arguments: argparse.Namespace) -> Options:
    # Importing it takes a second.
    if find_spec("pulumi") is None:
        raise LocalError(
            f"pulumi is not installed for {sys.executable}: `make local` installs what is needed "
            "under .venvs/ and starts it (make comes with `apt install make`, on macOS with "
            "`xcode-select --install`)."
        )
    config = {}
    for setting in arguments.config:
        key, equals, value = setting.partition("=")
        if not equals:
            raise LocalError(
                f"--config takes KEY=VALUE, such as artifacts=direct, not {setting!r}."
            )
        config[key if ":" in key else f"mlflow-gcp:{key}"] = value
    if not Path(arguments.python).exists():
        raise LocalError(f"The server's environment is missing ({arguments.python}): `make local`.")
    return Options(
        port=_port(arguments.port),
        config=config,
        command=[arguments.python, "-m", "tracking_server"],
        detached=arguments.lock is not None,
    )


def _installing(begun: float) -> float:
    """Returns the seconds since `make` started, or 0 if it has installed nothing."""
    stamps = [ROOT / ".venvs" / f"{name}.done" for name in ("program", "server")]
    installed = any(stamp.exists() and stamp.stat().st_mtime >= begun for stamp in stamps)
    return time.time() - begun if begun and installed else 0.0


def _first(state: State) -> int | None:
    """Returns the lock, or None if another process runs the stack.

    A process that has just taken the lock soon writes its address, or ends.
    """
    patience = time.monotonic() + _START_SECONDS
    while not state.acquire():
        if state.supervisor() or time.monotonic() > patience:
            return None
        time.sleep(0.1)
    return state.lock


def _up(state: State, arguments: argparse.Namespace) -> int:
    """Starts `run` in a separate session, and returns when it is ready or has failed."""
    _options(arguments)
    state.create()
    lock = _first(state)
    if lock is None:
        print(already_running(state))
        return 0
    # Left by a killed run; another `up` would mistake it for this run's file.
    state.path("supervisor.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "local", "--state", str(state.root), "run"]
    command += ["--lock", str(lock), "--port", arguments.port, "--python", arguments.python]
    command += ["--begun", str(arguments.begun)]
    for setting in arguments.config:
        command += ["--config", setting]
    state.directory("log")
    state.write("log/local.log", "")
    with state.path("log", "local.log").open("r+") as log:
        child = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, pass_fds=[lock],
        )  # fmt: skip
    state.release()
    with state.path("log", "local.log").open() as lines:
        while True:
            ended = child.poll() is not None
            supervisor = state.supervisor()
            ready = supervisor.get("ready") and supervisor["process"]["pid"] == child.pid
            print(lines.read(), end="", flush=True)
            if ended or ready:
                return int(ended)
            time.sleep(0.1)


def _down(state: State) -> int:
    if not state.running():
        left = state.stop_remembered() if state.root.exists() else []
        print("\n".join(f"stopped {name}" for name in left) or "Nothing runs.")
        return 0
    entry = state.supervisor()
    if not entry:
        raise LocalError("It is starting or stopping: try again in a moment.")
    Process(**entry["process"]).send(signal.SIGTERM, patience=_STOP_SECONDS)
    if state.running():
        pid = entry["process"]["pid"]
        raise LocalError(
            f"It did not stop within {_STOP_SECONDS} s. Its process is {pid}, its log "
            f"{state.path('log')}; `kill -9 {pid}` ends it, and what it leaves is stopped at the "
            "next start."
        )
    print("stopped; the data stays")
    return 0


def _status(state: State) -> int:
    if not state.running():
        print("Nothing runs. `make local` starts it.")
        return 1
    entry = state.supervisor()
    what = "runs" if entry.get("ready") else "is starting"
    print(f"It {what} at {entry.get('address')}, process {entry.get('process', {}).get('pid')}.")
    return 0


def _env(state: State) -> int:
    if not state.path("env").exists():
        raise LocalError("The file env doesn't exist yet: `make local` writes it.")
    print(state.path("env").read_text(), end="")
    return 0


def _clean(state: State) -> int:
    if state.running():
        raise LocalError("It runs: stop it first, with Ctrl-C or `make local-down`.")
    state.clean()
    print(f"{state.root} was removed.")
    return 0


def main() -> int:
    arguments = _parse(sys.argv[1:])
    state = State(arguments.state, lock=getattr(arguments, "lock", None))
    try:
        match arguments.command:
            case "run":
                installing = _installing(arguments.begun)
                options = _options(arguments)
                Supervisor(state=state, options=options, installing=installing).run()
                return 0
            case "up":
                return _up(state, arguments)
            case "down":
                return _down(state)
            case "status":
                return _status(state)
            case "env":
                return _env(state)
            case _:
                return _clean(state)
    except LocalError as error:
        return fail(error)
    except KeyboardInterrupt:
        return fail(LocalError("interrupted before anything was started."))
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        return fail(
            LocalError(
                f"{error.filename or state.root} can't be written ({error.strerror}). Make room "
                "or take a folder of your own: `.venvs/program/bin/python -m local --state "
                "/path/to/folder run`."
            )
        )


if __name__ == "__main__":
    sys.exit(main())
