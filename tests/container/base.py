"""The build context of `base/Dockerfile`, from Debian's mirror and this machine's Python."""

import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from tests.container.tools import missing, run

DOCKERFILE = Path(__file__).parent / "base" / "Dockerfile"
# The libraries of the official image, and those that its Python is linked to.
PACKAGES = (
    *("ca-certificates", "netbase", "tzdata", "libbz2-1.0", "libffi8", "liblzma5"),
    *("libncursesw6", "libreadline8", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g"),
)
# As in Docker's slim variant.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
# This machine's mirror; without the file, Debian's own.
APT_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


def check(name: str) -> None:
    """Check that this machine's Python runs on the Debian that the image's name says."""
    release, stdlib = platform.freedesktop_os_release(), Path(sysconfig.get_path("stdlib"))
    _, _, tag = name.partition(":")
    version, _, suite = tag.partition("-slim-")
    if (release.get("VERSION_CODENAME"), platform.machine()) != (suite, "x86_64"):
        missing(f"standing in for {name} requires Debian {suite} on x86-64: run Docker instead")
    if version.split(".")[:2] != platform.python_version().split(".")[:2]:
        missing(f"standing in for {name} requires Python {version}: make PYTHON=… of that version")
    # Debian's own Python is spread over /usr and keeps its packages elsewhere.
    if not stdlib.is_relative_to(sys.base_prefix) or (stdlib / "_distutils_system_mod.py").exists():
        missing(f"standing in for {name} requires a Python other than Debian's, such as pyenv's")


def write_context(folder: Path, *, name: str) -> None:
    suite = name.rpartition("-")[2]
    run(
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        # mmdebstrap reads these from the machine, Docker reads them from the run.
        '--customize-hook=rm "$1/etc/resolv.conf" "$1/etc/hostname"',
        *(suite, str(folder / "debian.tar")),
        *(str(source) for source in (APT_SOURCES,) if source.exists()),
    )
    _copy_python(folder / "usr-local")


def _copy_python(target: Path) -> None:
    version = "python{}.{}".format(*sys.version_info)
    (target / "bin").mkdir(parents=True)
    shutil.copyfile(os.path.realpath(sys.executable), target / "bin" / version)
    (target / "bin" / version).chmod(0o755)
    (target / "bin" / "python3").symlink_to(version)
    (target / "bin" / "python").symlink_to("python3")
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        target / "lib" / version,
        ignore=shutil.ignore_patterns(
            "site-packages", "__pycache__", "test", "tests", "idle_test", "libpython*.a"
        ),
    )
    for library in Path(sys.base_prefix, "lib").glob("libpython3*.so*"):
        shutil.copyfile(library, target / "lib" / library.name)
