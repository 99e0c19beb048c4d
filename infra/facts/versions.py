"""The versions of this project and of the MLflow in its image."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path


def project(source: Path) -> str:
    """Returns the project's version from the folder with the image's source."""
    parsed = tomllib.loads((source / "pyproject.toml").read_text())
    return str(parsed["project"]["version"])


def semantic(source: Path) -> str:
    """Returns the project's version in Semantic Versioning's form: `1.0.0.dev0` -> `1.0.0-dev0`"""
    return re.sub(r"^(\d+\.\d+\.\d+)\.?([a-z].*)$", r"\1-\2", project(source))


def mlflow(source: Path) -> str:
    """Returns MLflow's version from the lock in the folder with the image's source."""
    [version] = re.findall(
        r"^mlflow(?:\[[^]]*\])?==([^\s;]+)", (source / "requirements.txt").read_text(), re.M
    )
    return str(version)
