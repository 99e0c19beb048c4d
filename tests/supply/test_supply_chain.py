"""Every installed package is locked with hashes, and the bill of materials lists it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(
    path
    for pattern in ("requirements*.txt", "*/requirements*.txt", "tests/*/*.txt")
    for path in ROOT.glob(pattern)
    # Users install these into separate environments.
    if path.parent.name not in ("package", "sample_client")
)
BILLS = {"image": ROOT / "image/requirements.txt", "program": ROOT / "requirements.txt"}
REQUIREMENT = re.compile(r"([a-z0-9._-]+)==([^ ;\\]+)[^\n]*")


def requirements(lock: Path) -> list[str]:
    """Returns each requirement with its hashes."""
    return re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.M)[1:]


def test_every_lock_is_listed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    compiled = set(re.findall(r"\$\(COMPILE\).* -o (\S+)$", makefile, re.M))
    assert {str(lock.relative_to(ROOT)) for lock in LOCKS} == compiled


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_requirement_is_pinned_and_has_hashes(lock: Path) -> None:
    assert requirements(lock)
    for requirement in requirements(lock):
        assert REQUIREMENT.match(requirement), requirement
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", requirement, re.M), requirement
    # Another index could serve a different package of the same name.
    assert not re.search(r"^--|://", lock.read_text(), re.M)


@pytest.mark.parametrize("name", BILLS)
def test_the_bill_of_materials_has_every_requirement_with_its_hashes(name: str) -> None:
    bill: dict[str, Any] = json.loads((ROOT / "dist" / f"{name}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    found = {
        (part["name"], part["version"]): {
            digest["content"]
            for reference in part["externalReferences"]
            for digest in reference["hashes"]
        }
        for part in bill["components"]
    }
    locked = {
        (match[1], match[2]): set(re.findall(r"sha256:([0-9a-f]{64})", requirement))
        for requirement in requirements(BILLS[name])
        if (match := REQUIREMENT.match(requirement))
    }
    assert found == locked
    component = bill["metadata"]["component"]
    assert component["name"] == {"image": "tracking-server", "program": "mlflow-gcp"}[name]
    assert component["licenses"][0]["license"]["id"] == "Apache-2.0"


def test_the_base_image_is_pinned_by_digest() -> None:
    dockerfile = (ROOT / "image" / "Dockerfile").read_text()
    [base] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.M)
    assert re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.M)) == {"${PYTHON_IMAGE}"}
