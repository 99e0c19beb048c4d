"""MLflow's page in Chromium, on a line with 10 Mbit/s and 40 ms latency.

One browser visits the pages in turn. Its cache doesn't have a page's files at its first visit, and
has them at the second one. Both servers speak HTTP/1.1 without TLS; on Cloud Run, browsers use
HTTP/2. Each server answers all requests once before anything is measured.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from bench import data, ours, stock
from bench.ours import LARGER_DATABASE, OUR_DATABASE, Stack
from bench.process import BenchError, Server, alone, require
from bench.report import ROOT, SERVER_PYTHON, Goal, at_least, at_most, publish, shown
from bench.traffic import post

PAGE_PYTHON = ROOT / ".venvs" / "page" / "bin" / "python"
BUILD_PYTHON = ROOT / ".venvs" / "image-build" / "bin" / "python"

RUNS, METRICS, STEPS = 1_000, 100, 10_000

EXPERIMENTS, LIST, CHARTS = "experiments", f"{RUNS:,} runs", f"{METRICS} × {STEPS:,} metrics"
AGAIN = ", again"

_CURVES = """
    INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid)
    SELECT 'curve ' || k, 1.0 / (1 + s + k), 1700000000000 + s, s, false, :run
    FROM generate_series(1, CAST(:metrics AS integer)) AS k,
         generate_series(0, CAST(:steps AS integer) - 1) AS s
"""
_LATEST = """
    INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
    SELECT key, value, timestamp, step, is_nan, run_uuid FROM metrics
    WHERE run_uuid = :run AND step = CAST(:steps AS integer) - 1
"""


def measure(*, rounds: int) -> None:
    chromium = require("chromium", package="chromium", formula="chromium")
    _compress_page()
    with ours.stack(LARGER_DATABASE) as stack:
        us = stack.server()
        us.start()
        experiment, run = _fill(stack, us)
        # Databases can only be copied while they have no connections.
        us.stop()
        database = stack.new_database("stock", like=OUR_DATABASE)
        servers = [us, stock.server(stack, auth=False, database=database)]
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        try:
            for server in servers:
                server.start()
                _visit(chromium, server, experiment, run)
                server.freeze()
            for turn in range(rounds):
                for server in servers[:: -1 if turn % 2 else 1]:
                    with alone(server, servers):
                        found[server.name].append(_visit(chromium, server, experiment, run))
        finally:
            for server in servers:
                server.stop()
    _publish(found)


def _compress_page() -> None:
    """Compress the page's files in the server's environment, as in the image."""
    [folder] = SERVER_PYTHON.parent.parent.glob(
        "lib/python3.*/site-packages/mlflow/server/js/build"
    )
    subprocess.run([BUILD_PYTHON, ROOT / "image" / "compress_page.py", folder], check=True)


def _fill(stack: Stack, server: Server) -> tuple[str, str]:
    """Returns an experiment with many runs, and a run with many metrics in another one."""
    experiment = str(post(server, "/experiments/create", name="many runs")["experiment_id"])
    data.fill(stack, experiment, first=1, last=RUNS)
    other = post(server, "/experiments/create", name="curves")["experiment_id"]
    created = post(server, "/runs/create", experiment_id=other, start_time=1, run_name="curves")
    run = str(created["run"]["info"]["run_id"])
    stack.sql(_CURVES, run=run, metrics=METRICS, steps=STEPS)
    stack.sql(_LATEST, run=run, steps=STEPS)
    stack.sql("VACUUM ANALYZE")
    return experiment, f"/experiments/{other}/runs/{run}"


def _visit(chromium: str, server: Server, experiment: str, run: str) -> dict[str, Any]:
    """Returns the seconds and bytes of each visit."""
    shown_by = {
        EXPERIMENTS: ("/experiments", "a[href*='/experiments/']", 2),
        LIST: (f"/experiments/{experiment}/runs", "a[href*='/runs/']", 10),
        CHARTS: (f"{run}/model-metrics", ".js-plotly-plot .scatterlayer .js-line", 6),
    }
    visits = [
        {
            "name": name + again,
            "path": path,
            "shown": f'() => document.querySelectorAll("{selector}").length >= {count}',
        }
        for name, (path, selector, count) in shown_by.items()
        for again in ("", AGAIN)
    ]
    given = {"address": server.address, "username": "", "password": "", "visits": visits}
    if server.authorization:
        login = base64.b64decode(server.authorization.removeprefix("Basic ")).decode()
        given["username"], _, given["password"] = login.partition(":")
    ran = subprocess.run(
        [PAGE_PYTHON, Path(__file__).with_name("browser.py"), chromium],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise BenchError(f"the browser failed on {server.name}: {ran.stderr[-2000:]}")
    return {visit.pop("name"): visit for visit in json.loads(ran.stdout)}


def _publish(found: dict[str, list[dict[str, Any]]]) -> None:
    us, them = found["ours"], found["stock"]

    def sooner(name: str) -> list[float]:
        pairs = zip(us, them, strict=True)
        return [other[name]["seconds"] / one[name]["seconds"] for one, other in pairs]

    rows: list[dict[str, object]] = []
    for name in us[0]:
        for server, rounds in found.items():
            row: dict[str, object] = {
                "page": name,
                "server": server,
                "seconds": shown([one[name]["seconds"] for one in rounds]),
                "MB": median(one[name]["bytes"] for one in rounds) / 1e6,
                "of static files": median(one[name]["static"] for one in rounds) / 1e6,
            }
            if server != "ours":
                row["it / ours"] = shown(sooner(name), digits=1, unit="×")
            rows.append(row)
    pairs = zip(us, them, strict=True)
    shares = [one[EXPERIMENTS]["bytes"] / other[EXPERIMENTS]["bytes"] for one, other in pairs]
    static = max(one[EXPERIMENTS + AGAIN]["static"] for one in us)
    goals = [
        at_most(0.3, shares, goal="bytes of the first visit against stock", digits=2),
        at_least(3, sooner(EXPERIMENTS), goal="list of experiments, first visit, against stock"),
        Goal(
            goal="bytes of static files in the second visit",
            wanted="0",
            measured=str(static),
            met=static == 0,
        ),
        at_least(2, sooner(LIST), goal=f"list of {LIST}, first visit, against stock"),
        at_least(2, sooner(CHARTS), goal=f"charts of {CHARTS}, first visit, against stock"),
    ]
    publish("page", rows=rows, goals=goals)
