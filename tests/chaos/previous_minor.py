"""MLflow's previous minor release, on the database in DATABASE_URL.

`make` creates its tables. `log` stands for an old revision that still serves: it creates runs and
logs numbered metrics until it reads a line, then prints what was acknowledged and the longest wait.
"""

import json
import os
import sys
import threading
import time

from mlflow.entities import Metric, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def log(store: SqlAlchemyStore) -> None:
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), done.set()), daemon=True).start()
    acknowledged, failed, longest = [], [], 0.0
    print("logging", flush=True)
    while not done.is_set():
        started = time.monotonic()
        try:
            run = store.create_run("0", "old", int(time.time() * 1000), [], None).info.run_id
            store.log_metric(run, Metric("number", len(acknowledged), 1, 0))
            store.update_run_info(run, RunStatus.FINISHED, 1, None)
            acknowledged.append(run)
        except MlflowException as error:
            failed.append(str(error).splitlines()[0])
        longest = max(longest, time.monotonic() - started)
    print(json.dumps({"acknowledged": acknowledged, "failed": failed, "longest": longest}))


# Creates the tables, if there are none, and the experiment "Default".
opened = SqlAlchemyStore(os.environ["DATABASE_URL"], "gs://nowhere")
if sys.argv[1] == "log":
    log(opened)
