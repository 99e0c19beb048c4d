"""Asks each address that the pages name, a few at a time, and says which don't answer.

    python tools/links.py [PAGE...]

Also what a page's links are and whether the ones to this repository lead anywhere, for its tests.
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

# The text may go over lines, and may be an image or code.
LINK = re.compile(r"\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\)[^()\s]*)*)>?(?:\s+\"[^\"]*\")?\s*\)")
FENCE = re.compile(r"^( *)(```+|~~~+).*?^ *\2[ \t]*$", re.M | re.S)


def pages(root: Path = ROOT) -> list[Path]:
    """Every page of the project's own."""
    found = []
    for folder, inner, files in os.walk(root):
        # Not into what is installed here, which is a hundred times as much.
        inner[:] = [name for name in inner if not NOT_OURS.fullmatch(name)]
        found += [Path(folder, name) for name in files if name.endswith(".md")]
    return sorted(found)


def links(markdown: str) -> list[str]:
    """What the page's links and images name, in turn."""
    return LINK.findall(_prose(markdown))


def anchors(markdown: str) -> set[str]:
    """The names that GitHub gives the headings: `## What it costs` is `what-it-costs`."""
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
    """The page's links that lead nowhere, as far as this repository knows."""
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
    """Each address once, without the part that no server is told."""
    named = {link.partition("#")[0] for page in found for link in links(page.read_text())}
    return sorted(link for link in named if link.startswith("https://"))


def answer(url: str) -> str:
    """Empty if it is there, else what came in its place."""
    trouble = ""
    # Some servers know no HEAD.
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
    """Without what is code, where brackets mean something else."""
    text = FENCE.sub("", markdown)
    # A link's text may itself be code: only the code's own characters go.
    return re.sub(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", "code", text, flags=re.S)


def main() -> int:
    """1 if an address does not answer."""
    urls = outside([Path(given) for given in sys.argv[1:]] or pages())
    with ThreadPoolExecutor(AT_A_TIME) as workers:
        troubles = dict(zip(urls, workers.map(answer, urls), strict=True))
    wrong = [f"{url}: {trouble}" for url, trouble in troubles.items() if trouble]
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    sys.stdout.write(f"{len(urls) - len(wrong)} of {len(urls)} addresses answer\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
