"""wrk: one kind of request at a time, each answer checked (`wrk/load.lua`)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

from bench.process import BenchError, Server, require

_SCRIPT = Path(__file__).parent / "wrk" / "load.lua"
_RESULT = re.compile(r"^RESULT (.*)$", re.MULTILINE)
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Request:
    """`@ID@` in path and body is one of `ids`, `@NUMBER16DIGITS@` in the body never the same."""

    name: str
    method: str
    path: str
    # A piece of every right answer's body.
    expected: str
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class Load:
    """What a load came to; times in ms, `cpu` the servers' own for each request.

    The rate is by Little's law: all connections are busy all the time, so it is their number by
    the mean latency. A count would leave out those under way at the end, which of a slow server
    are a good part of all.
    """

    requests: int
    wrong: int
    said: str
    rate: float
    p50: float
    p99: float
    cpu: float


def run(
    server: Server,
    request: Request,
    *,
    connections: int,
    seconds: float,
    also: Sequence[Server] = (),
    may_fail: bool = False,
    busy: bool = False,
) -> Load:
    """Keep so many connections busy for so long; `also` are further servers, one thread each.

    A server that is `busy` with something else too is not waited for at the end.

    Raises:
        BenchError: if an answer is wrong or missing, unless it may.
    """
    servers = [server, *also]
    headers = {"Connection": "keep-alive", **server.headers, **request.headers}
    with NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        command = [
            *(
                require("wrk", package="wrk", formula="wrk"),
                "--threads",
                str(len(servers)),
                "--connections",
                str(connections),
            ),
            *("--duration", "10m", "--timeout", f"{_TIMEOUT_SECONDS}s"),
            *("--script", str(_SCRIPT), server.address, "--"),
            *(request.method, request.path, str(request.status), request.expected),
            *(str(time.time_ns() // 1000), body.name if request.body else ""),
            *(f"{name}: {value}" for name, value in headers.items()),
            *("--", *request.ids),
        ]
        before = sum(one.cpu_seconds() for one in servers)
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PORTS": " ".join(str(one.port) for one in servers)},
        ) as wrk:
            try:
                time.sleep(seconds)
                # Its own durations are whole seconds.
                wrk.send_signal(signal.SIGINT)
                printed, _ = wrk.communicate(timeout=2 * _TIMEOUT_SECONDS)
            except BaseException:
                wrk.kill()  # the block's end waits for it
                raise
    for one in () if busy else servers:
        one.settle()
    spent = sum(one.cpu_seconds() for one in servers) - before
    result = _RESULT.search(printed)
    if result is None:
        raise BenchError(f"wrk failed: {printed}")
    count, mean, p50, p99, wrong, missing, said = result[1].split(" ", 6)
    failed = int(wrong) + int(missing)
    if not int(count) and not failed and seconds < _TIMEOUT_SECONDS:
        # Slower than was thought.
        return run(
            server,
            request,
            connections=connections,
            seconds=4 * seconds,
            also=also,
            may_fail=may_fail,
            busy=busy,
        )
    if not int(count) or (failed and not may_fail):
        raise BenchError(
            f"{server.name}, {request.name}, {connections} connections: of {count} answers "
            f"{wrong} were wrong and {missing} did not come. The first wrong one: {said}"
        )
    return Load(
        requests=int(count),
        wrong=failed,
        said=said,
        rate=connections / (int(mean) / 1e6),
        p50=int(p50) / 1000,
        p99=int(p99) / 1000,
        # Those under way at the end were worked on too.
        cpu=spent / (int(count) + connections) * 1000,
    )
