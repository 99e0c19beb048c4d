"""A missing Docker daemon is reported at once, together with the alternatives."""

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
    """Returns an address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("DOCKER_HOST", address)
    return address


@pytest.mark.parametrize("preview", [True, False])
def test_a_missing_daemon_is_reported_in_one_line_with_alternatives(
    nowhere: str, preview: bool
) -> None:
    program = Program()
    with pytest.raises(NoDocker) as refused:
        run(preview=preview, into=program)
    # The engine prints a RunError without a traceback.
    assert isinstance(refused.value, pulumi.RunError)
    line = str(refused.value)
    assert "\n" not in line
    assert f"No Docker daemon answers at {nowhere}" in line
    assert "pulumi config set builder cloud-build" in line
    assert "pulumi config set image us-central1-docker.pkg.dev/" in line
    assert program.resources == []


@pytest.mark.parametrize("config", [READY, {"builder": "cloud-build"}])
def test_other_builders_need_no_docker(nowhere: str, config: Mapping[str, Any]) -> None:
    assert run(config).created


def test_the_daemon_is_expected_at_the_providers_addresses(
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


def test_a_listening_daemon_is_found(docker: str) -> None:
    assert answers(docker)
    # A socket's path must be short; pytest's own folders have long ones.
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as daemon:
        path = f"{folder}/docker.sock"
        daemon.bind(path)
        daemon.listen()
        assert answers(f"unix://{path}")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unix:///no/such/docker.sock", False),
        # The provider reaches these itself, so they are assumed to work.
        ("ssh://me@elsewhere", True),
        ("npipe:////./pipe/docker_engine", True),
    ],
)
def test_hosts_of_other_kinds(host: str, expected: bool) -> None:
    assert answers(host) is expected


def test_one_listening_daemon_is_enough(monkeypatch: pytest.MonkeyPatch, docker: str) -> None:
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
