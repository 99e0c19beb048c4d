"""Runs the tools that build and run containers, and reports the ones that are missing."""

import os
import subprocess
from typing import NoReturn

import pytest


def run(*command: str, seconds: float = 300, env: dict[str, str] | None = None) -> str:
    """Returns what the command prints. If it fails, the error has the end of its output."""
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
    """Skip the tests on a user's machine; fail in CI, which installs all that they need."""
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
