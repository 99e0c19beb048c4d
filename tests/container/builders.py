"""Builds the image: with Docker where it runs, otherwise with buildah and a stand-in base."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.google.image import PLATFORM, content_hash
from tests.container import base, pip_settings
from tests.container.runners import NAME, Docker, Runc
from tests.container.tools import missing, run

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "image"
PIP = ROOT / ".venvs" / "uv" / "bin" / "pip"
# Each version of the server leaves about three images, of 15 MB, in buildah's storage.
MOST_IMAGES = 100


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image's configuration, and what a registry would store of it."""

    user: str
    entrypoint: list[str]
    command: list[str]
    env: list[str]
    working_dir: str
    ports: list[str]
    architecture: str
    compressed_bytes: int


@contextmanager
def build() -> Iterator[tuple[Image, Docker | Runc]]:
    """Build the unmodified Dockerfile."""
    if sys.platform != "linux":
        missing("containers that share this machine's network require Linux")
    if shutil.which("docker") and _succeeds("docker", "info"):
        yield _build_with_docker(), Docker()
        return
    tools = ("buildah", "runc", "mmdebstrap")
    absent = [tool for tool in tools if not shutil.which(tool)]
    if absent:
        missing(f"no Docker daemon runs, and without one {' and '.join(absent)} are needed")
    if os.geteuid() != 0:
        missing("no Docker daemon runs, and buildah and runc are only used as root")
    with _build_with_buildah() as image_and_runner:
        yield image_and_runner


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _build_with_docker() -> Image:
    run("docker", "build", "--platform", PLATFORM, "--tag", NAME, str(IMAGE), seconds=900)
    (inspected,) = json.loads(run("docker", "image", "inspect", NAME))
    packed = run("sh", "-c", f"docker save {NAME} | gzip -c | wc -c")
    return _image(inspected["Config"], inspected["Architecture"], int(packed))


def _image(config: Mapping[str, Any], architecture: str, compressed_bytes: int) -> Image:
    return Image(
        user=config["User"],
        entrypoint=config["Entrypoint"],
        command=config.get("Cmd") or [],
        env=config["Env"],
        working_dir=config["WorkingDir"],
        ports=list(config["ExposedPorts"]),
        architecture=architecture,
        compressed_bytes=compressed_bytes,
    )


@contextmanager
def _build_with_buildah() -> Iterator[tuple[Image, Runc]]:
    # Without its digest, which only the real image has.
    found = re.search(r"^ARG PYTHON_IMAGE=([^@\s]+)", (IMAGE / "Dockerfile").read_text(), re.M)
    assert found, "the Dockerfile does not name its base"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mlflow-gcp")
    cache.mkdir(parents=True, exist_ok=True)
    storage, in_use = cache / "containers", cache / "containers.in-use"
    with (cache / "containers.lock").open("w") as lock, TemporaryDirectory() as settings:
        fcntl.flock(lock, fcntl.LOCK_EX)
        buildah = _Buildah(storage=storage, pip_settings=Path(settings))
        if in_use.exists():  # left by a run that was killed
            buildah.forget()
        in_use.touch()
        try:
            base_name = f"docker.io/library/{found[1]}"
            try:
                buildah.ensure(base_name)
            except AssertionError as failure:
                # The cached layers may be damaged, and a registry may fail once.
                print(f"making the container's base anew: {failure}")
                buildah.forget()
                buildah.ensure(base_name)
            inspected = json.loads(buildah("inspect", "--type", "image", NAME))["OCIv1"]
            config = inspected["config"]
            container = buildah("from", "--pull-never", NAME).strip()
            runner = Runc(
                rootfs=buildah("mount", container).strip(),
                user=config["User"],
                entrypoint=config["Entrypoint"],
                env=config["Env"],
                working_dir=config["WorkingDir"],
            )
            yield _image(config, inspected["architecture"], buildah.compressed_bytes(NAME)), runner
        finally:
            buildah("rm", "--all")
            in_use.unlink()


class _Buildah:
    """Buildah with a separate storage, which keeps the base from one run to the next."""

    def __init__(self, *, storage: Path, pip_settings: Path) -> None:
        self._storage, self._pip_settings = storage, pip_settings

    def __call__(self, *arguments: str, seconds: float = 300) -> str:
        # Its list of mounts must not outlive a restart of the machine.
        storage = ("--root", str(self._storage), "--runroot", "/run/mlflow-gcp-containers")
        return run("buildah", *storage, *arguments, seconds=seconds)

    def forget(self) -> None:
        """Remove everything that was ever built."""
        with suppress(AssertionError):  # damaged storage can't be cleaned up in order
            self("rm", "--all")
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for point in sorted(mounted, reverse=True):
            if Path(point).is_relative_to(self._storage):
                run("umount", "--lazy", point)
        if self._storage.exists():
            shutil.rmtree(self._storage)

    def ensure(self, base_name: str) -> None:
        """Build the base from these exact files unless it exists, and remove all older ones."""
        base.check(base_name)
        files = (base.DOCKERFILE, Path(base.__file__))
        base_label = _label(base_name, sys.version, *(file.read_text() for file in files))
        label = _label(base_label, content_hash(IMAGE))
        if len(self._rows("--all")) > MOST_IMAGES:
            self.forget()
        kept = self._labelled(base_label) | self._labelled(label)
        for image in self._images() - kept:
            self("rmi", "--force", image)
        if not self._labelled(base_label):
            with TemporaryDirectory(dir=self._storage.parent) as context:
                base.write_context(Path(context), name=base_name)
                self._build(base.DOCKERFILE, Path(context), base_name, base_label)
        if not self._labelled(label):
            stand_in = ("--build-arg", f"PYTHON_IMAGE={base_name}")
            self._build(IMAGE / "Dockerfile", IMAGE, NAME, label, *stand_in)

    def _rows(self, *options: str) -> list[dict[str, Any]]:
        return json.loads(self("images", "--json", *options)) or []

    def _images(self, *options: str) -> set[str]:
        """Returns the images with a name. The others are steps, which the next build reuses."""
        return {row["id"] for row in self._rows(*options) if row["names"]}

    def _labelled(self, label: str) -> set[str]:
        return self._images("--filter", f"label={label}")

    def _build(self, dockerfile: Path, context: Path, name: str, label: str, *options: str) -> None:
        if not any(self._pip_settings.iterdir()):
            pip_settings.write(self._pip_settings, pip=PIP)
        self(
            # Without a daemon no other isolation works inside another container.
            *("bud", "--layers", "--isolation", "chroot", "--pull-never"),
            *("--file", str(dockerfile)),
            # The network settings are this machine's, and a mount leaves nothing in the image.
            *("--volume", f"{self._pip_settings}:{pip_settings.MOUNTED_AT}:ro"),
            *("--platform", PLATFORM, "--tag", name, "--label", label, *options, str(context)),
            seconds=600,
        )

    def compressed_bytes(self, name: str) -> int:
        """Returns the size of the layers as they would be pushed."""
        with TemporaryDirectory(dir=self._storage.parent) as folder:
            self("push", name, f"dir:{folder}")
            manifest = json.loads(Path(folder, "manifest.json").read_text())
        return sum(layer["size"] for layer in manifest["layers"])


def _label(*recipe: str) -> str:
    return f"mlflow-gcp={hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}"
