"""Runs README's first commands in a copy of the checkout: start a local stack, stop it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from fake_google.ports import free_port
from tests.local.conftest import ROOT
from tests.page_commands import commands, run

# Copies the checkout as it is now, with its installed environments.
CLONE = """
git ls-files --cached --others --exclude-standard | while read -r path; do
    [ ! -e "$path" ] || echo "$path"
done | tar -cf - -T - | tar -xf - -C "$0"
ln -s "$PWD/.venvs" "$0/.venvs"
"""


def test_a_newcomers_first_commands() -> None:
    # A short path, because PostgreSQL's socket is in it.
    with TemporaryDirectory(prefix="mlflow-gcp-docs-") as folder:
        # A fork may have another name.
        clone = Path(folder, "our-fork")
        clone.mkdir()
        subprocess.run(["sh", "-c", CLONE, clone], cwd=ROOT, check=True)
        environment = {
            **{name: value for name, value in os.environ.items() if "MLFLOW" not in name},
            "PORT": str(free_port()),
        }
        [block] = commands("README.md", "On this computer")
        try:
            said = run(block, folder=clone, environment=environment)
        finally:
            subprocess.run(["make", "local-clean"], cwd=clone, env=environment, check=True)
        assert f":{environment['PORT']}" in said
