"""The errors that a user can cause, each with the facts that it must mention.

A fact is a given value, an expected value or a command to run: no sentences, which may change.
Errors that another layer's tests cause have no row here; those of settings are in
tests/infra/test_stack_settings.py.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from fake_google.sql.postgres import Installation, InstanceSettings, Postgres, User
from fake_google.state import State
from infra.facts.connection_name import ConnectionName
from tests.errors.causes import (
    CANARY,
    FOLDER,
    PORT,
    Before,
    Stored,
    boot,
    client,
    command,
    local,
    raised,
    request,
    up,
)
from tests.local.conftest import ROOT

# ---- the stack on this computer ------------------------------------------------------------


def failing(error: str) -> tuple[str, ...]:
    program = (
        "import sys; from unittest.mock import patch; from local.__main__ import main; "
        f"sys.argv[1:] = ['--state', '{FOLDER}/state', 'up']; "
        f"patch('fake_google.state.State.create', side_effect={error}).start(); sys.exit(main())"
    )
    return sys.executable, "-c", program


@contextmanager
def _running(folder: Path, supervisor: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Hold the lock, which tells other processes that a stack runs."""
    state = State(folder / "state")
    state.create()
    if supervisor is not None:
        state.save("supervisor.json", dict(supervisor))
    assert state.acquire()
    yield
    state.release()


def _deaf(folder: Path) -> AbstractContextManager[None]:
    process = {"pid": 2**22 + 1, "started": "before", "command": "local"}
    return _running(folder, {"process": process, "address": "http://127.0.0.1:8080"})


def _file(name: str, content: str = "") -> Before:
    def write(folder: Path) -> AbstractContextManager[None]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return nullcontext()

    return write


def _damaged(name: str, content: str) -> Before:
    def damage(folder: Path) -> AbstractContextManager[None]:
        state = State(folder / "state")
        state.create()
        state.write(name, content)
        return nullcontext()

    return damage


def _short_lived(folder: Path) -> AbstractContextManager[None]:
    """Replace the server's interpreter by a server that ends soon after it was ready."""
    path = folder / "python"
    path.write_text(f"""#!{sys.executable}
import http.server, os, threading
class Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
threading.Timer(0.3, os._exit, [3]).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Well).serve_forever()
""")
    path.chmod(0o755)
    return nullcontext()


def _never_started(folder: Path) -> AbstractContextManager[None]:
    (folder / "Makefile").symlink_to(ROOT / "Makefile")
    (folder / ".venvs").mkdir()
    (folder / ".venvs/client.done").touch()
    return nullcontext()


