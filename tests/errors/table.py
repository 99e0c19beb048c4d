"""Every other error that a user can cause: how to cause it, and all that is said of it.

`…` in what is said stands for what differs from run to run; all else is compared as it is.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pulumi

from fake_google.sql.postgres import Installation, Postgres, Settings, User, choose
from fake_google.state import State
from infra import docker_daemon
from infra.tracking_server import TrackingServer
from tests.local.conftest import CLIENT

# In place of a secret wherever one is wrong; never in an answer.
CANARY = "canary"

# In a command: the row's own empty folder, and a free port.
FOLDER, PORT = "FOLDER", "PORT"

Before = Callable[[Path], AbstractContextManager[None]]


def _nothing(_: Path) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the manual's; `said` is all of its stderr, or where it ends."""

    name: str
    run: tuple[str, ...]
    said: str
    before: Before = _nothing


@dataclass(frozen=True, kw_only=True)
class Client:
    """check_tracking.py, or some Python with MLflow, beside a stack that runs."""

    name: str
    changed: Mapping[str, str] = field(default_factory=dict)
    said: str
    script: str = "sample_client/check_tracking.py"
    python: Path = CLIENT


@dataclass(frozen=True, kw_only=True)
class Boot:
    """A server that ends with one line of its log. `secrets` hold what is given; None: gone."""

    name: str
    said: str
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Request:
    name: str
    status: int
    said: str
    method: str = "GET"
    path: str = "/api/2.0/mlflow/experiments/search?max_results=1"
    # `user`, `viewer`, `wrong` or a header's value; empty: none.
    login: str = "user"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    # How often it is sent before.
    after: int = 0


@dataclass(frozen=True, kw_only=True)
class Raised:
    """What no command brings about in seconds, or only for who writes a program of their own."""

    name: str
    cause: Callable[[], object]
    said: str


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What another layer's test brings about, and compares a part of."""

    test: str
    said: str


# ---- commands ------------------------------------------------------------------------------


def local(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "local", "--state", f"{FOLDER}/state", *arguments)


def up(*arguments: str) -> tuple[str, ...]:
    return local("up", "--port", PORT, *arguments)


def failing(error: str) -> tuple[str, ...]:
    program = (
        "import sys; from unittest.mock import patch; from local.__main__ import main; "
        f"sys.argv[1:] = ['--state', '{FOLDER}/state', 'up']; "
        f"patch('fake_google.state.State.create', side_effect={error}).start(); sys.exit(main())"
    )
    return sys.executable, "-c", program


@contextmanager
def _running(folder: Path, supervisor: Mapping[str, Any] | None = None) -> Iterator[None]:
    """As far as others see: somebody holds the lock."""
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


def _program(script: str) -> Before:
    """In the place of the server's interpreter."""

    def write(folder: Path) -> AbstractContextManager[None]:
        path = folder / "python"
        path.write_text(f"#!{sys.executable}\n{script}")
        path.chmod(0o755)
        return nullcontext()

    return write


