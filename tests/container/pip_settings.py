"""Makes this machine's pip settings available to a build, and to nothing after it."""

import ast
import os
import shutil
from pathlib import Path

from tests.container.tools import run

PASSED_ON = ("index-url", "extra-index-url", "trusted-host", "proxy")
# pip's default location, as root.
MOUNTED_AT = Path("/root/.config/pip")


def write(folder: Path, *, pip: Path) -> None:
    """Write a folder to be mounted at MOUNTED_AT while the image is built."""
    settings: dict[str, str] = {}
    listed = run(str(pip), "config", "list").splitlines()
    # An environment variable overrides a file.
    for line in sorted(listed, key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    lines = [f"{key} = {settings[key]}" for key in PASSED_ON if key in settings]
    authorities = settings.get("cert") or os.environ.get("SSL_CERT_FILE")
    if authorities:
        shutil.copyfile(authorities, folder / "authorities.pem")
        lines.append(f"cert = {MOUNTED_AT / 'authorities.pem'}")
    file = folder / "pip.conf"
    file.touch(mode=0o600)
    file.write_text("\n".join(["[global]", *lines, ""]))
