"""The language host of these tests: the processes that it starts end with the tests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from fake_google.state import Process
from tests.engine.deployment import ROOT
from tests.engine.engine import Engine

# An `up` that hangs in the middle and prints which processes run the program.
HANGS = """
import json, multiprocessing, sys, time
from pathlib import Path
from tests.engine.deployment import INSTANCE, deployment
from tests.engine.engine import find

with deployment(Path(sys.argv[1]), find()) as made:
    made.init()
    made.cloud.held = INSTANCE
    made.start("up", "--yes", "--skip-preview", "--stack", "prod")
    made.cloud.reached.wait(60)
    print(json.dumps([each.pid for each in multiprocessing.active_children()]), flush=True)
    time.sleep(60)
"""


def test_no_program_outlives_tests_that_are_killed(tmp_path: Path, engine: Engine) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGS, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout
        pids = json.loads(tests.stdout.readline())
        programs = [program for pid in pids if (program := Process.of(pid))]
        assert len(programs) == 1
        tests.kill()
    until = time.monotonic() + 20
    while any(program.alive() for program in programs) and time.monotonic() < until:
        time.sleep(0.05)
    left = [program for program in programs if program.alive()]
    for program in left:
        program.send(signal.SIGKILL, patience=5)
    assert left == []
