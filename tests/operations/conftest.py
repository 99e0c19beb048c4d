from pathlib import Path

import pytest

from tests.operations.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """With nothing but a shell."""
    return Machine(tmp_path)


@pytest.fixture
def deployed(machine: Machine) -> Machine:
    """With Pulumi and gcloud, logged in, and a stack `dev` that is up."""
    machine.stands()
    return machine
