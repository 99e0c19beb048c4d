"""runs/search in a database of 1,000, 10,000 and 100,000 runs.

Both servers search one database, filled with SQL: each run has metrics, params and tags. `newest`
is the request of MLflow's page, for the 100 runs that started last. `filtered` has two conditions
and an order by a metric, for which the database reads all of the experiment's runs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import median
from typing import Any

from bench import ours, stock
from bench.load import Load, Request, run
from bench.ours import LARGER_DATABASE, OUR_DATABASE, Stack
from bench.process import alone
from bench.report import publish, shown
from bench.traffic import API, post

SIZES = (1_000, 10_000, 100_000)
SECONDS = 0.5
PAGE = 100
KEYS = 5

# Values are derived from the run's number, so that every filling is the same.
_FILL = (
    """
    INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,
                      start_time, end_time, source_version, lifecycle_stage, artifact_uri,
                      experiment_id)
    SELECT md5(n::text), 'run ' || n, 'LOCAL', 'train.py', '', 'bench', 'FINISHED',
           1700000000000 + n, 1700000001000 + n, '', 'active',
           'mlflow-artifacts:/' || :experiment || '/' || md5(n::text) || '/artifacts',
           CAST(:experiment AS integer)
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
    """,
    """
    INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
    SELECT 'metric ' || k, ((n * 7919 + k * 104729) % 10000) / 10000.0, 1700000000000 + n, 10,
           false, md5(n::text)
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n,
         generate_series(1, :keys) AS k
    """,
    """
    INSERT INTO params (key, value, run_uuid)
    SELECT 'param ' || k, ((n + k) % 10)::text, md5(n::text)
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n,
         generate_series(1, :keys) AS k
    """,
    """
    INSERT INTO tags (key, value, run_uuid)
    SELECT CASE k WHEN 1 THEN 'mlflow.runName' ELSE 'tag ' || k END, 'value ' || (n + k) % 10,
           md5(n::text)
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n,
         generate_series(1, :keys) AS k
    """,
)


def measure(*, rounds: int) -> None:
    with ours.stack(LARGER_DATABASE) as stack:
        us = stack.server()
        us.start()
        experiment = post(us, "/experiments/create", name="data")["experiment_id"]
        plain = stock.server(stack, auth=False, database=OUR_DATABASE)
        servers = [us, plain]
        loads: dict[tuple[int, str, str], list[Load]] = defaultdict(list)
        try:
            plain.start()
            filled = 0
            for size in SIZES:
                fill(stack, experiment, first=filled + 1, last=size)
                filled = size
                for turn in range(rounds):
                    for request in _searches(experiment):
                        for server in servers[:: -1 if turn % 2 else 1]:
                            with alone(server, servers):
                                load = run(server, request, connections=1, seconds=SECONDS)
                            loads[size, request.name, server.name].append(load)
        finally:
            for server in servers:
                server.stop()
    _publish(loads)


def fill(stack: Stack, experiment: str, *, first: int, last: int) -> None:
    values: dict[str, Any] = {
        "experiment": experiment,
        "keys": KEYS,
        "first": first,
        "last": last,
    }
    for statement in _FILL:
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        stack.sql(statement, **used)
    # As autovacuum would do later.
    stack.sql("VACUUM ANALYZE")


def _searches(experiment: str) -> list[Request]:
    def search(name: str, **fields: object) -> Request:
        body = {"experiment_ids": [experiment], "max_results": PAGE, **fields}
        return Request(
            name=name,
            method="POST",
            path=f"{API}/runs/search",
            expected='"key": "param 5"',
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )

    return [
        search("newest", order_by=["attributes.start_time DESC"]),
        search(
            "filtered",
            filter="metrics.`metric 1` < 0.5 and params.`param 1` = '3'",
            order_by=["metrics.`metric 2` ASC"],
        ),
    ]


def _publish(loads: dict[tuple[int, str, str], list[Load]]) -> None:
    rows: list[dict[str, object]] = []
    for (size, search, server), measured in loads.items():
        row: dict[str, object] = {
            "runs": f"{size:,}",
            "search": search,
            "server": server,
            "p50 ms": shown([load.p50 for load in measured], digits=1),
            "p99 ms": median(load.p99 for load in measured),
            "CPU ms": median(load.cpu for load in measured),
        }
        if server != "ours":
            pairs = zip(measured, loads[size, search, "ours"], strict=True)
            row["it / ours"] = shown([them.p50 / us.p50 for them, us in pairs], unit="×")
        rows.append(row)
    publish("data", rows=rows, goals=[])
