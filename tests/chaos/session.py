"""Clients of a team that log numbered values, with a journal of what the server acknowledged.

`log JOURNAL SECONDS THREADS` logs with the real client and writes a line for each call: whether it
returned or raised. `compare JOURNAL...` reads everything back and prints what is missing.
"""

import hashlib
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

EXPERIMENT = "chaos"
BATCH = 5
MEBIBYTE = 1 << 20
# The last ones are sent in chunks: the server holds at most 12 MiB of each.
SIZES = (10, 10, MEBIBYTE, 10, 10, 14 * MEBIBYTE)
PAUSE = 0.02

client = MlflowClient()


def content(run: str, number: int) -> bytes:
    line = f"{run} {number}\n".encode()
    return line * (1 + SIZES[number % len(SIZES)] // len(line))


class Journal:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._lock = threading.Lock()

    def call(self, kind: str, run: str, number: int, do: Any) -> Any:
        """Record the outcome of a call: an exception is what a caller would have seen."""
        began, error, answer = time.time(), "", None
        try:
            answer = do()
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"[:500]
        entry = {
            "kind": kind,
            "run": run or (answer.info.run_id if answer else ""),
            "number": number,
            "began": began,
            "ended": time.time(),
            "error": error,
        }
        with self._lock:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        return answer


def log(journal: Journal, until: float, experiment: str, folder: Path) -> None:
    while time.time() < until:
        made = journal.call("run", "", 0, lambda: client.create_run(experiment))
        if made is None:
            time.sleep(0.2)
            continue
        run = made.info.run_id
        for number in range(60):
            if time.time() >= until:
                return
            one(journal, run, number, folder)
            time.sleep(PAUSE)


def one(journal: Journal, run: str, number: int, folder: Path) -> None:
    journal.call(
        "metric",
        run,
        number,
        lambda: client.log_metric(run, "m", number, timestamp=number, step=number),
    )
    if number % 5 == 0:
        steps = range(number * BATCH, (number + 1) * BATCH)
        journal.call(
            "batch",
            run,
            number,
            lambda: client.log_batch(
                run,
                metrics=[Metric("b", step, step, step) for step in steps],
                params=[Param(f"p{number}", str(number))],
                tags=[RunTag(f"t{number}", str(number))],
            ),
        )
    if number % 5 == 1:
        file = folder / f"{run}-{number}.bin"
        file.write_bytes(content(run, number // 5))
        journal.call("artifact", run, number // 5, lambda: client.log_artifact(run, str(file), "a"))
        file.unlink()


def compare(entries: list[dict[str, Any]]) -> dict[str, Any]:
    calls: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["run"]:
            calls.setdefault(entry["run"], []).append(entry)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(in_run, calls, calls.values()))
    errors = Counter(entry["error"].split("(Caused by ")[-1][:160] for entry in entries)
    errors.pop("", None)
    return {
        "acknowledged": sum(not entry["error"] for entry in entries),
        "refused": sum(bool(entry["error"]) for entry in entries),
        "kept_though_refused": sum(each["kept"] for each in found),
        "lost": [name for each in found for name in each["lost"]],
        "twice": [name for each in found for name in each["twice"]],
        "foreign": [name for each in found for name in each["foreign"]],
        "errors": errors.most_common(12),
    }


def in_run(run: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns a run's data on the server, each item as often as the server has it."""
    there = client.get_run(run).data
    seen: Counter[tuple[str, int]] = Counter()
    for name, kind in (("m", "metric"), ("b", "step")):
        for metric in client.get_metric_history(run, name):
            right = metric.value == metric.step == metric.timestamp
            seen[(kind if right else "wrong"), metric.step] += 1
    seen.update({("param", int(name[1:])): 1 for name, value in there.params.items()})
    seen.update({("tag", int(name[1:])): 1 for name in there.tags if name[1:].isdigit()})
    for file in client.list_artifacts(run, "a"):
        number = int(file.path.rpartition("-")[2].removesuffix(".bin")) // 5
        with tempfile.TemporaryDirectory() as folder:
            got = Path(client.download_artifacts(run, file.path, folder)).read_bytes()
        same = hashlib.sha256(got).digest() == hashlib.sha256(content(run, number)).digest()
        seen[("artifact" if same else "wrong"), number] += 1
    acknowledged: set[tuple[str, int]] = set()
    attempted: set[tuple[str, int]] = set()
    for entry in entries:
        things = parts(entry["kind"], entry["number"])
        attempted |= things
        if not entry["error"]:
            acknowledged |= things
    return {
        "lost": [f"{run} {thing}" for thing in sorted(acknowledged - seen.keys())],
        "twice": [f"{run} {thing}" for thing, count in seen.items() if count > 1],
        "foreign": [f"{run} {thing}" for thing in sorted(seen.keys() - attempted)],
        "kept": len((attempted - acknowledged) & seen.keys()),
    }


def parts(kind: str, number: int) -> set[tuple[str, int]]:
    if kind == "run":
        return set()
    if kind != "batch":
        return {(kind, number)}
    steps = {("step", step) for step in range(number * BATCH, (number + 1) * BATCH)}
    return steps | {("param", number), ("tag", number)}


def experiment_id() -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(found.experiment_id if found else client.create_experiment(EXPERIMENT))


def main() -> None:
    command, *arguments = sys.argv[1:]
    if command == "prepare":
        experiment_id()
    elif command == "log":
        path, seconds, threads = arguments
        experiment = experiment_id()
        until = time.time() + float(seconds)
        journal = Journal(Path(path))
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(int(threads)) as pool:
            running = [
                pool.submit(log, journal, until, experiment, Path(folder))
                for _ in range(int(threads))
            ]
        for each in running:
            each.result()
    else:
        lines = [line for path in arguments for line in Path(path).read_text().splitlines()]
        print(json.dumps(compare([json.loads(line) for line in lines])))


if __name__ == "__main__":
    main()
