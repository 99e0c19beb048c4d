"""Requests: rate, latency and CPU of each route, and of refused requests.

`CPU` is the CPU time of the server's processes for each request. A ratio compares two servers in
one round, and the median over the rounds is reported. Stock may fail; a wrong response of ours ends
the part.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench import fasttrackml, ours, stock, traffic
from bench.load import Load, Request, run
from bench.ours import COMMAND, LARGER_DATABASE, OUR_DATABASE, Stack
from bench.process import Server, alone, basic
from bench.report import ROOT, Goal, at_least, at_most, publish, shown

CONNECTIONS = {1: 0.3, 8: 0.5, 64: 0.6}
"""Connections, and the seconds for which they are kept busy."""
AT_GOAL, MANY = 8, 64
AUTH_SECONDS = 1.5
# At first all connections send at once, and their latencies depend on their place in the queue.
# Percentiles are compared after each connection has sent several requests.
TURNS, LONGEST = 5, 2.0
AUTH_ROUTES = ("log-metric", "log-batch", "log-batch of 100", "runs/get", "runs/search")
"""Also those that are compared with a server in Go."""
WANTED = {"log-metric": 45, "runs/get": 45, "log-batch of 100": 60, "runs/search": 25}
"""How many times as many requests a second as stock."""
ACCOUNTS_ROUTES, ACCOUNTS_SPEED = ("log-metric", "runs/get"), 0.9
"""With accounts, a person's requests take at most so much longer, by the server's CPU."""
GATE_ROUNDS = 6
# A log-batch holds up to four of stock's fifteen database connections. If enough of them run at
# once, they wait for each other's connections until all fail after half a minute, and so on.
STOCK_HANGS = {("log-batch", MANY), ("log-batch of 100", MANY)}


@dataclass(frozen=True)
class _Key:
    route: str
    connections: int
    server: str


_Loads = dict[_Key, list[Load]]


def measure(*, rounds: int) -> None:
    with ours.stack(LARGER_DATABASE) as stack:
        us = stack.server()
        us.start()
        seed = traffic.seed(us)
        # Databases can only be copied while they have no connections.
        us.stop()
        servers = [us]
        for database, auth in (("stock", False), ("stock_auth", True)):
            stack.new_database(database, like=OUR_DATABASE)
            servers.append(stock.server(stack, auth=auth, database=database))
        if go := fasttrackml.server(stack):
            servers.append(go)
        requests = {}
        try:
            for server in servers:
                server.start()
                server.settle()
                own = traffic.seed(server, traces=False) if server is go else seed
                requests[server.name] = traffic.requests(own)
                server.freeze()
            loads = _loads(servers, requests, rounds=rounds)
        finally:
            for server in servers:
                server.stop()
        gate = _gate(stack, traffic.requests(seed)[-1])
        accounts = _accounts(stack, seed, rounds=rounds)
    _publish(loads, gate, accounts)


def _loads(
    servers: Sequence[Server], by_server: Mapping[str, Sequence[Request]], *, rounds: int
) -> _Loads:
    us, plain, *compared = servers
    requests = by_server[us.name]
    loads: _Loads = defaultdict(list)
    rates = {}

    def load(server: Server, request: Request, connections: int, seconds: float) -> None:
        with alone(server, servers):
            measured = run(
                server,
                request,
                connections=connections,
                seconds=seconds,
                may_fail=server is not us,
            )
        loads[_Key(request.name, connections, server.name)].append(measured)

    for server in (plain, us):
        with alone(server, servers):
            for request in requests:
                warm = run(server, request, connections=AT_GOAL, seconds=0.7, may_fail=True)
                rates[request.name] = warm.rate
    for turn in range(rounds):
        for request in requests:
            for connections, seconds in CONNECTIONS.items():
                # The goals against stock are for 8 connections, and stock takes most of the time.
                both = connections == AT_GOAL or (
                    turn == 0 and (request.name, connections) not in STOCK_HANGS
                )
                for server in (us, plain)[:: -1 if turn % 2 else 1] if both else (us,):
                    enough = TURNS * connections / rates[request.name]
                    longer = enough if server is us else 0
                    load(server, request, connections, min(max(seconds, longer), LONGEST))
            if request.name in AUTH_ROUTES:
                for server in compared:
                    [same] = (one for one in by_server[server.name] if one.name == request.name)
                    load(server, same, AT_GOAL, AUTH_SECONDS)
        for connections, seconds in CONNECTIONS.items():
            load(us, traffic.refused(), connections, seconds)
    return loads


def _gate(stack: Stack, request: Request) -> float:
    """Returns the gate's CPU ms per request, from the server with and without it."""
    us = stack.server()
    launcher = str(ROOT / "bench" / "gateless.py")
    # -P: don't import the modules next to the script.
    gateless = stack.server("gateless", command=[COMMAND[0], "-P", launcher])
    servers = [us, gateless]
    differences = []
    try:
        for server in servers:
            server.start()
            run(server, request, connections=AT_GOAL, seconds=1)
            server.freeze()
        for _ in range(GATE_ROUNDS):
            cpu = []
            for server in servers:
                with alone(server, servers):
                    cpu.append(run(server, request, connections=AT_GOAL, seconds=1).cpu)
            differences.append(cpu[0] - cpu[1])
    finally:
        for server in servers:
            server.stop()
    return median(differences)


