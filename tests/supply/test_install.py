"""The first minute's failures: each ends in one line that says what, why and what to do."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.manual import ROOT, stand_in
from tools.install import ENVIRONMENTS, REASONS, explain

ROOM = 10**9
UNREACHABLE = {"UV_INDEX_URL": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "error: Failed to install: tzdata\n  cause: failed to copy file: "
            "No space left on device (os error 28)",
            "the disk is full",
        ),
        ("Error: [Errno 30] Read-only file system: '.venvs'", "a folder can't be written"),
        ("  cause: failed to create directory: Permission denied (os error 13)", "a folder can't"),
        ("ensurepip is not available.  On Debian/Ubuntu systems", "apt install python3-venv"),
        ("  cause: Hash mismatch for `typing-extensions==4.16.0`", "not the one that was locked"),
        ("  cause: invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE=/path/to/ca.pem"),
        ("HTTP status client error (401 Unauthorized) for url", "wants a login"),
        (
            "  cause: tcp connect error\n  cause: Connection refused (os error 111)",
            "can't be reached",
        ),
        ("  cause: dns error\n  cause: failed to lookup address information", "can't be reached"),
        ("ERROR: Could not find a version (from versions: none)", "can't be reached"),
        ("Because the current Python version (3.10.13) does not satisfy Python>=3.11", "or musl"),
        ("what nobody\n  has seen", "what nobody has seen. Try again"),
        ("", "it ended without a word"),
    ],
)
def test_what_went_wrong_is_said_in_one_line(output: str, said: str) -> None:
    line = explain(output, free_bytes=ROOM)
    assert said in line
    assert "\n" not in line


def test_a_full_disk_is_seen_where_the_command_hides_it() -> None:
    hidden = "Command 'ensurepip' returned non-zero exit status 1."
    assert "the disk is full" in explain(hidden, free_bytes=1_000_000)
    assert "the disk is full" not in explain(hidden, free_bytes=ROOM)


def test_make_and_the_installer_know_the_same_environments() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [named] = re.findall(r"^ENVIRONMENTS := (.*)$", makefile, re.M)
    assert named.split() == list(ENVIRONMENTS)
    for name, environment in ENVIRONMENTS.items():
        [needed] = re.findall(rf"^\$\(VENVS\)/{name}\.done: (.*)$", makefile, re.M)
        assert set(environment.locks) <= set(needed.split())


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What installing reads, in a folder with a blank and an umlaut in its name."""
    folder = tmp_path / "a clöne"
    shutil.copytree(ROOT / "tools", folder / "tools")
    shutil.copytree(ROOT / "local", folder / "local")
    for name in ("Makefile", "requirements-dev.txt"):
        shutil.copy2(ROOT / name, folder)
    return folder


def with_uv(clone: Path) -> Path:
    """uv is there already."""
    (clone / ".venvs").mkdir(exist_ok=True)
    (clone / ".venvs" / "uv").symlink_to(ROOT / ".venvs" / "uv")
    (clone / ".venvs" / "uv.done").touch()
    return clone


