"""Stands in for the programs that the workflows start: docker with buildah, gh with a folder.

    python -m tests.release.tools docker push IMAGE

gcloud is a script of `__main__.py` that does nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path

from tests.container.tools import run

KINDS = (
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json"
)


def buildah(*arguments: str) -> str:
    return run("buildah", *os.environ["BUILDAH_STORAGE"].split(), *arguments)


def docker(*arguments: str) -> None:
    match arguments:
        case "load", "--input", archive:
            buildah("pull", f"docker-archive:{archive}")
        case "tag", image, name:
            buildah("tag", image, name)
        case "push", image:
            buildah("push", "--tls-verify=false", image)
        case "buildx", "imagetools", "create", "--tag", name, *images:
            buildah("manifest", "create", "release")
            for image in images:
                buildah("manifest", "add", "--tls-verify=false", "release", f"docker://{image}")
            buildah("manifest", "push", "--tls-verify=false", "release", f"docker://{name}")
            buildah("manifest", "rm", "release")
        case "buildx", "imagetools", "inspect", name, "--format", "{{json .Manifest}}":
            host, _, rest = name.partition("/")
            image, _, tag = rest.rpartition(":")
            request = urllib.request.Request(
                f"http://{host}/v2/{image}/manifests/{tag}", headers={"Accept": KINDS}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                print(json.dumps({"digest": answer.headers["Docker-Content-Digest"]}))
        case _:
            sys.exit(f"docker {' '.join(arguments)} isn't known here")


def gh(*arguments: str) -> None:
    """Copy the files of `gh release create` to the folder INDEX."""
    assert arguments[:2] == ("release", "create"), arguments
    tag, *rest = arguments[2:]
    index = Path(os.environ["INDEX"])
    files = []
    while rest:
        match rest.pop(0):
            case "--verify-tag":
                run("git", "-C", os.environ["CLONE"], "rev-parse", "--verify", f"refs/tags/{tag}")
            case "--title":
                assert rest.pop(0) == tag
            case "--notes-file":
                shutil.copy(rest.pop(0), index / "notes.md")
            case file:
                files.append(file)
    for file in files:
        shutil.copy(file, index)


def jq(*arguments: str) -> None:
    assert arguments == ("--raw-output", '"digest=" + .digest'), arguments
    print(f"digest={json.load(sys.stdin)['digest']}")


if __name__ == "__main__":
    {"docker": docker, "gh": gh, "jq": jq}[sys.argv[1]](*sys.argv[2:])
