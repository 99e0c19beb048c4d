"""Tests the server with MLflow's neighbouring releases, to see breakage before an upgrade.

    python -m tests.versions           # the previous minor, and every newer one
    python -m tests.versions 3.18.1    # only these

Each run uses the image's lock with MLflow's version replaced, and the changes that this requires.
Fails if a newer release can be installed and doesn't pass; the previous minor only shows what a
downgrade would break.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
VENVS = ROOT / ".venvs"
UV = VENVS / "uv" / "bin" / "uv"
# The boot, our composition of MLflow's app, MLflow's private names, and the code that uses them.
TESTS = (
    "mlflow_internals", "schema", "boot", "composition", "routes", "runs", "encryption",
)  # fmt: skip

Version = tuple[int, ...]

PIN = re.compile(r"(?<=^mlflow\[auth\]==)\S+", re.M)
"""MLflow's version in image/requirements.in."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    version: str
    passed: int = 0
    failed: tuple[str, ...] = ()
    not_installed: str = ""

    def line(self) -> str:
        if self.not_installed:
            return f"{self.version}  can't be installed: {self.not_installed}"
        if not self.failed:
            return f"{self.version}  passed, {self.passed} tests"
        return "\n    ".join([f"{self.version}  {len(self.failed)} failed:", *self.failed])


def parsed(text: str) -> Version:
    """Returns the version, or an empty tuple if the text isn't a release."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def neighbours(locked: Version, released: Iterable[Version]) -> list[Version]:
    """Returns the newest release of the previous minor and of each later one, except the lock's."""
    newest: dict[Version, Version] = {}
    for version in sorted(released):
        newest[version[:2]] = version
    before = [minor for minor in newest if minor < locked[:2]]
    wanted = [*sorted(before)[-1:], *(minor for minor in newest if minor >= locked[:2])]
    return [newest[minor] for minor in wanted if newest[minor] != locked]


def released() -> list[Version]:
    # pip is installed next to uv; uv itself doesn't list releases.
    answer = subprocess.run(
        [UV.with_name("python"), "-m", "pip", "index", "versions", "mlflow"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    [listed] = re.findall(r"^Available versions: (.*)$", answer, re.M)
    return [version for text in listed.split(", ") if (version := parsed(text))]


def locked() -> Version:
    [text] = PIN.findall((ROOT / "image" / "requirements.in").read_text())
    return parsed(text)


def tried(version: str) -> Outcome:
    folder = VENVS / "versions" / version
    python = folder / "venv" / "bin" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    image, lock = ROOT / "image", folder / "requirements.txt"
    asked = PIN.sub(version, (image / "requirements.in").read_text())
    (folder / "requirements.in").write_text(asked)
    # uv keeps the versions that the file already has where it can.
    lock.write_text((image / "requirements.txt").read_text())
    compiled = _uv(
        "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes",
        "--no-header", "--no-emit-index-url", "--override", image / "requirements.excluded",
        folder / "requirements.in", "-o", lock,
    )  # fmt: skip
    if compiled.returncode:
        # uv's explanation, without its conclusion.
        said = re.sub(r"\s+", " ", compiled.stderr)
        reason = re.search(r"Because (.*?),? we can conclude", said)
        return Outcome(version=version, not_installed=reason[1] if reason else said)
    into = ("pip", "install", "--python", python, "--no-deps")
    for step in (
        ("venv", "--clear", "--python", sys.executable, folder / "venv"),
        (*into, "--require-hashes", "-r", ROOT / "tests" / "server" / "requirements.txt"),
        (*into, "--require-hashes", "-r", lock),
        (*into, "--editable", image),
    ):
        done = _uv(*step)
        if done.returncode:
            sys.exit(done.stderr)
    files = [f"tests/server/test_{name}.py" for name in TESTS]
    ran = subprocess.run(
        [python, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "--tb=no", *files],
        check=False, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", ran.stdout, re.M)
    passed = re.search(r"(\d+) passed", ran.stdout)
    if ran.returncode and not failed:
        failed = ran.stdout.splitlines()[-1:] or ran.stderr.splitlines()[-1:]
    return Outcome(version=version, passed=int(passed[1]) if passed else 0, failed=tuple(failed))


def _uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (UV, *arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def main(wanted: list[str]) -> int:
    now = locked()
    wanted = wanted or [".".join(map(str, found)) for found in neighbours(now, released())]
    print(f"the lock has MLflow {'.'.join(map(str, now))}; trying {', '.join(wanted) or 'none'}")
    outcomes = []
    for version in wanted:
        outcomes.append(tried(version))
        print(outcomes[-1].line(), flush=True)
    return int(any(outcome.failed and parsed(outcome.version) > now for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
