"""What is in the image, seen by its own Python in a container of it."""

from typing import Any

from tests.container.conftest import Built

# A quarter above what it is: what the server never imports weighs more than that.
MOST_INSTALLED = 550e6
MOST_COMPRESSED = 250e6


def test_its_configuration_is_the_dockerfiles(built: Built) -> None:
    image = built.image
    assert (image.user, image.working_dir, image.ports) == ("65532:65532", "/tmp", ["8080/tcp"])
    assert image.entrypoint == ["/opt/server/bin/python", "-m", "tracking_server"]
    # The base's, which would be the entry point's arguments.
    assert image.command == []
    assert image.architecture == "amd64"
    assert "PYTHONDONTWRITEBYTECODE=1" in image.env


def test_it_has_no_build_tool_and_no_shell(inside: dict[str, Any]) -> None:
    assert inside["tools"] == []
    assert inside["modules"] == []


def test_every_module_is_compiled(inside: dict[str, Any]) -> None:
    """Nothing can be compiled at run time: the root can't be written."""
    assert inside["packages_without_pyc"] == []
    assert inside["stdlib_without_pyc"] == []


def test_nothing_of_the_build_is_left(inside: dict[str, Any]) -> None:
    assert inside["left_of_the_build"] == []


def test_the_user_can_write_only_to_tmp(inside: dict[str, Any]) -> None:
    assert inside["writable"] == ["/tmp"]
    assert inside["owned"] == []


def test_it_is_small(built: Built, inside: dict[str, Any]) -> None:
    assert 100e6 < inside["sizes"]["server"] < MOST_INSTALLED
    assert 50e6 < built.image.compressed_bytes < MOST_COMPRESSED
