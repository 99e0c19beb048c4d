"""The contents of the image, as its own Python sees them in a container."""

from typing import Any

from tests.container.conftest import Built

# A quarter above today's size; the packages that the server never imports weigh more than that.
MOST_INSTALLED = 550e6
MOST_COMPRESSED = 250e6


def test_the_configuration_is_that_of_the_dockerfile(built: Built) -> None:
    image = built.image
    assert (image.user, image.working_dir, image.ports) == ("65532:65532", "/tmp", ["8080/tcp"])
    assert image.entrypoint == ["/opt/server/bin/python", "-m", "tracking_server"]
    # The base image's command would become the entry point's arguments.
    assert image.command == []
    assert image.architecture == "amd64"
    assert "PYTHONDONTWRITEBYTECODE=1" in image.env


def test_the_image_has_no_build_tool_and_no_shell(inside: dict[str, Any]) -> None:
    assert inside["tools"] == []
    assert inside["modules"] == []


def test_every_module_is_compiled(inside: dict[str, Any]) -> None:
    """Python can't compile anything at run time: the root is read-only."""
    assert inside["packages_without_pyc"] == []
    assert inside["stdlib_without_pyc"] == []


def test_no_file_of_the_build_is_left(inside: dict[str, Any]) -> None:
    assert inside["left_of_the_build"] == []


def test_the_user_can_write_only_to_tmp(inside: dict[str, Any]) -> None:
    assert inside["writable"] == ["/tmp"]
    assert inside["owned"] == []


def test_the_image_is_small(built: Built, inside: dict[str, Any]) -> None:
    assert 100e6 < inside["sizes"]["server"] < MOST_INSTALLED
    assert 50e6 < built.image.compressed_bytes < MOST_COMPRESSED
