"""Rehearses a release on this computer, with stand-ins for GitHub and Artifact Registry.

    python -m tests.release

Runs the steps of the workflows release.yml and image.yml that don't need GitHub: notes, packages,
bills of materials and licences of a tagged copy of the last commit, the release with them in a
folder, the installation of both packages from that folder, and the image in a registry. It doesn't
run the tests, and doesn't build for arm64: the image for amd64 takes its place. It doesn't sign or
attest anything, because that needs an identity of GitHub's.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.container import builders
from tests.container.runners import NAME
from tests.container.tools import run
from tests.page_commands import run as run_step
from tests.page_commands import stand_in
from tests.release import registry

ROOT = Path(__file__).parents[2]
GIT = ("git", "-c", "user.name=rehearsal", "-c", "user.email=rehearsal@example.com")
ARCHITECTURES = ("amd64", "arm64")
REPOSITORY = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "my-org/my-fork"}


def main() -> None:
    with TemporaryDirectory(prefix="mlflow-gcp-release-") as name:
        folder = Path(name)
        clone, tools, index = (folder / each for each in ("clone", "tools", "index"))
        tools.mkdir()
        index.mkdir()
        tag = _tagged_copy(clone)
        environment = {
            **os.environ,
            **REPOSITORY,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "TAG": tag,
            "INDEX": str(index),
            "CLONE": str(clone),
        }
        for program in ("docker", "gh", "jq"):
            command = shlex.join([sys.executable, "-m", "tests.release.tools", program])
            where = f"PYTHONPATH={shlex.quote(str(ROOT))}"
            stand_in(tools, program, f'#!/bin/sh\n{where} exec {command} "$@"\n')
        stand_in(tools, "gcloud", "#!/bin/sh\n")
        for step in _steps("release.yml", "build", left_out=".ci/run"):
            _say(step)
            run_step(step, folder=clone, environment=environment, seconds=900)
        for step in _steps("release.yml", "publish"):
            _say(step)
            run_step(step, folder=clone, environment=environment)
        _check_release(index, folder / "installed", tag)
        _push_image(clone, environment, folder / "outputs", tag)


def _say(text: str) -> None:
    print(f"\n{text.strip()}", flush=True)


def _tagged_copy(clone: Path) -> str:
    """Returns the tag of the next release, made from a copy of the last commit."""
    run("git", "clone", "--quiet", str(ROOT), str(clone))
    (clone / ".venvs").symlink_to(ROOT / ".venvs")
    _make_old(clone)
    project, changelog = clone / "pyproject.toml", clone / "CHANGELOG.md"
    text = re.sub(r'^(version = "[\d.]+)\.dev\d+"', r'\1"', project.read_text(), flags=re.M)
    project.write_text(text)
    [version] = re.findall(r'^version = "(.+)"', text, re.M)
    text = changelog.read_text().replace("## Unreleased", f"## {version} - 2026-12-31", 1)
    changelog.write_text(text)
    run("make", "--directory", str(clone), "docs")
    _make_old(clone)
    commit = (*GIT, "-C", str(clone))
    run(*commit, "commit", "--quiet", "--all", "--message", f"Release {version}")
    run(*commit, "tag", f"v{version}")
    return f"v{version}"


def _make_old(clone: Path) -> None:
    """Date the files back: make installs this checkout's environments again for newer files."""
    run("find", str(clone), "-type", "f", "-exec", "touch", "-t", "200001010000", "{}", "+")


def _steps(workflow: str, job: str, *, left_out: str = "nothing") -> list[str]:
    text = (ROOT / ".github" / "workflows" / workflow).read_text()
    steps = yaml.safe_load(text)["jobs"][job]["steps"]
    return [each["run"] for each in steps if "run" in each and left_out not in each["run"]]


def _check_release(index: Path, target: Path, tag: str) -> None:
    """Check the release's files, and install its packages without their dependencies."""
    names = sorted(path.name for path in index.iterdir())
    _say(f"the release {tag}: {', '.join(names)}")
    notes = (index / "notes.md").read_text()
    assert f"](https://github.com/my-org/my-fork/blob/{tag}/docs/" in notes
    wheels = [str(path) for path in sorted(index.glob("*.whl"))]
    assert len(wheels) == len(list(index.glob("*.tar.gz"))) == 2, names
    assert {"image.cdx.json", "program.cdx.json", "licences.txt"} <= set(names)
    pip = (str(ROOT / ".venvs" / "uv" / "bin" / "uv"), "pip", "install", "--quiet", "--no-deps")
    run(*pip, "--offline", "--python", sys.executable, "--target", str(target), *wheels)
    installed = sorted(path.name for path in target.glob("*.dist-info"))
    assert f"mlflow_gcp-{tag.removeprefix('v')}.dist-info" in installed
    _say(f"installed: {', '.join(installed)}")


def _push_image(clone: Path, environment: dict[str, str], outputs: Path, tag: str) -> None:
    """Push the image of this checkout as both architectures, as image.yml does."""
    [push] = [step for step in _steps("image.yml", "publish") if "docker push" in step]
    _say(push)
    with registry.serve() as (host, stored), builders.build():
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        storage = f"--root {cache}/mlflow-gcp/containers --runroot /run/mlflow-gcp-containers"
        image = f"{host}/my-project/mlflow/server"
        try:
            for each in ARCHITECTURES:
                archive = f"docker-archive:{clone}/dist/image-{each}.tar:mlflow-gcp:{each}"
                run("buildah", *storage.split(), "push", "--quiet", NAME, archive)
            run_step(
                push,
                folder=clone,
                environment={
                    **environment,
                    "IMAGE": image,
                    "BUILDAH_STORAGE": storage,
                    "GITHUB_OUTPUT": str(outputs),
                },
                seconds=900,
            )
        finally:
            loaded = "docker.io/library/mlflow-gcp"
            names = [
                name
                for each in ARCHITECTURES
                for name in (f"{loaded}:{each}", f"{image}:{tag}-{each}")
            ]
            subprocess.run(
                ["buildah", *storage.split(), "rmi", *names], check=False, capture_output=True
            )
        digest = outputs.read_text().strip().removeprefix("digest=")
        kind, content = stored.manifests["my-project/mlflow/server", digest]
        assert registry.digest_of(content) == digest
        assert stored.manifests["my-project/mlflow/server", tag] == (kind, content)
        _say(f"pushed {image}@{digest}, {kind}, {len(stored.blobs)} blobs")


if __name__ == "__main__":
    main()
