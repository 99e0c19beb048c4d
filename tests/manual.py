"""The commands of the manual, for tests that run them as they stand there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands(page: str, heading: str) -> list[str]:
    """The shell blocks under a heading, in turn."""
    text = (ROOT / page).read_text()
    [section] = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    found: list[str] = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    return found


def stand_in(folder: Path, name: str, script: str) -> None:
    """A program of that name, for a PATH that this folder is on."""
    path = folder / name
    path.write_text(script)
    path.chmod(0o755)


def run(block: str, *, folder: Path, environment: Mapping[str, str], seconds: float = 300) -> str:
    """As a user who stops at the first error. With job control, as in a shell of theirs."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-mc", block],
        check=False, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
