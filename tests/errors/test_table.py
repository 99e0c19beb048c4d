"""Each error that a user can cause is all that its row of the table says, and no more."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.settings.loader import load
from infra.settings.reader import SettingsError
from tests.errors.running import for_people, run, says
from tests.errors.settings_table import SETTINGS, Setting
from tests.errors.table import COMMANDS, Command
from tests.local.conftest import ROOT


def named(row: Command | Setting) -> str:
    return row.name


@pytest.mark.parametrize("row", SETTINGS, ids=named)
def test_a_setting(row: Setting) -> None:
    config = {"gcp:project": "my-project", **row.config}
    full = {key if ":" in key else f"mlflow-gcp:{key}": value for key, value in config.items()}
    with pytest.raises(SettingsError) as refused:
        load(full, is_secret=lambda _: row.secret)
    [problem] = refused.value.problems
    assert problem.key.removeprefix("mlflow-gcp:") == row.key
    assert (problem.given, problem.wanted, problem.example) == (row.given, row.wanted, row.example)
    for_people(str(refused.value))


@pytest.mark.parametrize("row", COMMANDS, ids=named)
def test_a_command(row: Command, tmp_path: Path) -> None:
    ended = run(row, tmp_path)
    for_people(ended.out + ended.err)
    assert ended.code == 1, ended
    # In the background both come on one stream, behind what was done before.
    background = "up" in row.run and not ended.err
    says(ended.out if background else ended.err, row.said)
    assert background or ended.err.strip().count("\n") == row.said.count("\n")


def test_make_says_so_where_no_stack_has_run(tmp_path: Path) -> None:
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    venvs = tmp_path / ".venvs"
    venvs.mkdir()
    for made in ("uv.done", "program.done", "server.done", "client.done"):
        (venvs / made).touch()
    done = subprocess.run(
        ["make", "--no-print-directory", "-o", ".venvs/client.done", "check"],
        check=False, cwd=tmp_path, capture_output=True, text=True,
        # Not as a part of a make that runs the tests.
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == "error: no stack has run on this computer yet: make local-up starts it\n"
