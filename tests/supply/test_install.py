"""Installing: each step prints what it does, and every failure says what to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.page_commands import ROOT, stand_in

UNREACHABLE = {"UV_INDEX_URL": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
PROGRAM = "the program, PostgreSQL and what tests need (80 MB)"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that an installation reads, in a folder with a blank and an umlaut in its name."""
    folder = tmp_path / "a clöne"
    shutil.copytree(ROOT / "tools", folder / "tools")
    for name in ("fake_google", "local"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Makefile", "requirements-dev.txt"):
        shutil.copy2(ROOT / name, folder)
    return folder


def with_uv(clone: Path) -> Path:
    """Make uv available."""
    (clone / ".venvs").mkdir(exist_ok=True)
    (clone / ".venvs" / "uv").symlink_to(ROOT / ".venvs" / "uv")
    (clone / ".venvs" / "uv.done").touch()
    return clone


def make(clone: Path, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run make as a new user does, in a C locale and without a HOME."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "CI")}
    cache = {"UV_CACHE_DIR": str(clone / "cache")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        check=False, cwd=clone,
        env={**kept, **cache, "LC_ALL": "C", "PYTHON": sys.executable, **changed},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def error(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the project's own error line; uv, pip and make print theirs as well."""
    assert done.returncode
    assert "Traceback" not in done.stdout + done.stderr
    [line] = re.findall(r"^error: .*(?:install|is needed).*", done.stdout + done.stderr, re.M)
    return str(line)


@pytest.mark.parametrize("terminal", [False, True])
def test_downloads_show_their_progress_in_a_terminal(terminal: bool) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours), os.fdopen(theirs) as screen:
        done = subprocess.run(
            ["make", "--dry-run", "--always-make", ".venvs/uv.done", ".venvs/program.done"],
            check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True,
            stderr=screen if terminal else subprocess.PIPE,
        )  # fmt: skip
    for tool in ("-m pip", "uv pip"):
        assert (f"{tool} install --quiet" in done.stdout) is not terminal


def test_a_step_prints_its_duration_and_is_done_once(clone: Path) -> None:
    (with_uv(clone) / "requirements-dev.txt").write_text("# nothing\n")
    # The rest of an interrupted installation.
    (clone / ".venvs" / "program" / "bin").mkdir(parents=True)
    said = make(clone, ".venvs/program.done", **UNREACHABLE).stdout
    what = re.escape(PROGRAM)
    assert re.fullmatch(rf"installing {what}\ninstalled {what} in \d+ s\n", said)
    assert (clone / ".venvs" / "program" / "bin" / "python").exists()
    assert "installed" not in make(clone, ".venvs/program.done", **UNREACHABLE).stdout


def test_without_a_network(clone: Path) -> None:
    line = error(make(with_uv(clone), ".venvs/program.done", **UNREACHABLE))
    assert f"error: {PROGRAM} could not be installed" in line
    assert "HTTPS_PROXY" in line
    assert not (clone / ".venvs" / "program.done").exists()


def test_without_a_network_at_the_first_step(clone: Path) -> None:
    line = error(make(clone, ".venvs/uv.done", PIP_INDEX_URL="http://127.0.0.1:9/simple"))
    assert "error: uv (20 MB) could not be installed" in line
    assert "PIP_INDEX_URL" in line
    assert not (clone / ".venvs" / "uv.done").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            '[ "$1" = --version ] && echo "Python 3.9.18" || exit 1',
            "Python 3.9.18 does not fit the locks: Python 3.11 to 3.14 is needed",
        ),
        ('case "$2" in *ensurepip*) exit 1 ;; esac', "apt install python3-venv"),
    ],
)
def test_an_unsuitable_python(clone: Path, script: str, said: str) -> None:
    stand_in(clone, "old", f"#!/bin/sh\n{script}\n")
    assert said in error(make(clone, "local", PYTHON="./old"))


def test_no_python(clone: Path) -> None:
    line = error(make(clone, "local", PYTHON="python3.99"))
    assert "python3.99 was not found: install Python 3.11 to 3.14" in line


def test_without_the_environment(clone: Path) -> None:
    # -S: without site-packages, as if nothing were installed.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "local", "run"],
        check=False, cwd=clone, capture_output=True, text=True,
    )  # fmt: skip
    line = error(done)
    for command in ("make local", "apt install make", "xcode-select --install"):
        assert f"`{command}`" in line


def test_the_help_has_headings_with_every_awk(tmp_path: Path) -> None:
    found = {shutil.which(name) for name in ("awk", "mawk", "gawk", "original-awk")}
    listings = []
    for awk in filter(None, found):
        (tmp_path / "awk").unlink(missing_ok=True)
        (tmp_path / "awk").symlink_to(awk)
        path = f"{tmp_path}:{os.environ['PATH']}"
        listings.append(make(ROOT, "help", PATH=path).stdout)
    assert len(set(listings)) == 1
    first, *others = [block.splitlines() for block in listings[0].strip().split("\n\n")]
    assert first[0] == "On this computer"
    assert first[1].startswith("  make local  ")
    assert len(others) >= 2
    for heading, *commands in others:
        assert re.match(r"[A-Z]", heading)
        assert commands
        assert all(re.match(r"  make [a-z-]+ +[A-Z]", command) for command in commands)
