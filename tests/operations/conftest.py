from pathlib import Path

import pytest

from tests.operations.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with nothing but a shell."""
    return Machine(tmp_path)


@pytest.fixture
def deployed(machine: Machine) -> Machine:
    """A machine with Pulumi and gcloud, both logged in, and a running stack `dev`."""
    machine.stands()
    return machine
