"""Measures whether the time of a refusal reveals what was wrong, in the gate alone.

The gate runs in one quiet process: a difference that isn't visible there isn't over a network.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from statistics import median

from bench.process import BenchError
from bench.report import SERVER_PYTHON, Goal, publish, shown

LARGEST = 0.03


def measure(*, rounds: int) -> None:
    script = Path(__file__).with_name("gate_alone.py")
    ran = subprocess.run(
        [SERVER_PYTHON, script, str(rounds)], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise BenchError(f"the gate could not be measured: {ran.stderr.strip()}")
    found: dict[str, list[float]] = json.loads(ran.stdout)
    first, *_ = found.values()
    rows: list[dict[str, object]] = [
        {
            "credentials": kind,
            "µs": shown([nanoseconds / 1000 for nanoseconds in times]),
            "by the first": shown([a / b for a, b in zip(times, first, strict=True)], digits=3),
        }
        for kind, times in found.items()
    ]
    medians = [median(times) for times in found.values()]
    difference = max(medians) / min(medians) - 1
    goal = Goal(
        goal="a refusal's time, whichever of username and password is wrong",
        wanted=f"≤ {100 * LARGEST:.0f} % apart",
        measured=f"{100 * difference:.1f} %, of {median(medians) / 1000:.1f} µs",
        met=difference <= LARGEST,
    )
    publish("logins", rows=rows, goals=[goal])
