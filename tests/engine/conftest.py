from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.engine.deployment import Deployment, deployment
from tests.engine.engine import Engine, find


@pytest.fixture(scope="session")
def engine() -> Engine:
    found = find()
    if found is None:
        message = "Pulumi's engine is missing: python -m tests.engine.engine builds it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
def deployed(tmp_path: Path, engine: Engine, shared: Deployment) -> Iterator[Deployment]:
    """A project with the default settings, after one `up`: a copy of `shared`."""
    with deployment(tmp_path, engine) as made:
        made.copy(shared)
        yield made


@pytest.fixture
def fresh(tmp_path: Path, engine: Engine) -> Iterator[Deployment]:
    """Nothing declared yet."""
    with deployment(tmp_path, engine) as made:
        yield made


@pytest.fixture(scope="session")
def shared(engine: Engine) -> Iterator[Deployment]:
    """A project with the default settings, after one `up`, for tests that only preview."""
    with (
        TemporaryDirectory(prefix="mlflow-gcp-engine-") as folder,
        deployment(Path(folder), engine) as made,
    ):
        made.init()
        made.up()
        yield made
