"""wrk: one kind of request at a time; each response is checked (`wrk/load.lua`)."""

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
    """`@ID@` in path and body is one of `ids`, `@NUMBER16DIGITS@` in the body differs each time."""

    name: str
    method: str
    path: str
    # A text in the body of every correct response.
    expected: str
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class Load:
    """The result of a load; times in ms, `cpu` the servers' own for each request.

    The rate follows from Little's law: all connections are always busy, so it is their number
    divided by the mean latency. A count would omit the requests in progress at the end, which are a
    large part of all requests to a slow server.
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

    If a server is `busy` with other work too, the end doesn't wait for it.

    Raises:
        BenchError: if a response is wrong or missing, unless `may_fail`.
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
                # wrk's own durations are whole seconds.
                wrk.send_signal(signal.SIGINT)
                printed, _ = wrk.communicate(timeout=2 * _TIMEOUT_SECONDS)
            except BaseException:
                wrk.kill()  # the end of the block waits for it
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
        # The server is slower than expected.
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
            f"{wrong} were wrong and {missing} are missing. The first wrong one: {said}"
        )
    return Load(
        requests=int(count),
        wrong=failed,
        said=said,
        rate=connections / (int(mean) / 1e6),
        p50=int(p50) / 1000,
        p99=int(p99) / 1000,
        # The servers also worked on the requests in progress at the end.
        cpu=spent / (int(count) + connections) * 1000,
    )
