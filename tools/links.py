"""Requests each address that the pages link to, a few at a time, and lists those that fail.

    python tools/links.py [PAGE...]

The tests also use this module, to find a page's links and to check those inside the repository.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
NOT_OURS = re.compile(r"\.(?!github$).*|node_modules|dist|build")
AT_A_TIME = 4
SECONDS = 20

# A link's text may span lines, and may be an image or code.
LINK = re.compile(r"\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\)[^()\s]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
FENCE = re.compile(r"^( *)(```+|~~~+).*?^ *\2[ \t]*$", re.M | re.S)


def pages(root: Path = ROOT) -> list[Path]:
    """Returns every page of this project."""
    found = []
    for folder, inner, files in os.walk(root):
        # Skip installed packages, which have a hundred times as many files.
        inner[:] = [name for name in inner if not NOT_OURS.fullmatch(name)]
        found += [Path(folder, name) for name in files if name.endswith(".md")]
    return sorted(found)


def links(markdown: str) -> list[str]:
    """Returns the targets of the page's links and images, in order."""
    return LINK.findall(_prose(markdown))


def anchors(markdown: str) -> set[str]:
    """Returns the anchors that GitHub gives headings: `## A heading` -> `a-heading`."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", markdown), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = (c for c in text if c in "-_ " or unicodedata.category(c)[0] in "LN")
        name = slug = "".join(kept).replace(" ", "-")
        count = 0
        while name in found:
            count += 1
            name = f"{slug}-{count}"
        found.add(name)
    return found


def broken(page: Path, root: Path = ROOT) -> Iterator[str]:
    """Yields the page's broken links to files and headings in this repository."""
    for link in links(page.read_text()):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if parts.scheme != "https":
                yield f"{link}: not https"
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        if not target.is_relative_to(root) or not target.exists():
            yield f"{link}: no such file"
        elif parts.fragment and (
            target.suffix != ".md" or parts.fragment not in anchors(target.read_text())
        ):
            yield f"{link}: no such heading"


def outside(found: Iterable[Path]) -> list[str]:
    """Returns each external address once, without its fragment, which servers never get."""
    named = {link.partition("#")[0] for page in found for link in links(page.read_text())}
    return sorted(link for link in named if link.startswith("https://"))


def answer(url: str) -> str:
    """Returns an empty text if the address exists, or else the problem."""
    trouble = ""
    # Some servers don't support HEAD.
    for method in ("HEAD", "GET"):
        request = Request(url, method=method, headers={"User-Agent": "mlflow-gcp-links"})  # noqa: S310
        try:
            with urlopen(request, timeout=SECONDS):  # noqa: S310
                return ""
        except HTTPError as error:
            trouble = f"{error.code} {error.reason}"
        except (URLError, OSError) as error:
            trouble = str(getattr(error, "reason", error))
    return trouble


def _prose(markdown: str) -> str:
    """Removes code, because its brackets mean something else."""
    text = FENCE.sub("", markdown)
    # A link's text may be code, so only the code itself is replaced.
    return re.sub(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", "code", text, flags=re.S)


def main() -> int:
    """Returns 1 if an address doesn't respond."""
    urls = outside([Path(given) for given in sys.argv[1:]] or pages())
    with ThreadPoolExecutor(AT_A_TIME) as workers:
        troubles = dict(zip(urls, workers.map(answer, urls), strict=True))
    wrong = [f"{url}: {trouble}" for url, trouble in troubles.items() if trouble]
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    sys.stdout.write(f"{len(urls) - len(wrong)} of {len(urls)} addresses answer\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
