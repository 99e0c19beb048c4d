"""Make passes values on to commands unchanged, and an invalid value is reported in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.page_commands import ROOT, stand_in

ECHO = f"#!{sys.executable} -IS\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
# The files that the environments depend on; they are older than the environments.
LOCKS = ("requirements-dev.txt", "image/requirements.txt", "image/pyproject.toml")
STAMPS = ("uv.done", "program.done", "server.done")
ODD = ("it's", "dev'; echo INJECTED; '", 'a"b`id`', "-x", "47 101", "a\nb", "a\\b;c|d&e", "")
OPTIONS = {
    ("open", "STACK"): "--stack",
    ("status", "STACK"): "--stack",
    ("backup", "STACK"): "--stack",
    ("env", "FORMAT"): "--format",
    ("logs", "SINCE"): "--since",
    ("logs", "FOLLOW"): "--follow",
    ("rotate", "WHAT"): "--what",
    ("rotate", "HOURS"): "--hours",
    ("rotate", "END"): "--end",
    ("people", "WHAT"): "--what",
    ("people", "PERSON"): "--person",
    ("people", "RESOURCE"): "--resource",
    ("people", "PERMISSION"): "--permission",
    ("psql", "WRITE"): "--write",
    ("upkeep", "DRY_RUN"): "--dry-run",
    ("doctor", "STACK"): "--stack",
    ("cost", "STACK"): "--stack",
    ("cost", "RUNS"): "--runs",
    ("local", "PORT"): "--port",
    ("local-up", "PORT"): "--port",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in (
        "Makefile",
        "operations",
        "infra",
        "local",
        "fake_google",
        "tools",
        "Pulumi.dev.yaml",
    ):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in LOCKS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venvs").mkdir()
    for name in STAMPS:
        (tmp_path / ".venvs" / name).touch()
    return tmp_path


def make(clone: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("make") or "make", "--no-print-directory", *words],
        check=False, cwd=clone, capture_output=True, text=True, timeout=60,
        # Not as a part of a make that runs the tests, and without Pulumi.
        env={"PATH": os.defpath, "HOME": str(clone), **variables},
    )  # fmt: skip


@pytest.fixture
def echo(clone: Path) -> Path:
    (clone / ".venvs/program/bin").mkdir(parents=True)
    stand_in(clone / ".venvs/program/bin", "python", ECHO)
    return clone


@pytest.mark.parametrize(("target", "name"), OPTIONS)
def test_a_value_is_one_argument_whatever_it_contains(echo: Path, target: str, name: str) -> None:
    option = OPTIONS[target, name]
    default = "8080" if name == "PORT" else ""
    for value in ODD:
        for done in (make(echo, target, f"{name}={value}"), make(echo, target, **{name: value})):
            assert (done.returncode, done.stderr) == (0, "")
            assert f"{option}={value or default}" in json.loads(done.stdout)
    assert f"{option}={default}" in json.loads(make(echo, target).stdout)


@pytest.mark.parametrize("target", ["local", "local-up"])
def test_a_local_setting_is_one_argument_or_none(echo: Path, target: str) -> None:
    assert not [each for each in json.loads(make(echo, target).stdout) if "config" in each]
    assert "--config=a='b c" in json.loads(make(echo, target, "CONFIG=a='b c").stdout)


def test_a_release_is_one_argument_or_none(echo: Path) -> None:
    kept = ["-m", "tests.engine.previous_release"]
    assert json.loads(make(echo, "previous-release").stdout) == kept
    done = make(echo, "previous-release", "REVISION=it's; id")
    assert json.loads(done.stdout) == [*kept, "it's; id"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env", "STACK=it's"], 'error: STACK="it\'s" '),
        (["open", "STACK=-x"], "error: STACK='-x' "),
        (["env", "STACK=local", "FORMAT=-x"], "error: FORMAT='-x' "),
        (["logs", "STACK=dev", "SINCE=-1h"], "error: SINCE='-1h' "),
        (["logs", "FOLLOW=0"], "error: FOLLOW='0' "),
        (["psql", "WRITE=no"], "error: WRITE='no' "),
        (["upkeep", "DRY_RUN=no"], "error: DRY_RUN='no' "),
        (["rotate", "STACK=dev", "WHAT='"], 'error: WHAT="\'" '),
        (["rotate", "STACK=dev", "HOURS=-1"], "error: HOURS='-1' "),
        (["rotate", "STACK=dev", "END=no"], "error: END='no' "),
        (["cost", "STACK=it's"], 'STACK="it\'s" '),
        (["cost", "RUNS=-1"], "RUNS='-1': "),
        (["local-up", "PORT=47 101"], "error: "),
        (["local", "PORT=-x"], "error: "),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "refused",
)
def test_an_invalid_value_is_reported_in_one_line(clone: Path, words: list[str], said: str) -> None:
    (clone / ".venvs/program").symlink_to(Path(sys.prefix))
    # Before the port, make only checks that the environment exists.
    (clone / ".venvs/server").symlink_to(Path(sys.prefix))
    done = make(clone, *words)
    assert done.returncode == 2
    # The next line is make's own, which says that a recipe failed.
    [line, *_] = (done.stdout + done.stderr).splitlines()
    assert line.startswith(said)
    assert "usage:" not in done.stderr
    if words[-1].startswith("PORT="):
        assert repr(words[-1].partition("=")[2]) in line


def test_the_doctor_shows_an_invalid_name(clone: Path) -> None:
    (clone / ".venvs/program").symlink_to(Path(sys.prefix))
    told = make(clone, "doctor", "STACK=-x'; echo INJECTED; '").stdout
    assert "-x'; echo INJECTED; '" in told
