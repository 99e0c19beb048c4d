"""The shell commands in the pages, for tests that run them unchanged."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands(page: str, heading: str) -> list[str]:
    """Returns the shell blocks under a heading, in order."""
    return dict(sections(page))[heading]


def sections(page: str) -> list[tuple[str, list[str]]]:
    """Returns every heading that has shell blocks, with the blocks."""
    found: list[tuple[str, list[str]]] = []
    # A block's own comments look like headings.
    pieces = re.split(r"^(```\w*\n.*?^```)$", (ROOT / page).read_text(), flags=re.M | re.S)
    heading = ""
    for piece in pieces:
        if block := re.fullmatch(r"```sh\n(.*?)```", piece, re.S):
            if not found or found[-1][0] != heading:
                found.append((heading, []))
            found[-1][1].append(block[1])
        elif not piece.startswith("```"):
            for line in re.findall(r"^#{1,6} (.*)$", piece, re.M):
                heading = line
    return found


def stand_in(folder: Path, name: str, script: str) -> None:
    """Write a program of that name into a folder that is on PATH."""
    path = folder / name
    path.write_text(script)
    path.chmod(0o755)


def run(block: str, *, folder: Path, environment: Mapping[str, str], seconds: float = 300) -> str:
    """Run it for a user who stops at the first error, with job control as in a terminal."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-mc", block],
        check=False, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
