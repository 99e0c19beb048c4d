"""Sizes: the installed packages in the container and of stock MLflow, and the image itself.

Stock is what pip installs for `mlflow[auth]` and the database's driver, with `.pyc` files as well.
Ours is /opt/server in a container of the image. If no image can be built, it is the environment
with the same lock, which has all files of each package. Sizes are bytes on the disk.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench import stock
from bench.process import BenchError
from bench.report import ROOT, SERVER_PYTHON, Goal, publish
from tests.container import builders
from tests.container.tools import run

SHARE = 0.45
MB = 1e6
_INSIDE = Path(builders.__file__).with_name("inside.py")


def measure(*, rounds: int) -> None:
    """Measure once: sizes don't vary."""
    theirs = _installed(stock.BIN.parent)
    ours = _installed(SERVER_PYTHON.parent.parent) + _installed(ROOT / "image" / "tracking_server")
    rows: list[dict[str, object]] = [
        {"what": "stock, installed", "MB": theirs / MB},
        {"what": "ours, the container's lock installed", "MB": ours / MB},
    ]
    what = "its lock, as no container is built here"
    try:
        with builders.build() as (image, runner), TemporaryDirectory() as folder:
            command = runner.command(
                name="mlflow-gcp-bench-inside",
                env={},
                sockets={},
                arguments=["/opt/server/bin/python", "-c", _INSIDE.read_text()],
                folder=Path(folder),
            )
            sizes = json.loads(run(*command, seconds=60))["sizes"]
        ours, what = sizes["server"], "/opt/server"
        rows += [
            {"what": "ours, /opt/server in the container", "MB": ours / MB},
            {"what": "the container, with its base", "MB": sizes["all"] / MB},
            {"what": "the image, compressed", "MB": image.compressed_bytes / MB},
        ]
    except pytest.skip.Exception as absent:
        print(f"The container's image is not measured: {absent}")
    except pytest.fail.Exception as failure:
        raise BenchError(str(failure)) from None
    for row in rows[1:3]:
        row["of stock"] = f"{100 * float(str(row['MB'])) * MB / theirs:.0f} %"
    goal = Goal(
        goal=f"installed tree of the container ({what}), of stock's",
        wanted=f"≤ {100 * SHARE:.0f} %",
        measured=f"{100 * ours / theirs:.1f} %, {ours / MB:.0f} of {theirs / MB:.0f} MB",
        met=ours <= SHARE * theirs,
    )
    publish("image", rows=rows, goals=[goal])


def _installed(tree: Path) -> int:
    """Returns the bytes of the tree's files on the disk, as inside.py counts them."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, _, names in os.walk(tree)
        for name in names
    )
