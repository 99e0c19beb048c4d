"""Renders the docstrings of a package into dist/api; what pdoc warns of is an error.

python tools/api_docs.py mlflow_gcp       # infra/, by the name that other programs import
python tools/api_docs.py tracking_server  # in the server's environment
"""

from __future__ import annotations

import builtins
import importlib
import os
import pkgutil
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TypeVar

import pdoc

ROOT = Path(__file__).parents[1]
OUT = ROOT / "dist" / "api"


def documented(root: ModuleType) -> list[str]:
    """Every module of it but the program itself."""
    if not hasattr(root, "__all__"):
        return [root.__name__]
    for name in root.__all__:
        # One that is imported when it is asked for is not seen otherwise.
        setattr(root, name, getattr(root, name))
    return [
        root.__name__,
        *(each.name for each in pkgutil.iter_modules(root.__path__, f"{root.__name__}.")),
    ]


def main() -> int:
    """1 if something can't be rendered as it is written."""
    [package] = sys.argv[1:]
    with TemporaryDirectory(prefix="mlflow-gcp-api-") as folder:
        # As pyproject.toml maps it for whoever installs it.
        Path(folder, "mlflow_gcp").symlink_to(ROOT / "infra")
        sys.path.insert(0, folder)
        # What packages say of themselves while they are imported is not ours.
        warnings.simplefilter("ignore")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        modules = documented(importlib.import_module(package))
        if pulumi := sys.modules.get("pulumi"):
            # Its own annotations name these as strings, which are looked for where they are used.
            vars(builtins).update(Input=pulumi.Input, Output=pulumi.Output, T=TypeVar("T"))
        with warnings.catch_warnings(record=True) as said:
            warnings.filterwarnings("always", module="pdoc")
            pdoc.pdoc(*modules, output_directory=OUT / package)
    for warning in said:
        sys.stderr.write(f"{package}: {warning.message}\n")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