_short_lived = _program("""\
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
_stillborn = _program("import sys; sys.exit('no such module')")


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
def _stack_file(folder: Path) -> Iterator[None]:
    """A project of its own, whose stack's file was written by hand."""
    root = Path(__file__).parents[2]
    for name in ("tools", "infra", "operations", "local", "fake_google"):
        (folder / name).symlink_to(root / name)
    (folder / "Pulumi.mine.yaml").write_text("config:\n  - mlflow-gcp:memory: 1Gi\n")
    yield


PREPARE = (sys.executable, "moving/prepare.py")
COST = (sys.executable, "tools/cost.py")
RELEASE = (sys.executable, "-m", "tests.engine.previous_release")
DAMAGED = (
    "Put back a copy of it, or run `make local-clean`, which removes the data too, and start again."
)

COMMANDS = (
    Command(
        name="a port that is no number",
        run=local("up", "--port", "abc"),
        said="error: PORT is a number from 1 to 65535, such as 8080, not 'abc'.",
    ),
    Command(
        name="a port that no computer has",
        run=local("run", "--port", "99999"),
        said="error: PORT is a number from 1 to 65535, such as 8080, not '99999'.",
    ),
    Command(
        name="a setting without a value",
        run=up("--config", "memory"),
        said="error: --config takes KEY=VALUE, such as artifacts=direct, not 'memory'.",
    ),
    Command(
        name="settings that are wrong",
        run=up(
            *("--config", "memory=tiny", "--config", "invokers=all"),
            *("--config", f"trackingPassword={CANARY}", "--config", "colour=blue"),
        ),
        said="""\
error: 4 settings to correct, nothing was changed:
  mlflow-gcp:trackingPassword
    given:   (hidden)
    wanted:  at least 15 printable characters without spaces or a line end around them, or none: then one is generated
    example: .venvs/program/bin/python -m local run --config 'trackingPassword=a phrase that nobody guesses'
  mlflow-gcp:invokers
    given:   all
    wanted:  a list of user:, group: or serviceAccount: with an e-mail address, or domain: with a domain; not allUsers or allAuthenticatedUsers, which are everybody
    example: .venvs/program/bin/python -m local run --config 'invokers=["user:ada@example.com"]'
  mlflow-gcp:memory
    given:   tiny
    wanted:  a whole number of Mi or Gi
    example: .venvs/program/bin/python -m local run --config memory=1Gi
  mlflow-gcp:colour
    given:   a key that nothing reads
    wanted:  a key that Pulumi.yaml lists
    example: .venvs/program/bin/python -m local run (without --config colour=...)""",  # noqa: E501
    ),
    Command(
        name="no environment for the server",
        run=up("--python", "/nowhere/python"),
        said="error: The server's environment is missing (/nowhere/python): `make local`.",
    ),
    Command(
        name="a folder with something else in it",
        run=up(),
        before=_file("state/thesis.tex"),
        said="error: …/state has something else in it. Name a directory that is empty or not there "
        "yet: `--state ~/mlflow-local`.",
    ),
    Command(
        name="a folder that is a file",
        run=up(),
        before=_file("state"),
        said="error: …/state can't be made (File exists). Name a directory that you may write: "
        "`--state ~/mlflow-local`.",
    ),
    Command(
        name="a list where names are",
        run=up(),
        before=_damaged("processes.json", "[1]"),
        said=f"error: …/processes.json is damaged (it holds no JSON object). {DAMAGED}",
    ),
    Command(
        name="secrets that break off",
        run=up(),
        before=_damaged("secrets.json", '{"mlflow_tracking_password": "' + CANARY),
        said=f"error: …/secrets.json is damaged (Unterminated string starting at: …). {DAMAGED}",
    ),
    Command(
        name="something else is not removed",
        run=local("clean"),
        before=_file("state/thesis.tex"),
        said="error: …/state is not removed: nothing in it says that it is ours.",
    ),
    Command(
        name="what runs is not removed",
        run=local("clean"),
        before=_running,
        said="error: It runs: stop it first, with Ctrl-C or `make local-down`.",
    ),
    Command(
        name="what runs is not started again",
        run=local("run", "--port", PORT),
        before=_running,
        said="error: It already runs, at an address not chosen yet. `make local-down` stops it.",
    ),
    Command(
        name="stopped while it starts",
        run=local("down"),
        before=_running,
        said="error: It is starting or stopping: try again in a moment.",
    ),
    Command(
        name="stopped and goes on",
        run=local("down"),
        before=_deaf,
        said="error: It did not stop within 60 s. Its process is 4194305, its log …/state/log; "
        "`kill -9 4194305` ends it, and what it leaves is stopped at the next start.",
    ),
    Command(
        name="a server that ends again and again",
        run=local("run", "--port", PORT, "--python", f"{FOLDER}/python"),
        before=_short_lived,
        said="error: The server has ended too often and is not started again. Its log says why: "
        "…/state/log/server.log",
    ),
    Command(
        name="a server that does not start",
        run=up("--python", f"{FOLDER}/python"),
        before=_stillborn,
        said="error: The server ended with exit code 1 before it was ready. It said: no such "
        "module\n  Its log: …/state/log/server.log",
    ),
    Command(
        name="a disk that is full",
        run=failing("OSError(28, 'No space left on device', 'postgres.json')"),
        said="error: postgres.json can't be written (No space left on device). Make room or take a "
        "folder of your own: `.venvs/program/bin/python -m local --state /path/to/folder run`.",
    ),
    Command(
        name="Ctrl-C before anything",
        run=failing("KeyboardInterrupt"),
        said="error: interrupted before anything was started.",
    ),
    Command(
        name="no env yet",
        run=local("env"),
        said="error: There is no env yet: `make local` writes it.",
    ),
    Command(
        name="moving without saying what",
        run=PREPARE,
        said="Usage: python moving/prepare.py mlflow.db gs://my-bucket > upload.sh",
    ),
    Command(
        name="moving a file that isn't there",
        run=(*PREPARE, "none.db", "gs://my-bucket"),
        said="none.db is not a file. Wanted: an SQLite store of MLflow's, such as mlflow.db",
    ),
    Command(
        name="moving something else",
        run=(*PREPARE, f"{FOLDER}/mlflow.db", "gs://my-bucket"),
        before=_file("mlflow.db", "a text of some length " * 50),
        said="…/mlflow.db can't be changed (file is not a database). Wanted: an SQLite store of "
        "MLflow's, such as mlflow.db, that you may write and whose server is stopped",
    ),
    Command(
        name="moving what is in use",
        run=(*PREPARE, f"{FOLDER}/mlflow.db", "gs://my-bucket"),
        before=_store("experiments", locked=True),
        said="…/mlflow.db can't be changed (database is locked). Wanted: an SQLite store of "
        "MLflow's, such as mlflow.db, that you may write and whose server is stopped",
    ),
    Command(
        name="moving another database",
        run=(*PREPARE, f"{FOLDER}/mlflow.db", "gs://my-bucket"),
        before=_store("customers"),
        said="…/mlflow.db is no store of MLflow's: it has no table experiments. Often mlflow.db is "
        "where the server was started",
    ),
    Command(
        name="moving an older store",
        run=(*PREPARE, f"{FOLDER}/mlflow.db", "gs://my-bucket"),
        before=_store("experiments", "runs", "model_versions", "trace_tags"),
        said="…/mlflow.db is an older MLflow's: it has no table logged_models. Bring it to this "
        "version first: mlflow db upgrade sqlite:///…/mlflow.db",
    ),
    Command(
        name="moving to no bucket",
        run=(*PREPARE, f"{FOLDER}/mlflow.db", "gs://"),
        before=_file("mlflow.db"),
        said="gs:// is no bucket. Wanted: gs:// and the stack's output artifact_bucket, such as "
        "gs://my-project-mlflow-artifacts-1a2b3c",
    ),
    Command(
        name="the cost of no stack",
        run=(*COST, "--stack", "nope"),
        said="STACK='nope' has no file here. Those that have: dev, prod. Example: STACK=dev",
    ),
    Command(
        name="the cost of a name that is too long for a file",
        run=(*COST, f"--stack={'x' * 300}"),
        said=f"STACK='{'x' * 300}' has no file here. Those that have: dev, prod. "
        "Example: STACK=dev",
    ),
    Command(
        name="the cost of some runs",
        run=(*COST, "--runs", "some"),
        said="RUNS='some': wanted a number of runs a day, 0 to 1000000, such as RUNS=100",
    ),
    Command(
        name="the cost of a file written by hand",
        run=(sys.executable, f"{FOLDER}/tools/cost.py", "--stack", "mine"),
        before=_stack_file,
        said="Pulumi.mine.yaml is not what `pulumi config set` writes ('list' object is not a "
        "mapping). Wanted: config: and below it lines such as mlflow-gcp:memory: 1Gi",
    ),
    Command(
        name="no release",
        run=RELEASE,
        said="Which release? `git tag` lists them: make previous-release REVISION=v1.2",
    ),
    Command(
        name="a release that isn't there",
        run=(*RELEASE, "nope"),
        said="REVISION=nope: git has no program of that name (fatal: not a valid object name: "
        "nope). `git tag` lists the releases, for example REVISION=v1.2",
    ),
)

# ---- clients of a stack that runs -----------------------------------------------------------

LOGIN = (
    "The right ones are the stack's outputs tracking_username and tracking_password; MLflow's "
    "client takes them from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
)
ONLY_LOOKS = (
    "This username may look at everything and change nothing. For this request the other one is "
    "needed: the stack's outputs tracking_username and tracking_password."
)

SAMPLES = Path(__file__).parents[2] / "sample_client"

CLIENTS = (
    Client(
        name="nothing set",
        changed={
            f"MLFLOW_{variable}": ""
            for variable in (
                *("TRACKING_URI", "TRACKING_USERNAME", "TRACKING_PASSWORD", "EXPERIMENT_NAME"),
            )
        },
        said="""\
These variables are not set (on this computer: source .local/env):
  MLFLOW_TRACKING_URI: pulumi stack output tracking_uri
  MLFLOW_TRACKING_USERNAME: pulumi stack output tracking_username
  MLFLOW_TRACKING_PASSWORD: pulumi stack output tracking_password --show-secrets
  MLFLOW_EXPERIMENT_NAME: a name of your choice, for example my-experiment""",
    ),
    Client(
        name="no address of the web",
        changed={"MLFLOW_TRACKING_URI": "mlflow.db"},
        said="MLFLOW_TRACKING_URI is 'mlflow.db', wanted an address with https:// such as "
        "https://mlflow-123456789012.us-central1.run.app; http:// is only for this computer, for "
        "example http://127.0.0.1:8080",
    ),
    Client(
        name="plain http to another computer",
        changed={"MLFLOW_TRACKING_URI": "http://mlflow.example.com"},
        said="MLFLOW_TRACKING_URI is 'http://mlflow.example.com', wanted an address with https:// "
        "such as https://mlflow-123456789012.us-central1.run.app; http:// is only for this "
        "computer, for example http://127.0.0.1:8080",
    ),
    Client(
        name="wrong password",
        changed={"MLFLOW_TRACKING_PASSWORD": CANARY},
        said="http://… refuses user 'mlflow' with this password. Set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD to the stack's outputs",
    ),
    Client(
        name="nobody there",
        changed={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        said="http://127.0.0.1:9 can't be reached (ConnectionError). Is MLFLOW_TRACKING_URI right, "
        "and does the server run? On this computer: make local-status",
    ),
    Client(
        name="https where there is none",
        changed={"MLFLOW_TRACKING_URI": f"https://127.0.0.1:{PORT}"},
        said="No safe connection to https://127.0.0.1:… (…). Is MLFLOW_TRACKING_URI right? A "
        "server on this computer has http://, one on Google Cloud https:// and a certificate of "
        "Google's",
    ),
    Client(
        name="another path",
        changed={"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{PORT}/elsewhere"},
        said="http://127.0.0.1:…/elsewhere answers 404 where an MLflow server says its version: …",
    ),
    Client(
        name="no MLflow",
        python=Path(sys.executable),
        said="mlflow is not installed here: pip install -r sample_client/requirements.txt",
    ),
    Client(
        name="a metric that is changed on its way",
        script=f"import sys; sys.path.insert(0, {str(SAMPLES)!r}); import check_tracking, mlflow; "
        "mlflow.MlflowClient.get_metric_history = lambda *_: []; sys.exit(check_tracking.main())",
        said="The run's metrics came back as [], not [1.0, 0.5, 0.25]",
    ),
    Client(
        name="who may only look",
        changed={"MLFLOW_TRACKING_USERNAME": "viewer", "MLFLOW_TRACKING_PASSWORD": "VIEWERS"},
        said="MlflowException: API request to endpoint /api/2.0/mlflow/… failed with "
        f"error code 403 != 200. Response body: '{ONLY_LOOKS}\n'",
    ),
    Client(
        name="MLflow's own client with a wrong password",
        changed={"MLFLOW_TRACKING_PASSWORD": CANARY},
        script="import mlflow; mlflow.search_experiments()",
        said="…mlflow.exceptions.MlflowException: API request to endpoint "
        "/api/2.0/mlflow/experiments/search failed with error code 401 != 200. Response body: "
        f"'No username and password were given, or they are not right. {LOGIN}\n'",
    ),
)

REQUESTS = (
    Request(
        name="no login",
        login="",
        status=401,
        said=f"No username and password were given, or they are not right. {LOGIN}",
    ),
    Request(
        name="a wrong login",
        login="wrong",
        status=401,
        said=f"No username and password were given, or they are not right. {LOGIN}",
    ),
    Request(
        name="another kind of login",
        login=f"Bearer {CANARY}",
        status=401,
        said=f"No username and password were given, or they are not right. {LOGIN}",
    ),
    Request(
        name="a login that is no base64",
        login=f"Basic {CANARY}!",
        status=401,
        said=f"No username and password were given, or they are not right. {LOGIN}",
    ),
    Request(
        name="too many wrong ones",
        login="wrong",
        after=12,
        status=429,
        said=f"Wrong usernames and passwords were given too often. Wait … s before the next try. "
        f"{LOGIN}",
    ),
    Request(
        name="another host",
        headers={"Host": "mlflow.example.com"},
        status=403,
        said="This server does not answer under that host name. Take the stack's output "
        "tracking_uri; a custom domain must be listed in the setting customDomains, for example: "
        "pulumi config set --path 'customDomains[0]' mlflow.example.com",
    ),
    Request(
        name="another site's page",
        method="POST",
        path="/api/2.0/mlflow/experiments/create",
        headers={"Origin": "https://example.com", "Content-Type": "application/json"},
        body=b'{"name": "theirs"}',
        status=403,
        said="This request comes from another site's page and is refused. Open this server's own "
        "address in the browser, and do it there.",
    ),
    Request(
        name="MLflow's Assistant from elsewhere",
        path="/ajax-api/3.0/mlflow/assistant/providers",
        headers={"X-Forwarded-For": "203.0.113.7"},
        status=403,
        said="MLflow's Assistant runs programs on the server's computer, so it answers only to a "
        "browser on that computer: start the stack there with make local, and open "
        "http://localhost:8080.",
    ),
    Request(
        name="a viewer who writes",
        login="viewer",
        method="POST",
        path="/api/2.0/mlflow/experiments/create",
        headers={"Content-Type": "application/json"},
        body=b'{"name": "theirs"}',
        status=403,
        said=ONLY_LOOKS,
    ),
)

# ---- the server's boot ----------------------------------------------------------------------

BOOTS = (
    Boot(
        name="an environment that is wrong",
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
        said="The environment is not complete: ARTIFACTS is 'local', wanted something like "
        "proxied; MLFLOW_SERVER_ALLOWED_HOSTS has 'https://mlflow.example.com', wanted host names "
        "without scheme or port, separated by commas; INTERNAL_NETWORKS has '10.8.0.1/24', wanted "
        "address ranges such as 10.8.0.0/24, separated by commas; "
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE is 8, "
        "wanted 16 at least: 4, which one request may take, for each of the 4 processes that "
        "WEB_CONCURRENCY asks for; GCP_PROJECT is not set (example: my-project); PORT is 'http', "
        "wanted a number from 1 to 65535; ARTIFACT_SIGNER is not set (example: "
        "mlflow-signer@my-project.iam.gserviceaccount.com); TRACKING_PASSWORD_SECRET is not a "
        "secret's version, wanted something like mlflow_tracking_password/versions/1",
    ),
    Boot(
        name="secrets that can't be had",
        secrets={
            "artifact_url": "not granted",
            "database_url": "disabled",
            "tracking_username": " ",
            "tracking_password": None,
            "kek_passphrase": "not UTF-8",
        },
        said="secret projects/local-project/secrets/artifact_url/versions/1 may not be read: "
        "mlflow-server@local-project.iam.gserviceaccount.com lacks "
        "roles/secretmanager.secretAccessor on it (pulumi up grants it; if it was made just now, "
        "start a new revision: see 'Grants take time' in docs/traps.md); "
        "secret projects/local-project/secrets/database_url/versions/1 is disabled or destroyed: "
        "enable it (gcloud secrets versions enable) or deploy again with pulumi up; "
        "secret projects/local-project/secrets/tracking_username/versions/1 is empty: add a "
        "version that holds a value and deploy again; "
        "secret projects/local-project/secrets/tracking_password/versions/1 does not exist: deploy "
        "again with pulumi up, which makes it, or set the service's variable to a version that "
        "exists (gcloud secrets versions list tracking_password); "
        "secret projects/local-project/secrets/kek_passphrase/versions/1 is not UTF-8 text: add a "
        "version that is, and deploy with it",
    ),
    Boot(
        name="secrets that hold something else",
        secrets={
            "artifact_url": "my-bucket",
            "database_url": f"postgresql://mlflow:{CANARY}@/mlflow",
            "tracking_username": f"mlflow:{CANARY}",
            "tracking_password": f"{CANARY}\n",
            "viewer_username": f"mlflow:{CANARY}",
        },
        said="secret artifact_url/versions/1 must hold a bucket's address such as gs://my-bucket: "
        "add a version that does, and deploy with it; "
        "secret database_url/versions/1 must hold an address such as "
        "postgresql+pg8000://USER:PASSWORD@/DB?unix_sock=/cloudsql/PROJECT:REGION:INSTANCE/"
        ".s.PGSQL.5432, user and password URL-quoted: add a version that does, and deploy with it; "
        "secret tracking_username/versions/1 must hold a username without colon or control "
        "character: add a version that does, and deploy with it; "
        "secret tracking_password/versions/1 must hold a password without control character: add a "
        "version that does, and deploy with it; "
        "secret viewer_username/versions/1 must hold a username without colon or control "
        "character: add a version that does, and deploy with it; "
        "secret viewer_username/versions/1 must hold another name than the tracking_username: add "
        "a version that does, and deploy with it",
    ),
    Boot(
        name="no database",
        said="the database can't be reached within 0 s (…): is the instance running, and has the "
        "service's account roles/cloudsql.client?",
    ),
)

# ---- programs of one's own ------------------------------------------------------------------


@contextmanager
def _database(**flags: str) -> Iterator[tuple[State, Postgres]]:
    settings = Settings(
        connection_name="my-project:us-central1:mlflow",
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
    """Before the kernel could be asked about it."""
    with (
        _database(shared_buffers="much") as (_, database),
        patch("fake_google.state.Process.of", return_value=None),
    ):
        database.start()


def _decides_later() -> None:
    async def program() -> None:
        TrackingServer("mlflow", memory=pulumi.Output.from_input("1Gi"))

    asyncio.run(program())


RAISED = (
    Raised(
        name="no PostgreSQL",
        cause=lambda: choose([], wanted=17, data=None),
        said="No PostgreSQL server was found. Install one: `brew install postgresql@17` on macOS, "
        "`apt install postgresql` on Debian, Ubuntu and WSL, `dnf install postgresql-server` on "
        "Fedora.",
    ),
    Raised(
        name="another PostgreSQL than before",
        cause=lambda: choose([], wanted=17, data=15),
        said="The database on this computer was made by PostgreSQL 15, which is not here any more. "
        "Install it, or run `make local-clean` to start with an empty one.",
    ),
    Raised(
        name="nobody but root",
        cause=_root_alone,
        said="PostgreSQL can't run as root, and there is no other user to run it as. Add one: "
        "`useradd --system postgres`.",
    ),
    Raised(
        name="a database that does not start",
        cause=_wrong_flag,
        said="PostgreSQL did not start: … Its log: …/state/log/mlflow.log",
    ),
    Raised(
        name="another database's password",
        cause=_another_password,
        said="The database in … does not take the password in …/state/postgres.json. Put back the "
        "copy that it was made with, or run `make local-clean`, which removes the data, and start "
        "again.",
    ),
    Raised(
        name="a damaged database",
        cause=_damaged_version,
        said="…/PG_VERSION is damaged: it should hold PostgreSQL's major version, such as 17. Put "
        "back a copy of its directory, or run `make local-clean`, which removes the data.",
    ),
    Raised(
        name="a database that can't be made",
        cause=_programs_that_fail,
        said="PostgreSQL could not make its database: the reason…",
    ),
    Raised(
        name="a database that has ended before it is looked at",
        cause=_gone_at_once,
        said="PostgreSQL did not start: … Its log: …/state/log/mlflow.log",
    ),
    Raised(
        name="an Output that decides what is declared",
        cause=_decides_later,
        said="""\
1 setting to correct, nothing was changed:
  memory
    given:   an Output, which is known later
    wanted:  a plain value: it decides what is declared
    example: memory=pulumi.Config().require("memory")""",
    ),
    Raised(
        name="no Docker daemon",
        cause=docker_daemon.require,
        said="No Docker daemon answers at unix:///nowhere/docker.sock, and with builder docker it "
        "is what builds the image. Start Docker, or let Google build: pulumi config set builder "
        "cloud-build, or name a ready image: pulumi config set image "
        "us-central1-docker.pkg.dev/my-project/mlflow/server@sha256:...",
    ),
)

# ---- what takes a fault, or longer than a row may ------------------------------------------

SCHEMA = "tests/server/test_schema.py::"
SECRETS = "tests/server/test_secrets.py::"
PROCESSES = "tests/local/test_standins_processes.py::"
GOOGLE_LOGIN = "tests/local/test_google_login.py::"
SECRET = "secret projects/my-project/secrets/secret_1/versions/1"

ELSEWHERE = (
    Elsewhere(
        test=f"{SCHEMA}test_a_newer_schema_is_refused",
        said="the database's schema is at revision fromthefuture, which this MLflow does not know: "
        "a newer server has upgraded it. Deploy that version again, or restore the database to "
        "the point in time that is in the upgrade's log line (docs/runbooks.md)",
    ),
    Elsewhere(
        test=f"{SCHEMA}test_a_migration_that_fails_changes_nothing_and_is_made_up_for",
        said="the schema could not be upgraded and is as it was: division by zero, SQLSTATE 22012",
    ),
    Elsewhere(
        test=f"{SCHEMA}test_tables_that_stay_in_use_are_told",
        said="the schema could not be upgraded and is as it was: canceling statement due to lock "
        "timeout, SQLSTATE 55P03. Whoever uses the table is in pg_stat_activity; start this "
        "server again",
    ),
    Elsewhere(
        test=f"{SCHEMA}test_a_held_lock_is_waited_for_and_given_up",
        said="another instance has been upgrading the schema for 70 s: see its log; this one will "
        "be started again",
    ),
    Elsewhere(
        test=f"{SCHEMA}test_a_database_that_accepts_and_never_answers_is_given_up",
        said="the database can't be reached within 1 s (it is silent): is the instance running, "
        "and has the service's account roles/cloudsql.client?",
    ),
    Elsewhere(
        test="tests/server/test_boot.py::test_a_wrong_database_password_ends_the_boot",
        said="the database refuses the user's password: run pulumi up, which sets it in both "
        "places",
    ),
    Elsewhere(
        test=f"{SECRETS}test_the_deadline_ends_it",
        said=f"{SECRET} could not be read in time: Secret Manager answers ServiceUnavailable. "
        "Start a new revision; if that fails too, see https://status.cloud.google.com",
    ),
    Elsewhere(
        test=f"{SECRETS}test_an_answer_that_is_none_of_these_is_told",
        said=f"{SECRET} could not be read: Secret Manager answers Conflict",
    ),
    Elsewhere(
        test=f"{SECRETS}test_a_token_that_is_not_accepted_is_told",
        said=f"{SECRET} may not be read: Secret Manager does not accept the token of "
        "mlflow-server@my-project.iam.gserviceaccount.com. Is the account disabled or deleted? "
        "pulumi up makes it again",
    ),
    Elsewhere(
        test=f"{SECRETS}test_an_account_without_a_token_is_told",
        said="No token for the service account in time: TransportError from the metadata server. "
        "Is the account disabled or deleted? If not, start a new revision",
    ),
    Elsewhere(
        test="tests/server/test_admission.py::test_one_too_many_is_refused_before_its_body_is_read",
        said="The server is answering 80 requests already, which is as many as it takes at a time: "
        "try again in a moment",
    ),
    Elsewhere(
        test="tests/server/test_pool.py::"
        "test_a_connection_that_does_not_become_free_is_an_error_that_says_so",
        said="The database can't answer at the moment, try again: no connection of 1 became free "
        "within 30 s",
    ),
    Elsewhere(
        test="tests/server/test_logs.py::test_an_application_that_fails_is_answered_for",
        said="The request's body has broken off: send it again.",
    ),
    Elsewhere(
        test="tests/server/test_logs.py::test_an_application_that_fails_is_answered_for",
        said="The server has failed at this; its log says why.",
    ),
    Elsewhere(
        test=f"{PROCESSES}test_a_boot_that_fails_shows_the_servers_last_words",
        said="The server ended with exit code 1 before it was ready. It said: secret x: no access\n"
        "  Its log: …/log/server.log",
    ),
    Elsewhere(
        test=f"{PROCESSES}test_a_boot_has_its_declared_time",
        said="The server did not answer /health within 1 s. It said: nothing\n"
        "  Its log: …/log/server.log",
    ),
    Elsewhere(
        test=f"{PROCESSES}test_a_directory_that_someone_else_put_there_is_refused",
        said="/tmp/mlflow-gcp-0-1a2b3c4d exists and is not this user's directory: remove it and "
        "start again.",
    ),
    Elsewhere(
        test="tests/local/test_standins_postgres.py::test_an_unknown_tier_is_refused",
        said="Cloud SQL tier 'db-n1-standard-1' is not known here.",
    ),
    Elsewhere(
        test="tests/local/test_lifecycle.py::test_a_busy_port_is_named",
        said="Port 8080 can't be used (Address already in use). Take another: "
        "`make local PORT=43210`.",
    ),
    Elsewhere(
        test="tests/local/test_lifecycle.py::test_direct_mode_takes_google_credentials",
        said="The artifacts of this experiment are in gs://my-bucket/1, and there are no Google "
        "credentials here. Run gcloud auth application-default login, or set "
        "GOOGLE_APPLICATION_CREDENTIALS to a key file",
    ),
    Elsewhere(
        test=f"{GOOGLE_LOGIN}test_neither_login_is_enough_alone",
        said="https://mlflow.example.com answers 403 where an MLflow server says its version (if "
        "the stack's access is iam or iap: pip install sample_client/google_login, and set "
        "MLFLOW_TRACKING_AUTH to google-iam or google-iap): …",
    ),
    Elsewhere(
        test=f"{GOOGLE_LOGIN}test_neither_login_is_enough_alone",
        said="train@my-project.iam.gserviceaccount.com may not sign a token for Identity-Aware "
        "Proxy (403: …). It needs roles/iam.serviceAccountTokenCreator on itself",
    ),
    Elsewhere(
        test=f"{GOOGLE_LOGIN}test_a_login_that_is_not_enough_says_what_is",
        said="The Google login here has no ID token. Run gcloud auth application-default login "
        "again, or name a service account in GOOGLE_APPLICATION_CREDENTIALS",
    ),
    Elsewhere(
        test=f"{GOOGLE_LOGIN}test_a_login_that_is_not_enough_says_what_is",
        said="Identity-Aware Proxy lets programs in as a service account, and the Google login "
        "here is not one's. Run gcloud auth application-default login "
        "--impersonate-service-account=train@my-project.iam.gserviceaccount.com",
    ),
    Elsewhere(
        test=f"{GOOGLE_LOGIN}test_a_token_is_sent_to_its_own_server_only",
        said="http://mlflow.example.com is plain http, which anyone on the way can read, so no "
        "Google token is sent there. Set MLFLOW_TRACKING_URI to the stack's output tracking_uri, "
        "for example https://mlflow-123456789012.us-central1.run.app; http is only for this "
        "computer, for example http://localhost:8080",
    ),
    Elsewhere(
        test="tests/local/test_prepare.py::test_a_store_becomes_the_servers",
        said="…/0: no such folder here, nothing is uploaded",
    ),
)
