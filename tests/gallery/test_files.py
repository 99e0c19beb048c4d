"""Rules for the gallery's files, checked without running them."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gallery.conftest import GALLERY, SAMPLES, WORKFLOW
from tests.local.conftest import ROOT
from tests.page_commands import stand_in
from tests.supply.test_portability import offences, shell_blocks

FILES = sorted(
    path for path in GALLERY.rglob("*") if path.stem in (*SAMPLES, "train") and path.is_file()
)
PYTHON = [path for path in FILES if path.suffix in (".py", ".ipynb")]


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((GALLERY / "notebook.ipynb").read_text())["cells"]
    return found


def text(path: Path) -> str:
    """Returns a file's text; a notebook's as one would read it."""
    if path.suffix == ".ipynb":
        return "\n\n\n".join("".join(cell["source"]) for cell in cells())
    return path.read_text()


def test_every_sample_is_run() -> None:
    others = {"check_tracking.py", "doubler.py"}
    kinds = {".py", ".ipynb", ".sh", ".yml"}
    packages = {path for path in GALLERY.rglob("*") if path.parent.name == "google_login"}
    there = {path for path in GALLERY.rglob("*") if path.suffix in kinds} - packages
    assert {path for path in there if path.name not in others} == set(FILES)
    assert len(FILES) == len(SAMPLES) + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_sample_is_short_and_listed(path: Path) -> None:
    assert len(text(path).splitlines()) <= 60
    table = re.findall(r"^\| \[`(.+?)`\]\((.+?)\) \|", (GALLERY / "README.md").read_text(), re.M)
    name = path.relative_to(GALLERY).as_posix()
    assert (name, name) in table


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.name)
def test_a_sample_needs_no_other_file(path: Path) -> None:
    """Each sample has its own copy of the error handling and imports none of this project."""
    function = re.compile(r"^def connect.*?(?=\n\n\n)", re.M | re.S)
    assert function.findall(text(path)) == function.findall((GALLERY / "plain.py").read_text())
    ours = "|".join(one.stem for one in GALLERY.glob("*.py"))
    assert not re.search(rf"^(import|from) ({ours})\b", text(path), re.M)


def test_the_notebook_has_no_outputs() -> None:
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert code
    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * len(code)


def test_shell_samples_run_on_any_unix() -> None:
    assert offences((GALLERY / "rest.sh").read_text()) == []
    assert offences(shell_blocks((GALLERY / "README.md").read_text())) == []
    assert os.access(GALLERY / "rest.sh", os.X_OK)


def test_the_workflow_uses_the_repositorys_pinned_actions() -> None:
    """The same actions at the same commits, with permission to read the code and nothing else."""
    uses = re.compile(r"uses: (\S+@[0-9a-f]{40} # v\S+)$", re.M)
    ours = set(uses.findall((ROOT / ".github" / "workflows" / "ci.yml").read_text()))
    theirs = WORKFLOW.read_text()
    assert set(uses.findall(theirs)) <= ours
    assert len(uses.findall(theirs)) == theirs.count("uses:") == 2
    assert yaml.safe_load(theirs)["permissions"] == {"contents": "read"}


PULUMI = """#!/bin/sh
case "$*" in
    "stack output "*" --stack dev --cwd $HOME/mlflow-gcp") echo "$3 $4" ;;
    *) echo "error: no Pulumi.yaml project file found" >&2; exit 255 ;;
esac
"""


def test_direnv_finds_the_stack_from_another_project(tmp_path: Path) -> None:
    code = tmp_path / "my-code"
    code.mkdir()
    stand_in(tmp_path, "pulumi", PULUMI)
    stand_in(tmp_path, "git", "#!/bin/sh\necho ada@example.com\n")
    template = (GALLERY / ".envrc.template").read_text()
    told = subprocess.run(
        ["bash", "-euc", f"{template}\nenv | grep ^MLFLOW | sort"],
        check=True, cwd=code, env={"PATH": f"{tmp_path}:{os.defpath}", "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (told.stderr, told.stdout.splitlines()) == (
        "",
        [
            "MLFLOW_EXPERIMENT_NAME=my-experiment",
            'MLFLOW_RUN_CONTEXT={"mlflow.user": "ada@example.com"}',
            "MLFLOW_TRACKING_PASSWORD=tracking_password --show-secrets",
            "MLFLOW_TRACKING_URI=tracking_uri --stack",
            "MLFLOW_TRACKING_USERNAME=tracking_username --stack",
        ],
    )


def test_the_extra_packages_are_pinned() -> None:
    lines = (GALLERY / "requirements-gallery.txt").read_text().splitlines()
    first, *extra = [line for line in lines if not line.startswith("#")]
    assert first == "-r requirements.txt"
    assert extra
    assert all(re.match(r"[\w-]+==[\d.]+( ; .+)?$", line) for line in extra)
