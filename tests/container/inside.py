"""Run by the image's Python in a container: prints what the tests need to know as JSON."""

import importlib.util
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

OTHER_FILE_SYSTEMS = ("/proc", "/sys", "/dev")
TOOLS = ("gcc", "cc", "c++", "make", "ld", "as", "pip", "pip3", "uv", "git", "curl", "wget")
SHELLS = ("sh", "bash", "dash", "ash", "zsh", "busybox")
BUILD_MODULES = ("pip", "setuptools", "wheel", "ensurepip", "pkg_resources")


def folders() -> Iterator[tuple[str, list[str]]]:
    for folder, inner, files in os.walk("/"):
        inner[:] = [name for name in inner if os.path.join(folder, name) not in OTHER_FILE_SYSTEMS]
        yield folder, files


def without_pyc(root: Path) -> list[str]:
    """Returns modules without a .pyc of exactly this source that Python uses whatever the times."""
    stale = []
    for source in root.rglob("*.py"):
        cached = Path(importlib.util.cache_from_source(str(source)))
        unchecked = (1).to_bytes(4, "little")
        hashed = importlib.util.source_hash(source.read_bytes())
        wanted = importlib.util.MAGIC_NUMBER + unchecked + hashed
        if not cached.exists() or cached.read_bytes()[:16] != wanted:
            stale.append(str(source))
    return stale


def main() -> None:
    everything = list(folders())
    sizes = {
        name: sum(
            os.lstat(os.path.join(folder, file)).st_blocks * 512
            for folder, files in everything
            if folder == root or folder.startswith(root.rstrip("/") + "/")
            for file in files
        )
        for name, root in (("all", "/"), ("server", "/opt/server"))
    }
    print(
        json.dumps(
            {
                "version": sys.version_info[:3],
                "writable": [folder for folder, _ in everything if os.access(folder, os.W_OK)],
                "owned": [
                    os.path.join(folder, file)
                    for folder, files in everything
                    for file in files
                    if os.lstat(os.path.join(folder, file)).st_uid == os.getuid()
                ],
                "tools": [tool for tool in (*TOOLS, *SHELLS) if shutil.which(tool)],
                "modules": [name for name in BUILD_MODULES if importlib.util.find_spec(name)],
                "packages_without_pyc": without_pyc(Path(sysconfig.get_path("purelib"))),
                "stdlib_without_pyc": without_pyc(Path(sysconfig.get_path("stdlib"))),
                "left_of_the_build": [
                    os.path.join(folder, file)
                    for folder, files in everything
                    for file in files
                    if file in ("pip.conf", "authorities.pem", "requirements.txt")
                    or file.endswith(".whl")
                ],
                "sizes": sizes,
            }
        )
    )


main()
