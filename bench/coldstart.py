"""Cold starts: from the process's start to its first authenticated response with database data.

The request is repeated every few milliseconds, from the other core; on every server it reads
experiment 0 from the database. Each server starts alone, on an existing schema. Then a search for
registered models, which only MLflow can answer, is sent once. "ours, first start" is a revision
that hasn't booted before, and so accepts requests only when MLflow is imported.

For a cold page cache, the files of the server's environment and of Python itself are dropped from
the cache first (posix_fadvise, which needs no privileges), as Cloud Run reads an image lazily.
mincore(2) tells how much is still cached: pages that other processes have mapped stay. Directory
entries stay cached too, so a start with nothing cached is slower still.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import ours, stock
from bench.ours import LARGER_DATABASE
from bench.process import BenchError, Server
from bench.report import ROOT, SERVER_PYTHON, at_least, at_most, publish, shown

WARM, COLD = "warm", "cold"
STILL_CACHED_SHARE = 0.05
"""If a larger share of an environment stays in the cache, the start isn't cold."""

SEARCH = "/api/2.0/mlflow/registered-models/search"

MIB = 1 << 20


@dataclass(frozen=True)
class _Start:
    """Seconds to the first response, its CPU seconds, and seconds to MLflow's first response."""

    seconds: float
    cpu: float
    mlflow: float


_Starts = dict[tuple[str, str], list[_Start]]


def measure(*, rounds: int) -> None:
    with ours.stack(LARGER_DATABASE) as stack:
        us = stack.server()
        first = stack.server("ours, first start", environment={"K_REVISION": ""})
        plain = stock.server(stack, auth=False, database=stack.new_database("stock"))
        auth = stock.server(stack, auth=True, database=stack.new_database("stock_auth"))
        servers = [us, first, plain, auth]
        environments = {us.name: _ours, first.name: _ours, plain.name: _stock, auth.name: _stock}
        os.sync()  # unwritten pages can't be dropped
        for server in servers:
            # Creates the server's schema, and loads its files into the cache.
            server.start()
            server.stop()
        starts: _Starts = defaultdict(list)
        left: dict[str, list[float]] = defaultdict(list)
        for turn in range(rounds):
            # A cold start of stock without users has no goal.
            for cache, started in ((WARM, servers), (COLD, [us, first, auth])):
                for server in started[:: -1 if turn % 2 else 1]:
                    if cache == COLD:
                        left[server.name].append(_cool(environments[server.name]()))
                    starts[server.name, cache].append(_start(server))
    _publish(starts, left)


def _start(server: Server) -> _Start:
    try:
        seconds, cpu, started = server.start(), server.cpu_seconds(), time.perf_counter()
        status, _ = server.call("GET", SEARCH)
        if status != 200:
            raise BenchError(f"{server.name}: status {status} for {SEARCH}")
        return _Start(seconds, cpu, seconds + time.perf_counter() - started)
    finally:
        server.stop()


def _ours() -> Iterator[Path]:
    yield from _files(SERVER_PYTHON.parent.parent)
    yield from _files(ROOT / "image" / "tracking_server")


def _stock() -> Iterator[Path]:
    yield from _files(stock.BIN.parent)


def _python() -> Iterator[Path]:
    """Returns the files of the interpreter and the standard library, without installed packages."""
    asked = (
        "import sys, sysconfig as s; print(s.get_path('stdlib'), sys._base_executable,"
        " s.get_config_var('LIBDIR') + '/' + s.get_config_var('LDLIBRARY'), sep=chr(10))"
    )
    answer = subprocess.check_output([SERVER_PYTHON, "-c", asked], text=True)
    library, *single = map(Path, answer.splitlines())
    yield from (path.resolve() for path in single if path.is_file())
    yield from _files(library, without="site-packages")


def _files(tree: Path, *, without: str = "") -> Iterator[Path]:
    for folder, folders, names in os.walk(tree):
        if without in folders:
            folders.remove(without)
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _evict(paths: Iterable[Path]) -> tuple[int, int]:
    """Drop files from the page cache. Returns their bytes, and the bytes that are still cached."""
    total = cached = 0
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if size := os.fstat(file.fileno()).st_size:
                total += size
                cached += _cached(file.fileno(), size)
    return total, cached


def _cool(environment: Iterable[Path]) -> float:
    """Drop an environment and Python. Returns the MiB of both that are still cached.

    Raises:
        BenchError: if much of the environment stays cached, because another process uses it.
    """
    total, cached = _evict(environment)
    if cached > total * STILL_CACHED_SHARE:
        raise BenchError(
            f"{cached / MIB:.0f} of {total / MIB:.0f} MiB stay in the page cache: other processes "
            "run from the same environment. End them and start again."
        )
    return (cached + _evict(_python())[1]) / MIB


_libc = ctypes.CDLL(None, use_errno=True)


def _cached(descriptor: int, size: int) -> int:
    """Returns the bytes of a file that are in the page cache."""
    with mmap.mmap(descriptor, size, mmap.MAP_PRIVATE) as mapped:
        pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        resident = (ctypes.c_ubyte * pages)()
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        if _libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), resident):
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(byte & 1 for byte in resident) * mmap.PAGESIZE


def _publish(starts: _Starts, left: dict[str, list[float]]) -> None:
    rows: list[dict[str, object]] = []
    ratios = {}
    for (server, cache), measured in starts.items():
        row: dict[str, object] = {
            "server": server,
            "page cache": cache,
            "seconds": shown([start.seconds for start in measured]),
            "CPU seconds": shown([start.cpu for start in measured]),
            "MLflow's first answer": shown([start.mlflow for start in measured]),
        }
        if server != "ours":
            pairs = zip(measured, starts["ours", cache], strict=True)
            ratios[server, cache] = [them.seconds / us.seconds for them, us in pairs]
            row["it / ours"] = shown(ratios[server, cache], digits=1, unit="×")
        if cache == COLD:
            row["MiB still cached"] = max(left[server])
        rows.append(row)
    goals = []
    for server, cache, factor in (
        ("stock basic-auth", WARM, 20),
        ("stock", WARM, 20),
        ("ours, first start", WARM, 4),
        ("stock basic-auth", COLD, 20),
        ("ours, first start", COLD, 4),
    ):
        goal = f"start to the first answer, {cache} page cache, against {server}"
        goals.append(at_least(factor, ratios[server, cache], goal=goal))
    for cache in (WARM, COLD):
        pairs = zip(starts["ours", cache], starts["ours, first start", cache], strict=True)
        goal = f"start to MLflow's first answer, {cache} page cache, against the first start"
        goals.append(at_most(1.1, [us.mlflow / first.mlflow for us, first in pairs], goal=goal))
    publish("coldstart", rows=rows, goals=goals)
