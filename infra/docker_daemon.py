"""Checks that a Docker daemon answers, before anything is declared.

The provider looks in the same places, but only says "failed to connect to any docker daemon" if
there is none: `configureDockerClient` in
https://github.com/pulumi/pulumi-docker/blob/master/provider/image.go
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pulumi

TIMEOUT = 3.0
DEFAULT = "unix:///var/run/docker.sock"
# Docker Desktop's sockets, in the user's home.
DESKTOP = (".docker/run/docker.sock", ".docker/desktop/docker.sock")
# Sockets of Colima, Rancher Desktop and Podman, which the provider only finds by DOCKER_HOST.
# https://github.com/abiosoft/colima/blob/main/docs/FAQ.md,
# https://docs.podman.io/en/latest/markdown/podman-system-service.1.html
ELSEWHERE = (
    ".colima/default/docker.sock",
    ".rd/docker.sock",
    ".local/share/containers/podman/machine/podman.sock",
)


class NoDocker(pulumi.RunError):
    """No Docker daemon answers; Pulumi prints this error without a traceback."""

    def __init__(self, tried: Sequence[str]) -> None:
        super().__init__(
            f"No Docker daemon answers at {' or '.join(tried)}; builder docker requires one to "
            f"build the image. {start()}, or let Google build: pulumi config set builder "
            "cloud-build, or name a ready image: pulumi config set image "
            "us-central1-docker.pkg.dev/my-project/my-images/server@sha256:..."
        )


def hosts() -> list[str]:
    """Returns the daemon's address from Pulumi's configuration or DOCKER_HOST, or the defaults."""
    named = pulumi.Config("docker").get("host") or os.environ.get("DOCKER_HOST")
    return [named] if named else [DEFAULT, *(f"unix://{Path.home() / own}" for own in DESKTOP)]


def start() -> str:
    """Returns what to do when no daemon answers; another product's daemon may run."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}"))
    sockets = [*(Path.home() / own for own in ELSEWHERE), runtime / "podman" / "podman.sock"]
    for socket_ in sockets:
        if answers(f"unix://{socket_}"):
            return f"export DOCKER_HOST=unix://{socket_}, where one answers"
    return "Start Docker"


def answers(host: str) -> bool:
    """Returns whether something listens at the address.

    Other schemes, such as ssh://, count as answering: the provider checks them.
    """
    url = urlsplit(host)
    try:
        if url.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(TIMEOUT)
                connection.connect(url.path)
        elif url.scheme in {"tcp", "http", "https"}:
            address = (url.hostname or "", url.port or 2375)
            with socket.create_connection(address, timeout=TIMEOUT):
                pass
    except OSError:
        return False
    return True


def require() -> None:
    """Raises `NoDocker` unless a daemon answers."""
    tried = hosts()
    if not any(answers(host) for host in tried):
        raise NoDocker(tried)
