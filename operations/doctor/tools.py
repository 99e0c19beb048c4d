"""Checks the tools on this computer: Python, Docker and gcloud. `stack.py` checks Pulumi."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra import docker_daemon

from .findings import Finding, fix, not_checked, ok, warning

PYTHONS = ((3, 11), (3, 14))
SECONDS = 20
CLOUD_BUILD = "or let Google build: pulumi config set builder cloud-build"
GCLOUD = "https://cloud.google.com/sdk/docs/install"


def run(
    *command: str,
    seconds: float = SECONDS,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program; a program that doesn't respond counts as failed."""
    try:
        return subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=seconds, cwd=folder, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", f"no answer: {type(error).__name__}")


# ---- Python ----


@dataclass(frozen=True, kw_only=True)
class Python:
    """The Python that Pulumi uses: in `.venv` (see Pulumi.yaml), or the one to create it with."""

    command: str
    # Empty if Python doesn't respond or can't create environments.
    version: str


def look_for_python(folder: Path) -> Python:
    made = folder / ".venv" / "bin" / "python"
    # https://www.pulumi.com/docs/iac/cli/environment-variables/
    command = str(made) if made.exists() else os.environ.get("PULUMI_PYTHON_CMD") or "python3"
    needs = "" if made.exists() else "import ensurepip, venv; "
    done = run(command, "-c", f"{needs}import sys; print('%d.%d' % sys.version_info[:2])")
    shown = ".venv/bin/python" if made.exists() else command
    return Python(command=shown, version="" if done.returncode else done.stdout.strip())


def check_python(python: Python) -> Finding:
    wanted = " to ".join(".".join(map(str, each)) for each in PYTHONS)
    if not re.fullmatch(r"\d+\.\d+", python.version):
        return fix(
            "python",
            f"{python.command} does not run, or can't make virtual environments, which Pulumi "
            "needs",
            f"install Python {wanted} with venv (on Debian and Ubuntu: apt install python3-venv)",
        )
    major, minor = map(int, python.version.split("."))
    if not PYTHONS[0] <= (major, minor) <= PYTHONS[1]:
        how = "rm -r .venv, and then " if python.command.startswith(".venv") else ""
        return fix(
            "python",
            f"{python.command}, which Pulumi uses, is {python.version}; wanted {wanted}",
            f"{how}install one, and name it: export PULUMI_PYTHON_CMD=python3.11",
        )
    return ok("python", f"{python.version} ({python.command})")


# ---- Docker ----


@dataclass(frozen=True, kw_only=True)
class Docker:
    tried: tuple[str, ...]
    # The address of the daemon that responds; None: none does.
    host: str | None
    # The daemon's platform, such as `linux/amd64`; None: unknown.
    platform: str | None = None
    # The platforms that it builds for, from `docker buildx`; None: unknown.
    builds_for: str | None = None
    # Whether it keeps images in containerd's store, the default since Docker 29.
    in_containerd: bool = False


def look_for_docker(config: Mapping[str, Any]) -> Docker:
    named = config.get("docker:host")
    tried = [str(named)] if named else docker_daemon.hosts()
    host = next((host for host in tried if docker_daemon.answers(host)), None)
    version = _ask(host, "/version") if host else {}
    system, machine = version.get("Os"), version.get("Arch")
    platform = f"{system}/{machine}" if system and machine else None
    store = str(_ask(host, "/info").get("DriverStatus") if host else "")
    builds_for = None
    if platform and not platform.endswith("/amd64"):
        done = run("docker", "buildx", "inspect")
        found = re.search(r"^Platforms:(.*)$", done.stdout, re.MULTILINE)
        builds_for = found[1].strip() if found and not done.returncode else None
    return Docker(
        tried=tuple(tried),
        host=host,
        platform=platform,
        builds_for=builds_for,
        in_containerd="io.containerd.snapshotter" in store,
    )


