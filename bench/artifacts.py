"""Artifacts of 1 GiB and 8 GiB, up and down, on every path to the bucket.

`curl, bucket`: curl straight to the bucket's XML API, with a token; the other paths are compared
with it. `curl, HTTP/1.1` and `curl, h2c`: through our server, as a stream. `client, signed`: an
unmodified MLflow client of a proxied experiment, which gets signed addresses for large files from
our server and sends them to the bucket in parts. `client, direct`: the same client with an artifact
location in the bucket, using Google's library and its own credentials.

Our server has a core to itself; the bucket, which hashes what it stores, and curl or the client
share the others. Seconds are curl's own, or the client's without its start. Every object in the
bucket and every download is compared by its CRC32C. curl's downloads are hashed as they arrive; the
client's are written to a file. While an upload over h2c has to wait, curl 7 polls without a pause,
1.6 million times for 1 GiB, on the bucket's core. The table has its CPU, and `h2load, h2c` is the
same upload with a client that doesn't poll.

Memory is the kernel's peak of the server's resident memory during a transfer, minus its resident
memory after the first request. The kernel also counts the written bytes, so that temporary files
are noticed even if they are unlinked at once.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from bench import files, ours
from bench.files import GIB, H2C, HTTP1, Content, File
from bench.ours import Stack
from bench.process import BenchError, Server, require
from bench.report import ROOT, Goal, at_most, publish, shown
from bench.traffic import post

SIZE, LARGE = GIB, 8 * GIB
ABOVE_IDLE = 64
"""MiB."""
ITS_LOG = 1
"""MiB that the server may write: only its log."""
NAME = "file.bin"
UP, DOWN = "up", "down"
BUCKET, OVER_HTTP1, OVER_H2C = "curl, bucket", "curl, HTTP/1.1", "curl, h2c"
H2LOAD = "h2load, h2c"
SIGNED, DIRECT = "client, signed", "client, direct"
PROXIED = {OVER_HTTP1: HTTP1, OVER_H2C: H2C}
_CLIENT = ROOT / ".venvs" / "client" / "bin" / "python"
_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class _Transfer:
    """`cpu` is the server's in seconds; `above` and `written` are its MiB."""

    seconds: float
    cpu: float
    client_cpu: float
    above: float
    written: float


@dataclass(frozen=True)
class _Key:
    gib: int
    way: str
    direction: str


_Transfers = dict[_Key, list[_Transfer]]


def measure(*, rounds: int) -> None:
    files.check_curl()
    require("h2load", package="nghttp2-client", formula="nghttp2")
    with ours.stack() as stack:
        temporary = stack.folder / "tmp"
        temporary.mkdir()
        us = stack.server(environment={"TMPDIR": str(temporary)})
        untouched = temporary.stat().st_mtime_ns
        try:
            us.start()
            us.settle()
            ways = Ways(stack, us)
            transfers: _Transfers = defaultdict(list)
            file = files.make(stack.folder / NAME, SIZE)
            for turn in range(rounds):
                # The client's speed has no goal.
                which = [BUCKET, *PROXIED, H2LOAD, *((SIGNED, DIRECT) if turn == 0 else ())]
                for way in which[:: -1 if turn % 2 else 1]:
                    _there_and_back(ways, way, file, transfers)
            file.path.unlink()
            file = files.make(stack.folder / NAME, LARGE)
            _there_and_back(ways, SIGNED, file, transfers)
        finally:
            us.stop()
        touched = temporary.stat().st_mtime_ns != untouched
    _publish(transfers, idle=ways.idle, touched=touched)


