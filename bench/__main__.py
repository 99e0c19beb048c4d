"""`python -m bench [NAME] [--rounds N]`; `make bench` and `make bench-NAME` wrap it."""

from __future__ import annotations

import argparse
import importlib
import signal
import subprocess
import sys
import time

from bench.process import BenchError, reserve_cores
from fake_google.state import LocalError

PARTS = ("coldstart", "requests", "artifacts", "memory", "image", "scale", "data", "logins", "page")
ROUNDS = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="default: all of them")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if arguments.part is None:
        return _all(arguments.rounds)
    # Ends servers, stand-ins and database in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        reserve_cores()
        importlib.import_module(f"bench.{arguments.part}").measure(rounds=arguments.rounds)
    except (BenchError, LocalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _all(rounds: int) -> int:
    """Run each part in a separate process, and continue if one fails."""
    started = time.monotonic()
    codes = [
        subprocess.run(
            [sys.executable, "-m", "bench", part, "--rounds", str(rounds)], check=False
        ).returncode
        for part in PARTS
    ]
    print(f"{len(PARTS)} parts in {time.monotonic() - started:.0f} s")
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
