"""Replaces files of MLflow's page by compressed ones, while the image is built.

    python compress_page.py FOLDER

`tracking_server/page` serves them. For clients that accept no compression it decompresses them.
"""

import gzip
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import brotli

SMALLEST = 1024
"""Bytes; a smaller file fits into one packet, and MLflow reads some of them itself."""

COMPRESSIBLE = {
    ".cjs", ".css", ".eot", ".html", ".js", ".json", ".mjs", ".svg", ".ttf", ".txt"
}  # fmt: skip

QUALITY = 10
"""The highest quality, 11, takes twice as long for files that are 1.5 % smaller."""


def compress(path: Path) -> None:
    content = path.read_bytes()
    path.with_name(path.name + ".br").write_bytes(brotli.compress(content, quality=QUALITY))
    # Without the time, so that builds are reproducible.
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 9, mtime=0))
    path.unlink()


def to_compress(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix in COMPRESSIBLE and path.stat().st_size >= SMALLEST:
            yield path


def main() -> None:
    folder = Path(sys.argv[1])
    if not (folder / "index.html").exists():
        sys.exit(f"error: {folder} has no index.html, so it isn't the folder of MLflow's page")
    largest_first = sorted(to_compress(folder), key=lambda path: -path.stat().st_size)
    # Both compressors release the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compress, largest_first))


if __name__ == "__main__":
    main()
