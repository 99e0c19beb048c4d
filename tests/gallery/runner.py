"""Run in the gallery's environment: runs each sample in a separate process, several at a time.

Importing MLflow takes longer than most samples. So it is imported once, and each Python sample
runs in a fork of this process, up to the interpreter's normal exit; other commands run as they are.
Reads jobs as JSON and prints their outcomes.
"""

import gc
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

import mlflow  # noqa: F401
import sklearn.linear_model  # noqa: F401
import xgboost  # noqa: F401

AT_A_TIME = 3
SECONDS = 90

Job = dict[str, Any]


def become(job: Job) -> None:
    """Run the sample in this process, in a separate folder."""
    os.setsid()
    folder = Path(job["folder"])
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    (folder / "work").mkdir()
    os.chdir(folder / "work")
    program, *arguments = job["command"]
    if program != "python":
        os.execvpe(program, job["command"], job["env"])  # noqa: S606
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).parent)
    runpy.run_path(arguments[0], run_name="__main__")


def main() -> None:
    waiting: list[Job] = json.load(sys.stdin)
    running: dict[int, Job] = {}
    done: dict[str, Any] = {}
    started: dict[int, float] = {}
    # A fork would copy every page that the garbage collector touches.
    gc.freeze()
    while waiting or running:
        if waiting and len(running) < AT_A_TIME:
            job = waiting.pop(0)
            pid = os.fork()
            if pid == 0:
                become(job)
                return
            running[pid], started[pid] = job, time.monotonic()
            continue
        for pid, job in list(running.items()):
            ended, status, used = os.wait4(pid, os.WNOHANG)
            seconds = time.monotonic() - started[pid]
            if ended:
                folder = Path(job["folder"])
                done[job["name"]] = {
                    "code": os.waitstatus_to_exitcode(status),
                    "out": (folder / "out").read_text(),
                    "err": (folder / "err").read_text(),
                    "seconds": seconds,
                    "cpu": used.ru_utime + used.ru_stime,
                    "left": sorted(path.name for path in (folder / "work").iterdir()),
                }
                del running[pid]
            elif seconds > SECONDS:
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.02)
    json.dump(done, sys.stdout)


if __name__ == "__main__":
    main()