HERE = (
    command(
        "a setting without a value",
        up("--config", "memory"),
        *("'memory'", "KEY=VALUE", "artifacts=direct"),
    ),
    command(
        "settings that are wrong",
        up(
            *("--config", "memory=tiny", "--config", "colour=blue"),
            *("--config", f"trackingPassword={CANARY}"),
        ),
        *("mlflow-gcp:memory\n", "tiny\n", "-m local run --config memory=1Gi\n"),
        *("mlflow-gcp:trackingPassword\n", "(hidden)\n", "--config 'trackingPassword="),
        *("mlflow-gcp:colour\n", "without --config colour"),
    ),
    command(
        "no environment for the server",
        up("--python", "/nowhere/python"),
        *("/nowhere/python", "`make local`"),
    ),
    command(
        "a folder with something else in it",
        up(),
        *("/state has", "--state ~/mlflow-local"),
        before=_file("state/thesis.tex"),
    ),
    command(
        "a folder that is a file",
        up(),
        *("/state can't be made", "--state ~/mlflow-local"),
        before=_file("state"),
    ),
    command(
        "a list where names are",
        up(),
        *("/processes.json", "JSON object", "`make local-clean`"),
        before=_damaged("processes.json", "[1]"),
    ),
    command(
        "secrets that break off",
        up(),
        *("/secrets.json", "`make local-clean`"),
        before=_damaged("secrets.json", '{"mlflow_tracking_password": "' + CANARY),
    ),
    command(
        "something else isn't removed",
        local("clean"),
        *("/state", "not removed"),
        before=_file("state/thesis.tex"),
    ),
    command(
        "a stack that runs isn't removed",
        local("clean"),
        *("Ctrl-C", "`make local-down`"),
        before=_running,
    ),
    command("stopped while it starts", local("down"), "try again", before=_running),
    command(
        "stopped without effect",
        local("down"),
        *("60 s", "/state/log", "`kill -9 4194305`"),
        before=_deaf,
    ),
    command(
        "a server that ends again and again",
        local("run", "--port", PORT, "--python", f"{FOLDER}/python"),
        *("not started again", "/state/log/server.log"),
        before=_short_lived,
    ),
    command(
        "a disk that is full",
        failing("OSError(28, 'No space left on device', 'postgres.json')"),
        *("postgres.json", "No space left on device", "-m local --state /path/to/folder run`"),
    ),
    command("Ctrl-C before anything", failing("KeyboardInterrupt"), "before anything was started"),
    command("no env yet", local("env"), "`make local`"),
    command(
        "no stack to check",
        ("sh", "-c", f"make -C {FOLDER} -o .venvs/client.done check 2>/dev/null"),
        *("has not run", "make local-up"),
        before=_never_started,
        code=2,
    ),
)

# ---- moving, costs, releases ---------------------------------------------------------------


def _store(*tables: str, locked: bool = False) -> Before:
    @contextmanager
    def make(folder: Path) -> Iterator[None]:
        with closing(sqlite3.connect(folder / "mlflow.db", isolation_level=None)) as store:
            for table in tables:
                store.execute(f"CREATE TABLE {table} (experiment_id INTEGER)")
            if locked:
                store.execute("BEGIN EXCLUSIVE")
            yield

    return make


@contextmanager
def _written_by_hand(folder: Path) -> Iterator[None]:
    """Makes a copy of the project with a stack's file that Pulumi didn't write."""
    for name in ("tools", "infra", "operations", "local", "fake_google"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "Pulumi.mine.yaml").write_text("config:\n  - mlflow-gcp:memory: 1Gi\n")
    yield


MOVE = (sys.executable, "moving/prepare.py")
MOVE_ONE = (*MOVE, f"{FOLDER}/mlflow.db", "gs://my-bucket")
RELEASE = (sys.executable, "-m", "tests.engine.previous_release")

TOOLS = (
    command("moving nothing", MOVE, "python moving/prepare.py mlflow.db gs://my-bucket"),
    command(
        "moving something else",
        MOVE_ONE,
        *("/mlflow.db", "not a database", "SQLite", "stopped"),
        before=_file("mlflow.db", "a text of some length " * 50),
    ),
    command(
        "moving a store that is in use",
        MOVE_ONE,
        *("/mlflow.db", "locked", "stopped"),
        before=_store("experiments", locked=True),
    ),
    command(
        "moving another database",
        MOVE_ONE,
        *("/mlflow.db", "table experiments"),
        before=_store("customers"),
    ),
    command(
        "moving an older store",
        MOVE_ONE,
        *("/mlflow.db", "table logged_models", "mlflow db upgrade sqlite:///"),
        before=_store("experiments", "runs", "model_versions", "trace_tags"),
    ),
    command(
        "the cost of a name that is too long for a file",
        (sys.executable, "tools/cost.py", f"--stack={'x' * 300}"),
        *(f"STACK='{'x' * 300}'", "dev, prod", "STACK=dev"),
    ),
    command(
        "the cost of a file written by hand",
        (sys.executable, f"{FOLDER}/tools/cost.py", "--stack", "mine"),
        *("Pulumi.mine.yaml", "`pulumi config set`", "mlflow-gcp:memory: 1Gi"),
        before=_written_by_hand,
    ),
    command("no release", RELEASE, "`git tag`", "make previous-release REVISION=v1.2"),
    command(
        "a release that doesn't exist",
        (*RELEASE, "nope"),
        *("REVISION=nope", "`git tag`", "REVISION=v1.2"),
    ),
)

