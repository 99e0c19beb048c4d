"""Runs README's first commands as they are: clone, start a local stack, stop it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from fake_google.ports import free_port
from tests.local.conftest import ROOT
from tests.page_commands import commands, run, stand_in

# Clones the checkout as it is now, with its installed environments.
GIT = """#!/bin/sh
[ "$1" = clone ] || exit 64
mkdir mlflow-gcp
cd "{root}"
git ls-files --cached --others --exclude-standard | while read -r path; do
    [ ! -e "$path" ] || echo "$path"
done | tar -cf - -T - | tar -xf - -C "$OLDPWD/mlflow-gcp"
ln -s "{root}/.venvs" "$OLDPWD/mlflow-gcp/.venvs"
"""


def test_a_newcomers_first_commands() -> None:
    # A short path, because PostgreSQL's socket is in it.
    with TemporaryDirectory(prefix="mlflow-gcp-docs-") as folder:
        bin_, clone = Path(folder, "bin"), Path(folder, "mlflow-gcp")
        bin_.mkdir()
        git = shutil.which("git")
        assert git
        stand_in(bin_, "git", GIT.format(root=ROOT).replace("git ls-files", f"{git} ls-files"))
        environment = {
            **{name: value for name, value in os.environ.items() if "MLFLOW" not in name},
            "PATH": os.pathsep.join([str(bin_), os.environ["PATH"]]),
            "PORT": str(free_port()),
        }
        [block] = commands("README.md", "On this computer")
        try:
            said = run(block, folder=Path(folder), environment=environment)
        finally:
            if clone.exists():
                subprocess.run(["make", "local-clean"], cwd=clone, env=environment, check=True)
        assert f":{environment['PORT']}" in said
