"""A test run that is killed leaves no process and no directory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fake_google.state import Process
from tests.local.conftest import ROOT, Stack

RUN = """
import subprocess, sys, time
from pathlib import Path
from fake_google.state import State
from tests.reaper import reap_directory, reap_process

folder = Path(sys.argv[1])
reap_directory(folder)
group = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"], start_new_session=True)
reap_process(group.pid)
alone = subprocess.Popen(["sleep", "300"])
reap_process(alone.pid)
state = State(folder / "state")
state.create()
recorded = subprocess.Popen(["sleep", "300"], start_new_session=True)
state.remember("sleep", recorded.pid, command="sleep", how=2, seconds=1)
state.outside(folder.with_name("outside"), mode=0o700)
time.sleep(0.5)
print(group.pid, alone.pid, recorded.pid, flush=True)
time.sleep(300)
"""


def gone(pid: int) -> bool:
    return Process.of(pid) is None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_killed_run_has_started_ends_with_it(tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        started = [int(pid) for pid in run.stdout.readline().split()]
        assert len(started) == 3
        assert not any(map(gone, started))
        run.send_signal(how)
    until = time.monotonic() + 60
    while not (all(map(gone, started)) and not folder.exists()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not folder.with_name("outside").exists()


def test_the_stack_of_a_killed_run_ends_with_it() -> None:
    script = (
        "import time\n"
        "from tests.local.conftest import Stack\n"
        "with Stack.temporary() as stack:\n"
        "    print(stack.folder, flush=True)\n"
        "    time.sleep(300)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        stack = Stack(Path(run.stdout.readline().strip()))
        pids = [entry["pid"] for entry in stack.state().load("processes.json").values()] + [
            stack.state().supervisor()["process"]["pid"]
        ]
        assert len(pids) > 2
        os.kill(run.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while not (all(map(gone, pids)) and not stack.folder.parent.exists()):
        assert time.monotonic() < until
        time.sleep(0.05)