def _accounts(stack: Stack, seed: traffic.Seed, *, rounds: int) -> dict[str, list[float]]:
    """Returns the speed of a person's requests with accounts against those without accounts."""
    without = stack.server()
    accounts = stack.server("accounts", environment={"ACCOUNTS_DEFAULT_PERMISSION": "EDIT"})
    servers = [without, accounts]
    login = {"username": "ada", "password": secrets.token_urlsafe()}
    ada = {"Authorization": basic(*login.values())}
    speed: dict[str, list[float]] = defaultdict(list)
    try:
        for server in servers:
            server.start()
        traffic.post(accounts, "/users/create", **login)
        for request in traffic.requests(seed):
            if request.name not in ACCOUNTS_ROUTES:
                continue
            theirs = replace(request, headers=request.headers | ada)
            for _ in range(rounds):
                cpu = []
                for server, sent in ((without, request), (accounts, theirs)):
                    with alone(server, servers):
                        # Permissions are remembered for longer than a measurement takes.
                        run(server, sent, connections=AT_GOAL, seconds=0.3)
                        cpu.append(run(server, sent, connections=AT_GOAL, seconds=1).cpu)
                speed[request.name].append(cpu[0] / cpu[1])
    finally:
        for server in servers:
            server.stop()
    return speed


def _publish(loads: _Loads, gate: float, accounts: Mapping[str, Sequence[float]]) -> None:
    rows: list[dict[str, object]] = []
    ratios: dict[tuple[str, str], list[float]] = {}
    for key, measured in loads.items():
        row: dict[str, object] = {
            "route": key.route,
            "connections": key.connections,
            "server": key.server,
            "req/s": shown([load.rate for load in measured], digits=0),
            "p50 ms": median(load.p50 for load in measured),
            "p99 ms": median(load.p99 for load in measured),
            "CPU ms": median(load.cpu for load in measured),
            "wrong": sum(load.wrong for load in measured),
        }
        if key.server != "ours":
            ours_at = loads[_Key(key.route, key.connections, "ours")]
            pairs = zip(ours_at, measured, strict=False)
            ratio = [us.rate / them.rate for us, them in pairs]
            row["ours / it"] = shown(ratio, digits=1, unit="×")
            row["its CPU / ours"] = shown(
                [them.cpu / us.cpu for us, them in zip(ours_at, measured, strict=False)],
                digits=1,
                unit="×",
            )
            if key.connections == AT_GOAL:
                ratios[key.route, key.server] = ratio
        rows.append(row)
    publish("requests", rows=rows, goals=_goals(loads, ratios, gate, accounts))


def _goals(
    loads: _Loads,
    ratios: dict[tuple[str, str], list[float]],
    gate: float,
    accounts: Mapping[str, Sequence[float]],
) -> list[Goal]:
    goals = []
    for route, factor in WANTED.items():
        for server in ("stock", "stock basic-auth"):
            goal = f"{route}, {AT_GOAL} connections, requests a second against {server}"
            goals.append(at_least(factor, ratios[route, server], goal=goal))
        if (route, "FastTrackML") in ratios:
            goal = f"{route}, {AT_GOAL} connections, requests a second against FastTrackML"
            goals.append(at_least(1, ratios[route, "FastTrackML"], goal=goal))
    ours_at = {
        (key.route, key.connections): measured
        for key, measured in loads.items()
        if key.server == "ours"
    }
    shares = {
        route: gate / median(load.cpu for load in measured)
        for (route, connections), measured in ours_at.items()
        if connections == AT_GOAL and route != "refused"
    }
    dearest = max(shares, key=lambda route: shares[route])
    goals.append(
        Goal(
            goal="the gate's own cost, of the server's CPU on any route",
            wanted="≤ 3 %",
            measured=f"{100 * shares[dearest]:.1f} % of {dearest}, {gate * 1000:.0f} µs a request",
            met=shares[dearest] <= 0.03,
        )
    )
    goals += [
        at_least(
            ACCOUNTS_SPEED,
            measured,
            digits=2,
            goal=f"{route} of a person with an account, by CPU, against no accounts",
        )
        for route, measured in accounts.items()
    ]
    refused = [load.rate for load in ours_at["refused", AT_GOAL]]
    goals.append(
        Goal(
            goal=f"refused, {AT_GOAL} connections",
            wanted="≥ 2,500 req/s",
            measured=shown(refused, digits=0, unit=" req/s"),
            met=median(refused) >= 2500,
        )
    )
    for (route, connections), measured in ours_at.items():
        if connections == MANY:
            tail = [load.p99 / load.p50 for load in measured]
            goals.append(at_most(2, tail, goal=f"{route}, {MANY} connections: p99 against p50"))
    # A wrong or missing response, or a 5xx, ends the part before this.
    answers = sum(load.requests for measured in ours_at.values() for load in measured)
    goals.append(
        Goal(
            goal="wrong answers, 5xx and timeouts of ours",
            wanted="0",
            measured=f"0 of {answers:,}",
            met=True,
        )
    )
    return goals
