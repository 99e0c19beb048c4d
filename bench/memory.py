"""Memory: idle, under 10,000 mixed requests, and in a container's 512 MiB with large artifacts.

The requests are those for the page, runs, metrics, traces, small artifacts, searches and the
registry, one of each kind in turn, over eight connections; each response is checked. After every
500 requests, the server gets a pause and its resident memory is read. Its growth over the last half
is that of the best-fitting straight line.

Then the server runs in a memory cgroup of 512 MiB without swap, a child of this process's own
cgroup, with as many requests at a time as Cloud Run allows. First, artifacts of 1 GiB are uploaded
and downloaded while the other connections send all other requests. At last, all requests are for
artifacts of 1 GiB, which the clients abandon after a while. Where such a cgroup can't be created,
the peak is still read.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

from bench import files, load, ours, stock, traffic
from bench.files import GIB, H2C, HTTP1, MIB, OUT_OF_TIME, Content, File
from bench.load import Request
from bench.ours import COMMAND, LARGER_DATABASE, Stack
from bench.process import BenchError, Server
from bench.report import Goal, publish
from bench.traffic import API, Seed

REQUESTS, EACH, SHOWN, CONNECTIONS = 10_000, 500, 2_500, 8
RESIDENT = 220
"""MiB after all requests."""
FLAT = 0.02
"""The largest allowed growth in the last half, as a share."""
LIMIT = 512
AT_A_TIME = 80
"""The default of the setting `concurrency`."""
TRANSFERS = 2
"""Transfers of 1 GiB in each direction while other requests are sent."""
SECONDS, GIVEN_UP_AFTER = 1.0, 10
SMALL = 64 * 1024
LARGE = "large.bin"
_V1 = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class _Sample:
    requests: int
    rss: float
    pss: float


@dataclass(frozen=True)
class _Full:
    """The results of a load; `peak` is MiB resident."""

    limited: bool
    peak: float
    transfers: int
    requests: int
    wrong: int
    said: str
    given_up: int


def measure(*, rounds: int) -> None:
    """Measure once, however many rounds: the goals are absolute values, not ratios."""
    files.check_curl()
    # The bucket's messages about abandoned transfers.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    with ours.stack(LARGER_DATABASE) as stack:
        us = stack.server()
        try:
            us.start()
            us.settle()
            idle = us.memory("Rss"), us.memory()
            seed = traffic.seed(us)
            samples = _samples(us, _mix(us, seed))
        finally:
            us.stop()
        full = _full(stack, seed)
        theirs = _stock(stack)
    _publish(idle, samples, full, theirs)


# 10,000 requests


def _mix(server: Server, seed: Seed) -> list[Request]:
    """Returns one request of each kind. Requests that read come after those that write the data."""
    json_type = {"Content-Type": "application/json"}
    artifacts = "/api/2.0/mlflow-artifacts/artifacts"
    small = f"{artifacts}/small/@ID@.bin"
    _, page = server.call("GET", "/")
    script = re.search(rb'src="(?:\./)?(static-files/[^"]+\.js)"', page)
    assert script, page[:500]

    def post(name: str, path: str, expected: str, /, **fields: object) -> Request:
        body = json.dumps(fields).encode()
        return Request(name, "POST", path, expected, body, headers=json_type, ids=seed.runs)

    def get(name: str, path: str, expected: str) -> Request:
        return Request(name, "GET", path, expected, ids=seed.runs)

    location = {
        "type": "MLFLOW_EXPERIMENT",
        "mlflow_experiment": {"experiment_id": seed.experiment},
    }
    return [
        *traffic.requests(seed),
        get("page", "/", "<title>MLflow</title>"),
        get("its script", f"/{script[1].decode()}", "function"),
        get("history", f"{API}/metrics/get-history?run_id=@ID@&metric_key=metric%201", '"step": 4'),
        post("experiments", f"{API}/experiments/search", '"name": "bench"', max_results=10),
        post(
            "traces/search",
            "/api/3.0/mlflow/traces/search",
            '"trace_id"',
            locations=[location],
            max_results=10,
        ),
        post("runs/create", f"{API}/runs/create", '"run_id"', experiment_id=seed.experiment),
        post(
            "models/create",
            f"{API}/registered-models/create",
            '"creation_timestamp"',
            name="model @NUMBER16DIGITS@",
        ),
        get("models/search", f"{API}/registered-models/search?max_results=10", '"name": "model'),
        Request("artifact up", "PUT", small, "", os.urandom(SMALL), ids=seed.runs),
        get("artifact down", small.replace("@ID@", seed.runs[0]), ""),
        get("artifacts/list", f"{artifacts}?path=small", '"file_size"'),
    ]


class _Caller(threading.local):
    """Holds one connection for each thread."""

    connection: http.client.HTTPConnection | None = None


def _samples(server: Server, mix: Sequence[Request]) -> list[_Sample]:
    caller, numbers = _Caller(), itertools.count(10**15)

    def ask(count: int) -> None:
        request = mix[count % len(mix)]
        identity = request.ids[count // len(mix) % len(request.ids)] if request.ids else ""

        def filled(text: bytes) -> bytes:
            number = str(next(numbers))
            return text.replace(b"@ID@", identity.encode()).replace(
                b"@NUMBER16DIGITS@", number.encode()
            )

        if caller.connection is None:
            caller.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        caller.connection.request(
            request.method,
            filled(request.path.encode()).decode(),
            filled(request.body),
            {**server.headers, **request.headers},
        )
        answer = caller.connection.getresponse()
        text = answer.read()
        if answer.status != request.status or request.expected.encode() not in text:
            raise BenchError(f"{request.name}: {answer.status} {text[:200]!r}")

    # First write everything once that is read later.
    for count in range(len(mix)):
        ask(count)
    samples = []
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        for done in range(0, REQUESTS, EACH):
            for _ in threads.map(ask, range(done, done + EACH)):
                pass
            server.settle()
            samples.append(_Sample(done + EACH, server.memory("Rss"), server.memory()))
    return samples


def _growth(samples: Sequence[_Sample]) -> float:
    """Returns the MiB over the last half."""
    half = samples[len(samples) // 2 :]
    line = linear_regression([one.requests for one in half], [one.rss for one in half])
    return float(line.slope) * (half[-1].requests - half[0].requests + EACH)


# 512 MiB


def _full(stack: Stack, seed: Seed) -> _Full:
    file = files.make(stack.folder / LARGE, GIB)
    if files.curl(files.straight(stack, LARGE), upload=file).code:
        raise BenchError("The bucket did not accept the file to download.")
    with _limited() as group:
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        command = ["sh", "-c", enter, str(group), *COMMAND] if group else COMMAND
        us = stack.server("limited", command=command)
        try:
            us.start()
            us.forget_peak()
            [process] = us.pids()
            if group and (group / "cgroup.procs").read_text().split() != [str(process)]:
                raise BenchError("The server is not in its cgroup.")
            counted, wrong, said = _both(us, file, traffic.requests(seed))
            for number in range(TRANSFERS):
                name = f"up-{number}"
                if files.stored(stack).get(name) != file.content:
                    raise BenchError(f"The bucket's object {name} differs from the sent file.")
                files.delete(stack, name)
            given_up = _give_up(us, file)
            us.settle()
            if us.pids() != [process]:
                raise BenchError("The server was killed.")
            peak = us.peak()
        finally:
            us.stop()
    return _Full(group is not None, peak, 2 * TRANSFERS, counted, wrong, said, given_up)


@contextlib.contextmanager
def _limited() -> Iterator[Path | None]:
    """Create a memory cgroup (version 1) with LIMIT MiB and no swap, if that is possible."""
    found = re.search(r"^\d+:memory:/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    group = _V1 / found[1] / f"mlflow-gcp-bench-{os.getpid()}" if found else None
    try:
        if group:
            group.mkdir()
    except OSError:
        group = None
    try:
        if group:
            for name in ("limit_in_bytes", "memsw.limit_in_bytes"):
                (group / f"memory.{name}").write_text(str(LIMIT * MIB))
        yield group
    finally:
        if group:
            group.rmdir()


def _both(server: Server, file: File, requests: Sequence[Request]) -> tuple[int, int, str]:
    """Transfer artifacts and send requests together. Returns all requests, and the failed ones."""
    counted, wrong, said = 0, 0, ""
    with ThreadPoolExecutor(2 * TRANSFERS) as threads:
        running: list[Future[Content]] = []
        for number in range(TRANSFERS):
            protocol = (H2C, HTTP1)[number % 2]
            running.append(threads.submit(_transfer, server, protocol, f"up-{number}", file))
            running.append(threads.submit(_transfer, server, protocol, LARGE, None))
        for request in itertools.cycle(requests):
            done = load.run(
                server,
                request,
                connections=AT_A_TIME - len(running),
                seconds=SECONDS,
                may_fail=True,
                busy=True,
            )
            counted, wrong, said = counted + done.requests, wrong + done.wrong, said or done.said
            if all(one.done() for one in running):
                break
        for one in running:
            if one.result() not in (file.content, Content(0, files.NOTHING)):
                raise BenchError("The downloaded file differs from the uploaded one.")
    return counted, wrong, said


def _transfer(server: Server, protocol: str, name: str, upload: File | None) -> Content:
    done = files.curl(files.through(server, name, protocol=protocol), upload=upload)
    if done.code:
        raise BenchError(f"An artifact of 1 GiB failed: {done.said}")
    return done.content


def _give_up(server: Server, file: File) -> int:
    """Download as many artifacts at a time as allowed, until curl's time limit."""

    def one(number: int) -> int:
        up = number % 2
        endpoint = files.through(
            server, f"given-up-{number}" if up else LARGE, protocol=(H2C, HTTP1)[number // 2 % 2]
        )
        done = files.curl(endpoint, upload=file if up else None, seconds=GIVEN_UP_AFTER)
        if done.code not in (0, OUT_OF_TIME):
            raise BenchError(f"One of {AT_A_TIME} artifacts failed: {done.said}")
        return int(done.code == OUT_OF_TIME)

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        return sum(threads.map(one, range(AT_A_TIME)))


def _stock(stack: Stack) -> tuple[float, float]:
    """Measure stock without users, idle: resident memory, also with shared pages counted once."""
    server = stock.server(stack, auth=False, database=stack.new_database("stock"))
    try:
        server.start()
        server.settle()
        return server.memory("Rss"), server.memory()
    finally:
        server.stop()


def _publish(
    idle: tuple[float, float],
    samples: Sequence[_Sample],
    full: _Full,
    theirs: tuple[float, float],
) -> None:
    rows: list[dict[str, object]] = [
        {"server": "ours", "after": "its first answer", "RSS MiB": idle[0], "PSS MiB": idle[1]}
    ]
    rows += [
        {
            "server": "ours",
            "after": f"{one.requests:,} requests",
            "RSS MiB": one.rss,
            "PSS MiB": one.pss,
        }
        for one in samples
        if one.requests % SHOWN == 0
    ]
    rows.append(
        {
            "server": "ours" + (f" in {LIMIT} MiB" if full.limited else ", its peak"),
            "after": f"{AT_A_TIME} requests at a time, artifacts of 1 GiB among them",
            "RSS MiB": full.peak,
        }
    )
    rss, pss = theirs
    rows.append({"server": "stock", "after": "its first answer", "RSS MiB": rss, "PSS MiB": pss})
    last, growth = samples[-1].rss, _growth(samples)
    goals = [
        Goal(
            goal=f"resident after {REQUESTS:,} mixed requests",
            wanted=f"≤ {RESIDENT} MiB",
            measured=f"{last:.0f} MiB",
            met=last <= RESIDENT,
        ),
        Goal(
            goal="flat over the last half of them",
            wanted=f"≤ {100 * FLAT:.0f} % more",
            measured=f"{100 * growth / last:.1f} %, {growth:.1f} MiB",
            met=growth <= FLAT * last,
        ),
        Goal(
            goal=f"works in {LIMIT} MiB: {AT_A_TIME} at a time, artifacts of 1 GiB among them",
            wanted="not killed, nothing 5xx",
            measured=(
                f"{full.peak:.0f} MiB at most; {full.wrong} of {full.requests:,} requests wrong; "
                f"{full.transfers} artifacts whole, {full.given_up} given up"
                + ("" if full.limited else "; not limited here")
                + (f"; {full.said}" if full.said else "")
            ),
            met=full.wrong == 0 and full.peak < LIMIT,
        ),
    ]
    publish("memory", rows=rows, goals=goals)
