"""Several instances on one database, with the 25 connections of Cloud SQL's smallest machine.

wrk gives each instance a thread, and so the same number of connections, and every instance writes
to all runs. If half of the cores are enough, each instance has its own core. Otherwise they share
cores, and the figures only show how much they slow each other down. Connections are the maximum of
pg_stat_activity under load, sampled every 50 ms.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from bench import ours, traffic
from bench.load import Load, Request, run
from bench.ours import OUR_DATABASE, Stack
from bench.process import Server, reserve_cores
from bench.report import Goal, publish, shown

INSTANCES = (1, 2, 4)
CONNECTIONS = 64
SECONDS = 1.0
ROUTES = ("log-metric", "runs/search")
EACH = 4
"""Database connections of an instance: four instances fit the 17 of the smallest machine."""
ACCEPTED = 25


def measure(*, rounds: int) -> None:
    config = {
        "mlflow-gcp:maxInstances": str(max(INSTANCES)),
        "mlflow-gcp:databaseConnections": str(EACH),
    }
    cores = reserve_cores(max(INSTANCES))
    with ours.stack(config) as stack:
        [[accepted]] = stack.sql("SHOW max_connections")
        assert int(accepted) == ACCEPTED, accepted
        servers = [stack.server(f"instance {number + 1}") for number in range(max(INSTANCES))]
        for number, server in enumerate(servers):
            server.core = cores[number % len(cores)]
        loads: dict[tuple[str, int], list[Load]] = defaultdict(list)
        held: dict[int, int] = defaultdict(int)
        lost = 0
        try:
            servers[0].start()
            seed = traffic.seed(servers[0])
            requests = [one for one in traffic.requests(seed) if one.name in ROUTES]
            for _ in range(rounds):
                for count in INSTANCES:
                    alive = servers[:count]
                    for server in alive:
                        if not server.pids():
                            server.start()
                    for request in requests:
                        before = _metrics(stack)
                        with _watched(stack) as seen:
                            load = _load(alive, request)
                        if request.name == "log-metric":
                            lost += max(0, before + load.requests - _metrics(stack))
                        loads[request.name, count].append(load)
                        held[count] = max(held[count], *seen)
                for server in servers[1:]:
                    server.stop()
        finally:
            for server in servers:
                server.stop()
        refused = _refused(stack)
    _publish(loads, held, lost=lost, refused=refused, cores=len(cores))


def _load(servers: Sequence[Server], request: Request) -> Load:
    first, *others = servers
    return run(first, request, connections=CONNECTIONS, seconds=SECONDS, also=others)


def _metrics(stack: Stack) -> int:
    [[count]] = stack.sql("SELECT count(*) FROM metrics")
    return int(count)


@contextlib.contextmanager
def _watched(stack: Stack) -> Iterator[list[int]]:
    """Yield samples of the instances' connections, collected until the end of the block."""
    seen = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            [[count]] = stack.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND usename = :user",
                database="postgres",
                name=OUR_DATABASE,
                user=OUR_DATABASE,
            )
            seen.append(count)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _refused(stack: Stack) -> int:
    """Returns the connections that PostgreSQL refused, from its log."""
    name = stack.postgres.settings.name
    log = stack.cloud.project.state.path("log", f"{name}.log").read_text(errors="replace")
    return log.count("FATAL:")


def _publish(
    loads: dict[tuple[str, int], list[Load]],
    held: dict[int, int],
    *,
    lost: int,
    refused: int,
    cores: int,
) -> None:
    rows: list[dict[str, object]] = []
    for (route, count), measured in loads.items():
        pairs = zip(measured, loads[route, INSTANCES[0]], strict=True)
        rows.append(
            {
                "route": route,
                "instances": count,
                "on cores": min(count, cores),
                "req/s": shown([load.rate for load in measured], digits=0),
                "by one": shown([many.rate / one.rate for many, one in pairs], unit="×"),
                "p50 ms": median(load.p50 for load in measured),
                "p99 ms": median(load.p99 for load in measured),
                "CPU ms": median(load.cpu for load in measured),
                "connections": held[count],
            }
        )
    most = max(held.values())
    answers = sum(load.requests for measured in loads.values() for load in measured)
    goals = [
        Goal(
            goal=f"{max(INSTANCES)} instances on a database that accepts {ACCEPTED}: refused",
            wanted="0",
            measured=f"{refused}, with {most} connections at most",
            met=refused == 0 and most <= EACH * max(INSTANCES),
        ),
        Goal(
            goal="metrics answered with 200 that are not in the database",
            wanted="0",
            measured=f"{lost} of {answers:,} answers",
            met=lost == 0,
        ),
    ]
    publish("scale", rows=rows, goals=goals)
