"""Renders a package's docstrings into dist/api; pdoc's warnings are errors.

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
    """Returns every module of the package except `__main__`."""
    if not hasattr(root, "__all__"):
        return [root.__name__]
    for name in root.__all__:
        # pdoc doesn't see names that a module only imports on demand.
        setattr(root, name, getattr(root, name))
    return [
        root.__name__,
        *(each.name for each in pkgutil.iter_modules(root.__path__, f"{root.__name__}.")),
    ]


def main() -> int:
    """Returns 1 if pdoc warns about a docstring."""
    [package] = sys.argv[1:]
    with TemporaryDirectory(prefix="mlflow-gcp-api-") as folder:
        # pyproject.toml installs infra/ under this name.
        Path(folder, "mlflow_gcp").symlink_to(ROOT / "infra")
        sys.path.insert(0, folder)
        # Ignore the warnings of other packages while they are imported.
        warnings.simplefilter("ignore")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        modules = documented(importlib.import_module(package))
        if pulumi := sys.modules.get("pulumi"):
            # Pulumi's annotations name these as strings, which pdoc looks up where they are used.
            vars(builtins).update(Input=pulumi.Input, Output=pulumi.Output, T=TypeVar("T"))
        with warnings.catch_warnings(record=True) as said:
            warnings.filterwarnings("always", module="pdoc")
            pdoc.pdoc(*modules, output_directory=OUT / package)
    for warning in said:
        sys.stderr.write(f"{package}: {warning.message}\n")
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
