"""A Docker daemon that is missing is said so at once, with what else there is."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pulumi
import pytest

from infra import docker_daemon
from infra.docker_daemon import NoDocker, answers, hosts
from tests.infra.declared import Program, run

READY = {"image": "docker.io/my/server:1.2"}


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("DOCKER_HOST", address)
    return address


@pytest.mark.parametrize("preview", [True, False])
def test_one_line_says_so_and_names_the_other_ways(nowhere: str, preview: bool) -> None:
    program = Program()
    with pytest.raises(NoDocker) as refused:
        run(preview=preview, into=program)
    # Without a traceback, as the engine prints it.
    assert isinstance(refused.value, pulumi.RunError)
    line = str(refused.value)
    assert "\n" not in line
    assert f"No Docker daemon answers at {nowhere}" in line
    assert "pulumi config set builder cloud-build" in line
    assert "pulumi config set image us-central1-docker.pkg.dev/" in line
    assert program.resources == []


@pytest.mark.parametrize("config", [READY, {"builder": "cloud-build"}])
def test_nobody_else_is_asked_for_docker(nowhere: str, config: Mapping[str, Any]) -> None:
    assert run(config).created


def test_a_daemon_is_looked_for_where_the_provider_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hosts() == [
        "unix:///var/run/docker.sock",
        f"unix://{tmp_path}/.docker/run/docker.sock",
        f"unix://{tmp_path}/.docker/desktop/docker.sock",
    ]
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    assert hosts() == ["tcp://10.0.0.1:2375"]
    pulumi.runtime.set_all_config({"docker:host": "unix:///elsewhere.sock"})
    assert hosts() == ["unix:///elsewhere.sock"]


def test_one_that_listens_answers(docker: str) -> None:
    assert answers(docker)
    # A socket's path is short; pytest's own folders are not.
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as daemon:
        path = f"{folder}/docker.sock"
        daemon.bind(path)
        daemon.listen()
        assert answers(f"unix://{path}")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unix:///no/such/docker.sock", False),
        # Those the provider reaches in ways of its own.
        ("ssh://me@elsewhere", True),
        ("npipe:////./pipe/docker_engine", True),
    ],
)
def test_what_is_known_of_other_hosts(host: str, expected: bool) -> None:
    assert answers(host) is expected


def test_any_of_several_is_enough(monkeypatch: pytest.MonkeyPatch, docker: str) -> None:
    monkeypatch.setattr(docker_daemon, "hosts", lambda: ["unix:///no/such/docker.sock", docker])
    docker_daemon.require()


@pytest.mark.parametrize("own", [*docker_daemon.ELSEWHERE, "run/podman/podman.sock"])
def test_another_products_daemon_is_named(
    nowhere: str, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    with TemporaryDirectory() as home:
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{home}/run")
        with pytest.raises(NoDocker, match="Start Docker"):
            docker_daemon.require()
        path = Path(home, own)
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            with pytest.raises(NoDocker, match=f"export DOCKER_HOST=unix://{path}"):
                docker_daemon.require()
