"""Finds the static files of MLflow's page, without importing MLflow.

The image has each of them compressed, and most of them only compressed (`compress_page.py`). On a
developer's computer they are as MLflow ships them.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path, PurePath

from tracking_server.page.accept_encoding import IDENTITY

SUFFIXES = {".br": "br", ".gz": "gzip"}
"""The content codings of compressed files, the smallest first."""

_MEDIA_TYPES = {
    ".cjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".eot": "application/vnd.ms-fontobject",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml; charset=utf-8",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
"""A fixed list, because the types that Python guesses depend on its version and on the system."""

# webpack puts a hash of the content into the name.
_CONTENT_HASH = re.compile(r"[.-]([0-9a-f]{8,32})\.")


@dataclass(frozen=True, slots=True)
class PageFile:
    """`stored` has a path for each content coding that is stored, the smallest first."""

    media_type: str
    version: str
    is_immutable: bool
    stored: Mapping[str, Path]


def build_folder() -> Path:
    """Returns the folder with the files of MLflow's page."""
    package = find_spec("mlflow")
    assert package is not None and package.submodule_search_locations  # noqa: S101, PT018
    return Path(package.submodule_search_locations[0], "server", "js", "build")


def page_files(folder: Path) -> dict[str, PageFile]:
    """Returns the files below a folder by their paths in it, such as `static/js/main.c2f5.js`."""
    stored: dict[str, dict[str, Path]] = {}
    for path in _files(folder):
        coding = SUFFIXES.get(path.suffix, IDENTITY)
        served = path if coding == IDENTITY else path.with_suffix("")
        stored.setdefault(served.relative_to(folder).as_posix(), {})[coding] = path
    return {name: _page_file(name, codings) for name, codings in stored.items()}


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def _page_file(name: str, stored: Mapping[str, Path]) -> PageFile:
    path = PurePath(name)
    content_hash = _CONTENT_HASH.search(path.name)
    order = [coding for coding in (*SUFFIXES.values(), IDENTITY) if coding in stored]
    return PageFile(
        media_type=_MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        # Not the time of the file: builders round it, and give all files the same one.
        version=content_hash[1] if content_hash else _digest(stored[order[-1]]),
        is_immutable=content_hash is not None,
        stored={coding: stored[coding] for coding in order},
    )


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:16]
