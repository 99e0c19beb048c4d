"""Lists the licence of each locked package, and fails on one that Apache-2.0 can't be shipped with.

    python tools/licences.py LOCK SITE-PACKAGES [LOCK SITE-PACKAGES ...]

Packages that the lock has for other platforms only aren't installed, and are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

ALLOWED = re.compile(
    r"apache([- ]2\.0| software license)|0bsd|(3-clause )?bsd( license|[- ][23]-clause( license)?)?"
    r"|mit(-0)?( license)?|isc|zlib|cc0-1\.0|psf-2\.0|python software foundation license|"
    r"mpl-2\.0|mozilla public license 2\.0 \(mpl 2\.0\)",
    re.IGNORECASE,
)
"""Apache's own categories A and B, the latter for packages that are shipped unchanged:
https://www.apache.org/legal/resolved.html"""


def licence(found: Distribution) -> str:
    """Returns the licence that a package states, empty if it states none."""
    for expression in found.metadata.get_all("License-Expression") or ():
        return str(expression)
    classifiers = [
        name.rpartition(" :: ")[2]
        for name in found.metadata.get_all("Classifier") or ()
        if name.startswith("License :: ") and name != "License :: OSI Approved"
    ]
    if classifiers:
        return " AND ".join(classifiers)  # the stricter reading
    text = "".join(found.metadata.get_all("License") or ())
    return text.strip().partition("\n")[0].strip()


def is_allowed(stated: str) -> bool:
    """Returns whether one alternative consists of allowed licences only."""
    return all(
        any(ALLOWED.fullmatch(one.strip()) for one in re.split(r"\s+OR\s+", part))
        for part in re.split(r"\s+AND\s+", stated)
    )


def installed(lock: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each package of a lock that is installed, with its version, and its licence."""
    locked = {_plain(name) for name in re.findall(r"^([\w.-]+)==", lock.read_text(), re.M)}
    for found in sorted(distributions(path=[str(folder)]), key=lambda one: one.name.lower()):
        if _plain(found.name) in locked:
            yield f"{found.name} {found.version}", licence(found)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str]) -> int:
    """Print the list. Returns 1 if a package's licence isn't allowed, or if none was found."""
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    listed = [row for lock, folder in pairs for row in installed(Path(lock), Path(folder))]
    sys.stdout.writelines(f"{package}: {stated or 'none stated'}\n" for package, stated in listed)
    refused = [
        f"{package} ({stated or 'none stated'})"
        for package, stated in listed
        if not is_allowed(stated)
    ]
    if refused:
        sys.stderr.write(
            f"error: the licence of {', '.join(refused)} isn't known to allow shipping with "
            "Apache-2.0: use another package, or add the licence to ALLOWED in tools/licences.py "
            "after reading its terms\n"
        )
    if not listed:
        sys.stderr.write("error: no locked package is installed: run make install-local\n")
    return int(bool(refused) or not listed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
