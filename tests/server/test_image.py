"""The image's files agree with each other and with the tests' environment."""

import re
import sys
from importlib.metadata import distributions, entry_points
from pathlib import Path

from tracking_server.database.engines import SharedPool

IMAGE = Path(__file__).parents[2] / "image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
LOCK = (IMAGE / "requirements.txt").read_text()


def test_the_image_has_the_python_that_the_tests_run_on() -> None:
    base = r"python:(\d+)\.(\d+)\.\d+-slim-\w+@sha256:[0-9a-f]{64}"
    found = re.search(rf"^ARG PYTHON_IMAGE={base}$", DOCKERFILE, re.M)
    assert found
    oldest = re.search(
        r'requires-python = ">=(\d+)\.(\d+)"', (IMAGE / "pyproject.toml").read_text()
    )
    assert oldest
    # CI runs the oldest supported Python, which is the image's; other machines run their own.
    assert found.groups() == oldest.groups()
    assert sys.version_info[:2] >= (int(found[1]), int(found[2]))


def test_the_image_runs_unprivileged_without_a_shell() -> None:
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.M)
    entrypoint = '["/opt/server/bin/python", "-m", "tracking_server"]'
    assert f"ENTRYPOINT {entrypoint}" in DOCKERFILE
    assert "CMD" not in DOCKERFILE


def test_unused_packages_are_not_in_the_lock() -> None:
    excluded = [
        line.split(";")[0].strip()
        for line in (IMAGE / "requirements.excluded").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(excluded) == 8
    installed = {distribution.name.lower() for distribution in distributions()}
    for name in excluded:
        assert not re.search(rf"^{name}==", LOCK, re.M)
        # If the package were installed here, the other tests wouldn't notice that it's missing.
        assert name not in installed


def test_sqlalchemy_finds_the_plug_in() -> None:
    (found,) = entry_points(group="sqlalchemy.plugins", name="tracking_server")
    assert found.load() is SharedPool


def test_the_build_context_has_only_files_that_the_dockerfile_copies() -> None:
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    copied = {source for line in sources for source in line.split()}
    allowed = {
        line.removeprefix("!").split("/")[0]
        for line in (IMAGE / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == allowed - {"Dockerfile", ".dockerignore"}