class _Socket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=docker_daemon.TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _ask(host: str, path: str) -> dict[str, Any]:
    """Returns a response of the daemon's, empty if there is none.

    https://docs.docker.com/reference/api/engine/#tag/System
    """
    url = urlsplit(host)
    connection: http.client.HTTPConnection
    if url.scheme == "unix":
        connection = _Socket(url.path)
    elif url.scheme in {"tcp", "http"} and not os.environ.get("DOCKER_TLS_VERIFY"):
        address = url.hostname or ""
        connection = http.client.HTTPConnection(
            address, url.port or 2375, timeout=docker_daemon.TIMEOUT
        )
    else:
        return {}
    try:
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read(1_000_000))
        return found if isinstance(found, dict) else {}
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()


def check_docker(docker: Docker, *, needed: bool) -> Finding:
    if not needed:
        return ok("docker", "not needed: the image is not built on this computer")
    if docker.host is None:
        return fix(
            "docker",
            f"no daemon answers at {' or '.join(docker.tried)}, and builder docker requires one",
            f"{docker_daemon.start()}, {CLOUD_BUILD}",
        )
    if docker.platform is None:
        return not_checked(
            "docker", f"whether the daemon at {docker.host} builds linux/amd64; it does not say"
        )
    system = docker.platform.partition("/")[0]
    if system != "linux":
        return fix(
            "docker",
            f"the daemon makes {system} images, and Cloud Run runs linux/amd64",
            "switch Docker to Linux containers",
        )
    if docker.in_containerd:
        # https://github.com/pulumi/pulumi-docker/issues/967
        return warning(
            "docker",
            f"the daemon at {docker.host} keeps images in containerd's store, with which Pulumi's "
            "Docker provider may fail to build or push",
            'if it does, set {"features": {"containerd-snapshotter": false}} in the daemon\'s '
            f"configuration (daemon.json) and restart it, {CLOUD_BUILD}",
        )
    if docker.platform == "linux/amd64":
        return ok("docker", f"linux/amd64 at {docker.host}")
    if docker.builds_for is None:
        return not_checked(
            "docker",
            f"whether the daemon, which is {docker.platform}, also builds linux/amd64: "
            "`docker buildx inspect` does not say",
            f"docker buildx ls, {CLOUD_BUILD}",
        )
    if "linux/amd64" in docker.builds_for:
        return ok("docker", f"{docker.platform}, which also builds linux/amd64")
    # https://docs.docker.com/build/building/multi-platform/#install-qemu-manually
    return fix(
        "docker",
        f"the daemon is {docker.platform} and builds for {docker.builds_for} alone; Cloud Run runs "
        "linux/amd64",
        f"docker run --privileged --rm tonistiigi/binfmt --install amd64, {CLOUD_BUILD}",
    )


# ---- gcloud ----


@dataclass(frozen=True, kw_only=True)
class Gcloud:
    there: bool
    # The account that `gcloud auth login` has logged in; empty: none.
    account: str = ""


def look_for_gcloud() -> Gcloud:
    if shutil.which("gcloud") is None:
        return Gcloud(there=False)
    done = run("gcloud", "auth", "list", "--filter=status:ACTIVE", "--format=value(account)")
    return Gcloud(there=True, account=done.stdout.strip())


def check_gcloud(gcloud: Gcloud, *, needed: bool) -> Finding:
    if not gcloud.there:
        if needed:
            return fix(
                "gcloud",
                "not installed, and builder cloud-build uploads the source with it",
                f"install it ({GCLOUD}), or: pulumi config set builder docker",
            )
        return warning(
            "gcloud",
            "not installed; Pulumi doesn't need it, but it is the usual way to log in",
            f"install it: {GCLOUD}",
        )
    if gcloud.account:
        return ok("gcloud", gcloud.account)
    if needed:
        return fix(
            "gcloud",
            "nobody is logged in, and builder cloud-build uploads the source with it",
            "gcloud auth login",
        )
    return ok("gcloud", "installed; a login is not needed")
