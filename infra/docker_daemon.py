"""Whether a Docker daemon answers, asked before anything is declared.

The provider looks for one in the same places and, when there is none, says "failed to connect to
any docker daemon": `configureDockerClient` in
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
# Docker Desktop's, which belong to the user.
DESKTOP = (".docker/run/docker.sock", ".docker/desktop/docker.sock")


class NoDocker(pulumi.RunError):
    """Pulumi prints it without a traceback."""

    def __init__(self, tried: Sequence[str]) -> None:
        super().__init__(
            f"No Docker daemon answers at {' or '.join(tried)}, and with builder docker it is what "
            "builds the image. Start Docker, or let Google build: pulumi config set builder "
            "cloud-build, or name a ready image: pulumi config set image "
            "us-central1-docker.pkg.dev/my-project/mlflow/server@sha256:..."
        )


def hosts() -> list[str]:
    """Where a daemon may be: where Pulumi's configuration or DOCKER_HOST says, or the usual."""
    named = pulumi.Config("docker").get("host") or os.environ.get("DOCKER_HOST")
    return [named] if named else [DEFAULT, *(f"unix://{Path.home() / own}" for own in DESKTOP)]


def answers(host: str) -> bool:
    """Whether somebody listens there. Of what isn't reached by a socket, such as ssh://, the
    provider is left to find out."""
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
    tried = hosts()
    if not any(answers(host) for host in tried):
        raise NoDocker(tried)