# ---- clients of a running stack ----------------------------------------------------------

LOGIN = (
    *("tracking_username", "tracking_password"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
)
CREATE: dict[str, Any] = {
    "method": "POST",
    "path": "/api/2.0/mlflow/experiments/create",
    "body": b'{"name": "theirs"}',
}
JSON = {"Content-Type": "application/json"}

SERVED = (
    client(
        "plain http to another computer",
        *("'http://mlflow.example.com'", "https://mlflow-", "http://127.0.0.1:8080"),
        changed={"MLFLOW_TRACKING_URI": "http://mlflow.example.com"},
    ),
    client(
        "https where there is none",
        *("https://127.0.0.1:", "MLFLOW_TRACKING_URI", "http://"),
        changed={"MLFLOW_TRACKING_URI": f"https://127.0.0.1:{PORT}"},
    ),
    client(
        "no MLflow",
        "pip install -r sample_client/requirements.txt",
        python=Path(sys.executable),
    ),
    client(
        "a metric that is changed on its way",
        *("metrics", "[]", "[1.0, 0.5, 0.25]"),
        script="import sys; sys.path.insert(0, 'sample_client'); import check_tracking, mlflow; "
        "mlflow.MlflowClient.get_metric_history = lambda *_: []; sys.exit(check_tracking.main())",
    ),
    client(
        "MLflow's own client with a wrong password",
        *("error code 401", *LOGIN),
        changed={"MLFLOW_TRACKING_PASSWORD": CANARY},
        script="""\
import sys, mlflow
try:
    mlflow.search_experiments()
except mlflow.MlflowException as error:
    sys.exit(str(error))""",
    ),
    request("no login", 401, *LOGIN, login=""),
    request("a wrong login", 401, *LOGIN, login="wrong"),
    request("another kind of login", 401, *LOGIN, login=f"Bearer {CANARY}"),
    request("a login that isn't base64", 401, *LOGIN, login=f"Basic {CANARY}!"),
    request("too many wrong logins", 429, "Wait ", " s ", *LOGIN, login="wrong", before=12),
    request(
        "another host",
        403,
        *("tracking_uri", "pulumi config set --path 'customDomains[0]' mlflow.example.com"),
        headers={"Host": "mlflow.example.com"},
    ),
    request(
        "another site's page",
        403,
        *("another site", "own address"),
        headers={"Origin": "https://example.com", **JSON},
        **CREATE,
    ),
    request(
        "MLflow's Assistant from another computer",
        403,
        *("Assistant", "make local", "http://localhost:8080"),
        path="/ajax-api/3.0/mlflow/assistant/providers",
    ),
    request(
        "a viewer who writes",
        403,
        *("tracking_username", "tracking_password"),
        login="viewer",
        headers=JSON,
        **CREATE,
    ),
)

# ---- the server's boot ---------------------------------------------------------------------

BOOTS = (
    boot(
        "an environment that is wrong",
        *("ARTIFACTS is 'local'", "proxied", "PORT is 'http'", "1 to 65535"),
        *("GCP_PROJECT", "my-project", "ARTIFACT_SIGNER", "@my-project.iam.gserviceaccount.com"),
        *("'https://mlflow.example.com'", "'10.8.0.1/24'", "10.8.0.0/24"),
        *("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE is 8", "16", "WEB_CONCURRENCY"),
        *("TRACKING_PASSWORD_SECRET", "mlflow_tracking_password/versions/1"),
        environment={
            "GCP_PROJECT": "",
            "ARTIFACTS": "local",
            "ARTIFACT_SIGNER": "",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "https://mlflow.example.com",
            "INTERNAL_NETWORKS": "10.8.0.1/24",
            "PORT": "http",
            "WEB_CONCURRENCY": "4",
            "TRACKING_PASSWORD_SECRET": CANARY,
        },
    ),
    boot(
        "secrets that can't be read",
        *("secrets/artifact_url/versions/1", "roles/secretmanager.secretAccessor", "traps.md"),
        *("secrets/database_url/versions/1", "gcloud secrets versions enable"),
        *("secrets/tracking_username/versions/1", "is empty"),
        *("secrets/tracking_password/versions/1", "pulumi up", "gcloud secrets versions list"),
        *("secrets/kek_passphrase/versions/1", "UTF-8"),
        secrets={
            "artifact_url": Stored(granted=False),
            "database_url": Stored(enabled=False),
            "tracking_username": Stored(b" "),
            "tracking_password": Stored(None),
            "kek_passphrase": Stored(b"\xff"),
        },
    ),
)

# ---- the database on this computer ---------------------------------------------------------


@contextmanager
def _database(**flags: str) -> Iterator[tuple[State, Postgres]]:
    settings = InstanceSettings(
        connection_name=ConnectionName.parse("my-project:us-central1:mlflow"),
        major=17,
        tier="db-f1-micro",
        flags=tuple(flags.items()),
    )
    with TemporaryDirectory() as folder:
        state = State(Path(folder, "state"))
        state.create()
        database = Postgres(state=state, settings=settings, say=lambda _: None)
        try:
            yield state, database
        finally:
            database.stop()
            state.clean()


def _wrong_flag() -> None:
    with _database(shared_buffers="much") as (_, database):
        database.start()


def _another_password() -> None:
    with _database() as (state, database):
        database.start()
        database.stop()
        state.save("postgres.json", {"mlflow": CANARY})
        Postgres(state=state, settings=database.settings, say=lambda _: None).start()


def _damaged_version() -> None:
    with _database() as (_, database):
        (database._data / "PG_VERSION").parent.mkdir()
        (database._data / "PG_VERSION").write_text("seventeen")
        database.start()


def _programs_that_fail() -> None:
    with _database() as (_, database), TemporaryDirectory() as folder:
        programs = Path(folder, "postgresql", "bin")
        programs.mkdir(parents=True)
        for name in ("postgres", "initdb"):
            (programs / name).write_text('#!/bin/sh\necho "the reason" >&2; exit 1\n')
            (programs / name).chmod(0o755)
        with patch(
            "fake_google.sql.postgres.installations", lambda: [Installation(programs, 17, "17.1")]
        ):
            database.start()


def _root_alone() -> None:
    with patch("os.geteuid", lambda: 0), patch("pwd.getpwnam", side_effect=KeyError):
        User.unprivileged()


def _gone_at_once() -> None:
    """Simulate a process that ends before the kernel can report on it."""
    with (
        _database(shared_buffers="much") as (_, database),
        patch("fake_google.state.Process.of", return_value=None),
    ):
        database.start()


DATABASES = (
    raised("no user but root", _root_alone, "root", "`useradd --system postgres`"),
    raised(
        "a database that doesn't start", _wrong_flag, "contains errors", "/state/log/mlflow.log"
    ),
    raised("a database that ends at once", _gone_at_once, "/state/log/mlflow.log"),
    raised(
        "another database's password",
        _another_password,
        *("/state/postgres.json", "`make local-clean`"),
    ),
    raised(
        "a damaged database",
        _damaged_version,
        *("/PG_VERSION", "17", "`make local-clean`"),
    ),
    raised("a database that can't be made", _programs_that_fail, "the reason"),
)

# Rows that share a stack come first: `--dist worksteal` gives the first rows to one worker.
ROWS = (*SERVED, *HERE, *TOOLS, *BOOTS, *DATABASES)
