"""The time that the gate takes to refuse each kind of credentials, in ns.

Run by the server's Python. Prints JSON: for each kind one median per round; the kinds take turns.
"""

import base64
import json
import random
import sys
from statistics import median
from time import perf_counter_ns
from typing import Any

from tracking_server.gate.callbacks import Callbacks
from tracking_server.gate.credentials import Credentials
from tracking_server.gate.gate import Gate

USER, VIEWER = Credentials("mlflow", "p" * 32), Credentials("viewer", "v" * 32)
HOST = "mlflow-1.us-central1.run.app"
EACH = 2000
KINDS = {
    "user right, password wrong": "mlflow:" + "x" * 32,
    "user wrong, password right": "mlflox:" + "p" * 32,
    "both wrong": "mlflox:" + "x" * 32,
    "all but the last letter right": "mlflow:" + "p" * 31 + "x",
    "viewer right, password wrong": "viewer:" + "x" * 32,
}


def scope_of(credentials: str, address: str) -> dict[str, Any]:
    basic = b"Basic " + base64.b64encode(credentials.encode())
    headers = [(b"host", HOST.encode()), (b"authorization", basic)]
    headers.append((b"x-forwarded-for", address.encode()))
    return {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": headers}


def main(rounds: int) -> None:
    # A client that fails often gets another response, so each request has another address.
    clock = iter(range(0, 10**12, 3600))
    gate = Gate(
        None,  # type: ignore[arg-type]
        user=USER,
        viewer=VIEWER,
        hosts=[HOST],
        callbacks=Callbacks(port=1),
        clock=lambda: float(next(clock)),
    )

    async def send(_: Any) -> None:
        pass

    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        taken: dict[str, list[int]] = {kind: [] for kind in KINDS}
        for number in range(EACH):
            # In another order each time, because the first kind finds the caches colder.
            for kind, credentials in random.sample(sorted(KINDS.items()), len(KINDS)):
                scope = scope_of(credentials, f"203.0.{number % 250}.7")
                started = perf_counter_ns()
                try:
                    gate(scope, None, send).send(None)  # type: ignore[arg-type]
                except StopIteration:
                    taken[kind].append(perf_counter_ns() - started)
        for kind, times in taken.items():
            found[kind].append(median(times))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