def make(clone: Path, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        check=False, cwd=clone, env={**_environment(clone), **changed},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def _environment(clone: Path) -> dict[str, str]:
    """A new user's, in a C locale and without a HOME."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "CI")}
    return {**kept, "LC_ALL": "C", "UV_CACHE_DIR": str(clone / "cache"), "PYTHON": sys.executable}


def only_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that is ours; make adds which of its lines it was at."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert done.returncode
    assert "Traceback" not in done.stdout + done.stderr
    [line] = said or done.stdout.splitlines()[-1:]
    assert line.startswith("error: ")
    return line


def test_a_step_says_what_and_how_long_and_is_done_once(clone: Path) -> None:
    (with_uv(clone) / "requirements-dev.txt").write_text("# nothing\n")
    what = "the program, PostgreSQL and what tests need (80 MB)"
    said = make(clone, ".venvs/program.done", **UNREACHABLE).stdout
    assert re.fullmatch(
        rf"installing {re.escape(what)}\ninstalled {re.escape(what)} in \d+ s\n", said
    )
    assert "installed" not in make(clone, ".venvs/program.done", **UNREACHABLE).stdout


def test_without_a_network(clone: Path) -> None:
    line = only_error(make(with_uv(clone), ".venvs/program.done", **UNREACHABLE))
    assert line.startswith("error: the program, PostgreSQL and what tests need could not be")
    assert "the package index can't be reached. Is there a network?" in line
    assert not (clone / ".venvs" / "program.done").exists()


def test_without_a_network_from_the_first_step_on(clone: Path) -> None:
    line = only_error(make(clone, ".venvs/uv.done", PIP_INDEX_URL="http://127.0.0.1:9/simple"))
    assert "error: uv, the installer could not be installed: the package index can't" in line


@pytest.mark.parametrize(
    ("version", "said"),
    [("Python 3.9.18", "Python 3.9.18 does not fit the locks: Python 3.11 to 3.14 is needed")],
)
def test_the_wrong_python(clone: Path, version: str, said: str) -> None:
    stand_in(clone, "old", f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" || exit 1\n')
    line = only_error(make(clone, "local", PYTHON="./old"))
    assert said in line
    assert "make PYTHON=python3.11" in line


def test_no_python(clone: Path) -> None:
    line = only_error(make(clone, "local", PYTHON="python3.99"))
    assert "python3.99 was not found: install Python 3.11 to 3.14" in line


@contextmanager
def disk(place: Path, options: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a disk that is small or can't be written")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs, which is Linux's")
def test_a_full_disk(clone: Path) -> None:
    with disk(clone / ".venvs", "size=1m"):
        line = only_error(make(clone, ".venvs/uv.done"))
    assert "error: uv, the installer could not be installed: the disk is full. It takes" in line


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs, which is Linux's")
def test_a_disk_that_can_not_be_written(clone: Path) -> None:
    with disk(clone / ".venvs", "size=1m,ro"):
        line = only_error(make(clone, ".venvs/uv.done"))
    assert "a folder can't be written. It writes .venvs/ here" in line


def test_ctrl_c_while_installing_and_again_and_again(clone: Path) -> None:
    with_uv(clone)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with subprocess.Popen(
            [sys.executable, "tools/install.py", "program"],
            cwd=clone, env={**_environment(clone), "UV_INDEX_URL": index}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            # A shell's background job, which the tests may be, ignores it from the start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        ) as installing:  # fmt: skip
            silent.settimeout(30)
            silent.accept()[0].close()  # uv has begun to ask
            deadline = time.monotonic() + 20
            while installing.poll() is None and time.monotonic() < deadline:
                os.killpg(installing.pid, signal.SIGINT)
                time.sleep(0.005)
            _, said = installing.communicate(timeout=20)
    assert installing.returncode == 130
    assert said == "interrupted: the next time goes on where this one stopped\n"
    assert not (clone / ".venvs" / "program.done").exists()


def test_without_make_or_the_environment(clone: Path) -> None:
    # -S: without packages, as where nothing is installed.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "local", "run"],
        check=False, cwd=clone, capture_output=True, text=True,
    )  # fmt: skip
    line = only_error(done)
    for command in ("make local", "apt install make", "xcode-select --install"):
        assert f"`{command}`" in line
    [without, then] = re.findall(r"`(python3 [^`]+)`, then `([^`]+)`", line)[0]
    assert without.split()[:2] == ["python3", "tools/install.py"]
    assert set(without.split()[2:]) - {"uv"} <= ENVIRONMENTS.keys()
    assert then == ".venvs/program/bin/python -m local run"


def test_the_commands_stand_under_headings_whichever_awk_it_is(tmp_path: Path) -> None:
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


def test_every_reason_says_what_to_do() -> None:
    for pattern, why, remedy in REASONS:
        assert re.compile(pattern)
        assert why[0].islower()
        assert re.match(r"[A-Z].*\.$", remedy)
