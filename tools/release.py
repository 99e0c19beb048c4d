"""Checks that a tag can be released, and prints its notes from CHANGELOG.md.

python -m tools.release v1.0.0
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from infra.facts import versions

ROOT = Path(__file__).parents[1]
RELEASED = re.compile(r"\d+\.\d+\.\d+(rc\d+)?")


class ReleaseError(Exception):
    """The tag can't be released; the message says what to change."""


def notes(tag: str, *, version: str, mlflow: str, changelog: str) -> str:
    """Returns the changelog's section of a release.

    Raises:
        ReleaseError: if the tag, the version and the changelog don't agree.
    """
    if not RELEASED.fullmatch(version):
        raise ReleaseError(
            f"pyproject.toml has the version {version}, which isn't a release's: remove the part "
            "after 1.2.3 or 1.2.3rc1, run `make docs`, and tag that commit"
        )
    if tag != f"v{version}":
        raise ReleaseError(
            f"the tag is {tag or 'empty'}, but pyproject.toml has the version {version}: tag the "
            f"commit v{version}, or change the version and run `make docs`"
        )
    sections = re.split(r"^## ", changelog, flags=re.M)[1:]
    found = [body for body in sections if re.match(rf"{re.escape(version)}( - |\n)", body)]
    if not found:
        raise ReleaseError(
            f"CHANGELOG.md has no section for {version}: write it under a heading such as "
            f"`## {version} - 2026-12-31`"
        )
    text = found[0].partition("\n")[2].strip()
    if not text.startswith(f"MLflow {mlflow}."):
        raise ReleaseError(
            f"the section {version} of CHANGELOG.md must start with the MLflow version that "
            f"image/requirements.txt has: `MLflow {mlflow}.`"
        )
    return text


def with_absolute_links(text: str, folder: str) -> str:
    """Returns Markdown whose relative links start with this address.

    GitHub resolves links in a release's notes relative to the release's page.
    """
    return re.sub(r"\]\((?!https?://|#|mailto:)", f"]({folder}/", text)


def main(tag: str) -> int:
    """Print the notes. Returns 1 if the tag can't be released."""
    image = ROOT / "image"
    try:
        text = notes(
            tag,
            version=versions.project(image),
            mlflow=versions.mlflow(image),
            changelog=(ROOT / "CHANGELOG.md").read_text(),
        )
    except ReleaseError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    # GitHub sets these for each step of a workflow.
    server, repository = (os.environ.get(f"GITHUB_{key}") for key in ("SERVER_URL", "REPOSITORY"))
    if server and repository:
        text = with_absolute_links(text, f"{server}/{repository}/blob/{tag}")
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
