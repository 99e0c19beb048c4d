"""Runs every command of every page with strict stand-ins; other tests run many for real."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docs import programs
from tests.docs.executors import ELSEWHERE, STAND_INS
from tests.docs.test_names import code
from tests.infra.declared import ROOT
from tests.local.conftest import CLIENT
from tests.page_commands import run, sections, stand_in
from tools.links import pages

PAGES = {
    name: found for page in pages() if (found := sections(name := str(page.relative_to(ROOT))))
}
GCLOUD_SDK = Path("/usr/lib/google-cloud-sdk")
# The programs in the pages that every Unix has.
TOOLS = ("bash", "cat", "cp", "cut", "env", "find", "mkdir", "sed", "sh", "sort")
# Carries variables from one block to the next. No proxy outlives the block that started it.
CARRIED = """
set -a; [ ! -e "$HOME/variables" ] || . "$HOME/variables"
trap 'kill $(jobs -p) 2>/dev/null || true; export -p > "$HOME/variables"' EXIT
"""


def test_every_section_with_commands_is_listed() -> None:
    there = {(page, heading) for page, found in PAGES.items() for heading, _ in found}
    assert there == ELSEWHERE.keys() | STAND_INS
    assert not ELSEWHERE.keys() & STAND_INS


@pytest.mark.parametrize(("page", "heading"), ELSEWHERE, ids=lambda part: part)
def test_the_listed_test_runs_the_section(page: str, heading: str) -> None:
    for path in ELSEWHERE[page, heading]:
        text = (ROOT / path).read_text()
        assert f'"{page}"' in text
        assert f'"{heading}"' in text


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Make a clone's folder, with only stand-ins and every Unix's programs on PATH."""
    clone, bin_ = tmp_path / "clone", tmp_path / "bin"
    bin_.mkdir()
    script = programs.STAND_IN.format(log=tmp_path / "log")
    for name in programs.NAMES:
        stand_in(bin_, name, script)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found
        (bin_ / tool).symlink_to(found)
    # The files that pages name.
    for name in ("sample_client", "moving"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for inside in (clone, clone / "mlflow-gcp"):
        (inside / ".local").mkdir(parents=True)
        (inside / ".local" / "env").touch()
        (inside / ".venvs" / "program" / "bin").mkdir(parents=True)
        (inside / ".venvs" / "program" / "bin" / "python").symlink_to(bin_ / "python")
    old = tmp_path / "old"
    (old / "mlruns").mkdir(parents=True)
    (old / "mlflow.db").touch()
    # The reader's own variables.
    theirs = {"OLD_DATABASE": "old", "NEW_DATABASE": "new", "password": "word"}
    return {"PATH": str(bin_), "HOME": str(tmp_path), **theirs}


@pytest.mark.parametrize("page", PAGES)
def test_every_programs_own_rules_accept_the_commands(
    tmp_path: Path, shell: dict[str, str], page: str
) -> None:
    """In order, because a page uses later what it sets first."""
    for block in [block for _, found in PAGES[page] for block in found]:
        text = CARRIED + block.replace("/path/to", str(tmp_path / "old"))
        run(text, folder=tmp_path / "clone", environment=shell, seconds=60)
    wrong = [said for argv in programs.started(tmp_path / "log") if (said := programs.judged(argv))]
    assert wrong == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_inline_commands_are_valid_too(page: Path) -> None:
    wrong = []
    for piece in code(page):
        words = piece.replace("…", "").split()
        # `gcloud` alone names the program, and `pulumi config set` heads a table's column.
        if "\n" in piece or words[:1] not in (["gcloud"], ["gh"], ["mlflow"], ["pip"], ["pulumi"]):
            continue
        if len(words) == 1 or piece in ("pulumi config set", "pulumi config set KEY VALUE"):
            continue
        wrong += [said for part in _parts(piece) if (said := programs.judged(part))]
    assert wrong == []


def _parts(line: str) -> list[list[str]]:
    return [shlex.split(part) for part in re.split(r" && ", line)]


@pytest.mark.parametrize(
    "command",
    [
        "gcloud sql backup create",
        "gcloud sql backups create --instances x",
        "gcloud storage cp one",
        "gcloud storage cp one ''",
        "gcloud sql backups list --instance",
        "pulumi config set maxInstance 4",
        "pulumi config set --paths maxInstances 4",
        "pulumi stack outputs x",
        "gh variable set NAME --value x",
        "git push",
        "make locale",
        "make cost STACKS=dev",
        "mlflow migrate-filestore --from x",
        "pip uninstall x",
        "pip install sample_client/gone",
        "python sample_client/gone.py",
        "python -m pytest tests/gone.py",
        "curl https://example.com",
        "psql --commands x y",
    ],
)
def test_an_invalid_command_is_detected(command: str) -> None:
    assert programs.judged(shlex.split(command))


def test_a_slow_writer_into_a_stand_in_is_read_to_the_end(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    writer = "for _ in 1 2 3; do /bin/sleep 0.1; printf word; done"
    run(f"{{ {writer}; }} | gcloud", folder=tmp_path, environment=shell)


def test_an_invalid_command_in_a_substitution_is_detected(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    run('X="$(gcloud no such)"', folder=tmp_path, environment=shell)
    assert [programs.judged(argv) for argv in programs.started(tmp_path / "log")] == [
        "gcloud no such: no such command"
    ]


def test_gcloud_has_the_commands_and_options() -> None:
    """Compare with gcloud's file for completion in a shell, which has all commands and options."""
    tree = GCLOUD_SDK / "data" / "cli" / "gcloud_completions.py"
    if not tree.exists():
        pytest.skip("gcloud's SDK is missing: https://cloud.google.com/sdk/docs/install")
    root: dict[str, Any] = runpy.run_path(str(tree))["STATIC_COMPLETION_CLI_TREE"]
    for command, (options, _) in programs.GCLOUD.items():
        node = root
        for word in command.split():
            node = node["commands"][word]
        for option in options.split():
            name = option.rstrip("=").replace("--no-", "--")
            kind = node["flags"].get(name) or root["flags"].get(name)
            assert kind, f"{command} {option}"
            assert (kind == "bool") is not option.endswith("="), f"{command} {option}: {kind}"


def test_mlflow_has_the_commands_and_options() -> None:
    script = """
import json
from mlflow.cli import cli
def options(command):
    return {name: param.is_flag for param in command.params if param.param_type_name == "option"
        for name in param.opts}
found = {}
for name, command in cli.commands.items():
    found[name] = options(command)
    for inner, nested in getattr(command, "commands", {}).items():
        found[f"{name} {inner}"] = options(nested)
print(json.dumps(found))
"""
    answer = subprocess.run(
        [CLIENT, "-c", script],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    theirs = json.loads(answer.splitlines()[-1])
    for command, (options, _) in programs.MLFLOW.items():
        for option in options.split():
            assert theirs[command][option.rstrip("=")] is not option.endswith("=")
