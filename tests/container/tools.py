"""Running the tools that build and run containers, and saying which one is missing."""

import os
import subprocess
from typing import NoReturn

import pytest


def run(*command: str, seconds: float = 300, env: dict[str, str] | None = None) -> str:
    """What it prints; if it fails, the end of what it said is the error."""
    ran = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        env=env,
    )
    if ran.returncode:
        last = (ran.stdout + ran.stderr).splitlines()[-30:]
        raise AssertionError("\n".join([f"{' '.join(command)}: exit code {ran.returncode}", *last]))
    return ran.stdout


def missing(what: str) -> NoReturn:
    """A user's machine does without these tests. CI installs all that they need, or is broken."""
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