class Ways:
    """Measure every way up and down, on one server."""

    def __init__(self, stack: Stack, server: Server) -> None:
        self._stack, self._server = stack, server
        self.idle = server.memory("Rss")
        developer = stack.cloud.project.client_environment()
        logged_in = ("tracking_username", "tracking_password")
        self._client_environment = {
            "PATH": os.defpath,
            "HOME": str(stack.folder),
            "MLFLOW_TRACKING_URI": server.address,
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            **{f"MLFLOW_{name.upper()}": str(stack.outputs[name]) for name in logged_in},
            **developer,
        }
        location = f"gs://{stack.bucket}/direct"
        experiments: dict[str, Mapping[str, str]] = {
            SIGNED: {"name": "signed"},
            DIRECT: {"name": "direct", "artifact_location": location},
        }
        self._runs = {way: self._run(**how) for way, how in experiments.items()}

    def _run(self, **experiment: str) -> str:
        made = post(self._server, "/experiments/create", **experiment)
        run = post(self._server, "/runs/create", experiment_id=made["experiment_id"])
        return str(run["run"]["info"]["run_id"])

    def measured(self, action: Callable[[], float]) -> _Transfer:
        self._server.forget_peak()
        cpu, written = self._server.cpu_seconds(), self._server.written()
        client = _children()
        seconds = action()
        self._server.settle()
        return _Transfer(
            seconds=seconds,
            cpu=self._server.cpu_seconds() - cpu,
            client_cpu=_children() - client,
            above=self._server.peak() - self.idle,
            written=self._server.written() - written,
        )

    def up(self, way: str, file: File) -> float:
        if way in self._runs:
            return self._client(UP, self._runs[way], str(file.path))
        if way == H2LOAD:
            return files.h2load(files.through(self._server, NAME, protocol=files.H2C), file)
        return self._curl(way, upload=file)[0]

    def down(self, way: str, file: File) -> float:
        if way in self._runs:
            folder = self._stack.folder / "downloads"
            folder.mkdir()
            seconds = self._client(DOWN, self._runs[way], NAME, str(folder))
            with (folder / NAME).open("rb") as copy:
                content = files.read(copy)
            shutil.rmtree(folder)
        else:
            seconds, content = self._curl(way)
        if content != file.content:
            raise BenchError(f"{way}: uploaded {file.content}, downloaded {content}.")
        return seconds

    def check_and_delete(self, way: str, file: File) -> None:
        """Check the only object in the bucket, and delete it."""
        [(name, content)] = files.stored(self._stack).items()
        if content != file.content:
            raise BenchError(f"{way}: sent {file.content}, stored {content}.")
        files.delete(self._stack, name)

    def _curl(self, way: str, *, upload: File | None = None) -> tuple[float, Content]:
        """Returns the seconds, and the content of the response."""
        if way == BUCKET:
            endpoint = files.straight(self._stack, NAME)
        else:
            endpoint = files.through(self._server, NAME, protocol=PROXIED[way])
        done = files.curl(endpoint, upload=upload)
        if done.code:
            raise BenchError(f"{way}: {done.said}")
        return done.seconds, done.content

    def _client(self, *arguments: str) -> float:
        # -P: don't import the modules next to the script.
        command = [str(_CLIENT), "-P", str(ROOT / "bench" / "client.py"), *arguments]
        ran = subprocess.run(
            command,
            check=False,
            env=self._client_environment,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
        if ran.returncode:
            raise BenchError(f"MLflow's client failed: {ran.stderr[-2000:]}")
        return float(ran.stdout.splitlines()[-1])


def _children() -> float:
    """Returns the CPU seconds of child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _there_and_back(ways: Ways, way: str, file: File, transfers: _Transfers) -> None:
    gib = file.content.size // GIB
    transfers[_Key(gib, way, UP)].append(ways.measured(lambda: ways.up(way, file)))
    if way != H2LOAD:  # which doesn't keep responses
        transfers[_Key(gib, way, DOWN)].append(ways.measured(lambda: ways.down(way, file)))
    ways.check_and_delete(way, file)


def _publish(transfers: _Transfers, *, idle: float, touched: bool) -> None:
    rows: list[dict[str, object]] = []
    ratios: dict[tuple[str, str], list[float]] = {}
    for key, measured in transfers.items():
        seconds = [one.seconds for one in measured]
        row: dict[str, object] = {
            "GiB": key.gib,
            "way": key.way,
            "direction": key.direction,
            "seconds": shown(seconds),
            "MiB/s": key.gib * 1024 / median(seconds),
        }
        if key.gib * GIB == SIZE and key.way != BUCKET:
            straight = transfers[_Key(key.gib, BUCKET, key.direction)]
            # The client's paths are measured in the first round only.
            pairs = zip(measured, straight, strict=False)
            ratio = [one.seconds / other.seconds for one, other in pairs]
            ratios[key.way, key.direction] = ratio
            row["by curl, bucket"] = shown(ratio, unit="×")
        row["client CPU s"] = median(one.client_cpu for one in measured)
        if key.way != BUCKET:
            row["server CPU s"] = median(one.cpu for one in measured)
            row["MiB above idle"] = max(one.above for one in measured)
            row["MiB written"] = max(one.written for one in measured)
        rows.append(row)
    publish("artifacts", rows=rows, goals=_goals(transfers, ratios, idle=idle, touched=touched))


def _goals(
    transfers: _Transfers,
    ratios: dict[tuple[str, str], list[float]],
    *,
    idle: float,
    touched: bool,
) -> list[Goal]:
    goals = [
        at_most(
            1.3,
            ratios[way, direction],
            goal=f"1 GiB proxied {direction}, {way}, against curl straight to the bucket",
            digits=2,
        )
        # Up over h2c is compared with HTTP/1.1 below.
        for way, direction in ((OVER_HTTP1, UP), (OVER_HTTP1, DOWN), (OVER_H2C, DOWN))
    ]
    pairs = zip(transfers[_Key(1, H2LOAD, UP)], transfers[_Key(1, OVER_HTTP1, UP)], strict=True)
    h2c = [one.seconds / other.seconds for one, other in pairs]
    through = [one for key, all_ in transfers.items() if key.way != BUCKET for one in all_]
    most, written = max(one.above for one in through), max(one.written for one in through)
    large = [transfers[_Key(LARGE // GIB, SIGNED, direction)][0] for direction in (UP, DOWN)]
    return [
        *goals,
        at_most(1.5, h2c, goal="1 GiB up over h2c (h2load) against HTTP/1.1 (curl)", digits=2),
        Goal(
            goal="the server's memory above idle, in any transfer",
            wanted=f"≤ {ABOVE_IDLE} MiB",
            measured=f"{most:.0f} MiB above {idle:.0f}",
            met=most <= ABOVE_IDLE,
        ),
        Goal(
            goal="written to files by the server, in any transfer",
            wanted="nothing in /tmp",
            measured=f"{'something' if touched else 'nothing'} there, {written:.2f} MiB of log",
            met=not touched and written <= ITS_LOG,
        ),
        Goal(
            goal="8 GiB by an unmodified client, up and down",
            wanted="equal checksums",
            # Different checksums end the part before this.
            measured="equal, in " + " and ".join(f"{one.seconds:.0f} s" for one in large),
            met=True,
        ),
    ]
