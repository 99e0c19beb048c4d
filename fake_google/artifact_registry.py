"""Artifact Registry: repositories, and the images pushed to them. Nothing is built here.

https://cloud.google.com/artifact-registry/docs/reference/rest
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fake_google.errors import NotFound
from fake_google.kms import check_key
from fake_google.project import Inputs, Outputs, Project

REPOSITORY = "gcp:artifactregistry/repository:Repository"


def repository_name(project: Project, inputs: Inputs) -> str:
    location = inputs.get("location") or project.region
    return f"projects/{project.id}/locations/{location}/repositories/{inputs['repositoryId']}"


def make_repository(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    location = inputs.get("location") or project.region
    check_key(project, inputs.get("kmsKeyName"), api="artifactregistry", location=location)
    project.images.setdefault(_address(project, inputs), set())
    return repository_name(project, inputs), {"name": inputs["repositoryId"]}


def delete_repository(project: Project, _olds: Inputs, inputs: Inputs) -> None:
    """Deletes a repository with its images."""
    project.images.pop(_address(project, inputs), None)


def _address(project: Project, inputs: Inputs) -> str:
    location = inputs.get("location") or project.region
    return f"{location}-docker.pkg.dev/{project.id}/{inputs['repositoryId']}"


def check_image(project: Project, image: str) -> None:
    """Checks that an image is in its repository. Images of other repositories aren't known here."""
    images = project.images.get(image.rpartition("/")[0])
    if images is not None and image not in images:
        raise NotFound(f"Error 400: Image {image!r} not found.")


def with_digest(inputs: Inputs, folder: Path) -> Outputs:
    """Adds a digest of all files but caches; the provider hashes Docker's build context."""
    context = folder / inputs["build"]["context"]
    digest = hashlib.sha256()
    for path in sorted(context.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(context)}\0".encode() + path.read_bytes())
    return {**inputs, "build": {**inputs["build"], "contextDigest": digest.hexdigest()}}


def push_by_docker(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    image = _push(project, inputs["imageName"], digest=inputs["build"]["contextDigest"])
    return image, {"repoDigest": image}


def same_image(key: str, old: Any, new: Any) -> bool:
    """`diffUpdates`, https://github.com/pulumi/pulumi-docker/blob/master/provider/provider.go"""
    return bool(old["server"] == new["server"] if key == "registry" else old == new)


def push_by_cloud_build(project: Project, name: str, inputs: Inputs) -> tuple[str, Outputs]:
    """Stands for a build by Google, which prints the image's name with its digest."""
    tagged = inputs["environment"]["IMAGE"]
    digest = hashlib.sha256(tagged.encode()).hexdigest()
    return f"{name}-{digest[:8]}", {"stdout": f"{_push(project, tagged, digest=digest)}\n"}


def _push(project: Project, tagged: str, *, digest: str) -> str:
    untagged = tagged.rpartition(":")[0]
    images = project.images.get(untagged.rpartition("/")[0])
    if images is None:
        raise NotFound(f"Error 404: name unknown: the repository of {tagged} was not found.")
    image = f"{untagged}@sha256:{digest}"
    images.add(image)
    return image
