"""Ends the processes and deletes the directories that a test run leaves.

The reaper is a separate process. A test run names what it starts to it through a pipe, which the
kernel closes when the run ends, however it ends. After a normal end, most are gone already.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import monotonic, sleep

from fake_google.state import LocalError, Process, State

ROOT = Path(__file__).parents[1]
STOP_SECONDS = 30.0


def reap_process(pid: int) -> None:
    """End this process, or its group if it leads one, when the test run has ended."""
    _tell(f"process {pid}")


def reap_directory(path: Path | str) -> None:
    """Delete this directory when the test run has ended, and end all stacks with data in it."""
    _tell(f"directory {path}")


def _tell(line: str) -> None:
    pipe = _reaper().stdin
    assert pipe is not None
    print(line, file=pipe, flush=True)


@cache
def _reaper() -> subprocess.Popen[str]:
    # A new session, so that Ctrl-C and the end of the terminal don't reach it.
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def main(lines: Iterable[str]) -> None:
    processes: list[Process] = []
    directories: list[Path] = []
    for line in lines:
        kind, _, value = line.rstrip("\n").partition(" ")
        if kind == "directory":
            directories.append(Path(value))
        elif found := Process.of(int(value)):
            processes.append(replace(found, command=""))
    for process in reversed(processes):
        _kill(process)
    for directory in reversed(directories):
        # A list, because cleaning deletes what is walked through.
        for root in [root for root, _, files in os.walk(directory) if "lock" in files]:
            _clean(State(Path(root)))
        shutil.rmtree(directory, ignore_errors=True)


def _kill(process: Process) -> None:
    if not process.alive():
        return
    with suppress(ProcessLookupError):
        leads = os.getpgid(process.pid) == process.pid
        (os.killpg if leads else os.kill)(process.pid, signal.SIGKILL)


def _clean(state: State) -> None:
    with suppress(LocalError, OSError):
        # A supervisor that has just taken the lock soon writes its process, or ends.
        until = monotonic() + STOP_SECONDS
        while state.running() and monotonic() < until:
            if entry := state.supervisor():
                Process(**entry["process"]).stop(how=signal.SIGTERM, seconds=STOP_SECONDS)
            sleep(0.1)
        state.clean()


if __name__ == "__main__":
    main(sys.stdin)
