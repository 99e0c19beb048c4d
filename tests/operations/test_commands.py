"""Every command on a Pulumi stack: the programs that it calls, and what it prints."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from operations.logs import following, logs
from operations.monitoring import CONNECTIONS, DISK, INSTANCES, OBJECTS, STORED
from operations.stack import CloudStack
from tests.operations.machine import INSTANCE, OUTPUTS, PASSWORD, TOKEN, Machine
from tests.page_commands import stand_in

WHERE = ("--region=us-central1", "--project=my-project")
FILTER = (
    'resource.type="cloud_run_revision" AND resource.labels.service_name="mlflow" AND '
    'resource.labels.location="us-central1" AND '
    '(NOT log_id("run.googleapis.com/requests") OR severity>=WARNING)'
)
READ = ("logging", "read", FILTER)
READ_HOUR = (*READ, "--freshness=1h", "--limit=1000", "--order=desc", "--project=my-project")
SERVICE = ("run", "services", "describe", "mlflow", *WHERE)
DATABASE = ("sql", "instances", "describe", "mlflow-1a2b3c", "--project=my-project")
BACKUP = (
    *("sql", "backups", "create", "--instance=mlflow-1a2b3c", "--project=my-project"),
    "--description=make backup of stack dev",
)
URL = ("secrets", "versions", "access", "latest", "--secret=mlflow_database_url")
SECRET = (*URL, "--project=my-project")
DATABASE_PASSWORD = "a/b@c:%$"
DATABASE_URL = f"postgresql+pg8000://mlflow-alternate:a%2Fb%40c%3A%25%24@/mlflow?unix_sock=/cloudsql/{INSTANCE}"
JSON = "--format=json"


# open


def test_the_page_is_opened_without_the_password(deployed: Machine) -> None:
    deployed.has("a-browser")
    deployed.tell(["a-browser", OUTPUTS["tracking_uri"]])
    deployed.environment["BROWSER"] = str(deployed.bin / "a-browser")
    done = deployed.run("--stack", "dev", "open")
    assert done.returncode == 0, done.stderr
    assert deployed.calls("a-browser") == [[OUTPUTS["tracking_uri"]]]
    assert done.stdout == (
        f"{OUTPUTS['tracking_uri']} is open in the browser.\n"
        "Log in as mlflow; `make env STACK=dev` shows the password.\n"
    )


def test_without_a_browser_the_address_is_printed(deployed: Machine) -> None:
    # Hide this machine's own browsers.
    deployed.environment["PATH"] = str(deployed.bin)
    done = deployed.run("--stack", "dev", "open")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"No browser was found on this machine. The address: {OUTPUTS['tracking_uri']}"
        in done.stdout
    )


def test_with_iam_the_browser_needs_gclouds_proxy(machine: Machine) -> None:
    machine.stands(access="iam")
    machine.environment["PATH"] = str(machine.bin)
    done = machine.run("--stack", "dev", "open")
    proxy = "gcloud run services proxy mlflow --port 8080 --region us-central1 --project my-project"
    assert proxy in done.stdout


# logs


ENTRIES = [
    {
        "timestamp": "2026-11-23T18:00:02.5Z",
        "insertId": "c",
        "severity": "INFO",
        "httpRequest": {
            "requestMethod": "GET",
            "requestUrl": "/api/2.0/mlflow/runs/get",
            "status": 200,
            "latency": "0.012s",
            "userAgent": "x",
        },
    },
    {
        "timestamp": "2026-11-23T18:00:01.25Z",
        "insertId": "b",
        "severity": "ERROR",
        "jsonPayload": {"message": "the database is away"},
    },
    {
        "timestamp": "2026-11-23T18:00:00Z",
        "insertId": "a",
        "textPayload": "Default STARTUP probe succeeded",
    },
]


def test_logs_are_printed_in_order(deployed: Machine) -> None:
    deployed.gcloud(*READ_HOUR, JSON, stdout=json.dumps(ENTRIES))
    done = deployed.run("--stack", "dev", "logs")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2026-11-23 18:00:00Z  DEFAULT   Default STARTUP probe succeeded",
        "2026-11-23 18:00:01Z  ERROR     the database is away",
        "2026-11-23 18:00:02Z  INFO      GET /api/2.0/mlflow/runs/get 200 0.012s",
    ]


def poll(begin: str) -> tuple[str, ...]:
    found = f'{FILTER} AND timestamp>="{begin}"'
    return ("logging", "read", found, "--order=asc", "--project=my-project", JSON)


def test_followed_logs_are_printed_once_and_in_order(
    deployed: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = {"timestamp": "2026-11-23T18:01:00.123456789Z", "insertId": "d", "textPayload": "new"}
    late = {"timestamp": "2026-11-23T18:00:59Z", "insertId": "e", "textPayload": "late"}
    forever = (*READ, "--freshness=9999d", *READ_HOUR[-3:])
    deployed.gcloud(*forever, JSON, stdout=json.dumps(ENTRIES))
    first, second = poll("2026-11-23T17:59:32.500000Z"), poll("2026-11-23T18:00:30.123456Z")
    deployed.gcloud(*first, stdout=json.dumps([*ENTRIES[::-1], newer]))
    deployed.gcloud(*second, stdout=json.dumps([late, newer]))
    pauses = iter([5, 5, 5])

    def pause(seconds: float) -> None:
        if seconds != next(pauses, None):
            raise KeyboardInterrupt

    monkeypatch.setattr("operations.logs.time.sleep", pause)
    monkeypatch.setenv("PATH", deployed.environment["PATH"])
    with pytest.raises(KeyboardInterrupt):
        logs(CloudStack("dev"), since="9999d", follow=True)
    told, said = capsys.readouterr()
    shown = ["Default STARTUP", "the database is away", "GET /api", "new", "late"]
    assert all(text in line for text, line in zip(shown, told.splitlines(), strict=True)), told
    assert said == ""
    asked = [call[:-1] for call in deployed.calls("gcloud")]
    assert asked == [[*forever, JSON], [*first], [*second], [*second]]


def test_followed_logs_are_not_older_than_requested() -> None:
    start = datetime(2026, 11, 23, 18, tzinfo=UTC)
    begun = []

    def read(begin: datetime) -> list[dict[str, str]]:
        begun.append(begin)
        return [{"timestamp": "2026-11-23T18:00:10Z", "insertId": f"{len(begun)}"}]

    found = following([], read, start=start)
    assert [next(found)["insertId"] for _ in range(2)] == ["1", "2"]
    assert begun == [start, start]


def test_following_ends_quietly_with_ctrl_c(deployed: Machine) -> None:
    deployed.gcloud(*READ_HOUR, JSON, stdout="[]")
    command = [sys.executable, "-m", "operations", "--stack=dev", "logs", "--follow=1"]
    with subprocess.Popen(
        command, env=deployed.environment, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
        # A test runner in the background ignores the signal otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert "nothing was logged in the last 1h" in running.stderr.readline()
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stderr.read() == ""


def test_a_closed_output_pipe_is_not_an_error(deployed: Machine) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "operations", "--stack", "dev", "env"],
        check=False, env=deployed.environment, stdout=write, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


# status


class Answers(BaseHTTPRequestHandler):
    """The service and Cloud Monitoring, at one address."""

    values: dict[str, float]
    front: int

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path.startswith("/v3/"):
            self._metric(path, query)
        elif self.front and path != "/elsewhere":
            self._send(self.front, b"", location="/elsewhere")
        elif path == "/version" and self.headers["Authorization"] != BASIC:
            self._send(401, b"")
        elif path in ("/health", "/version", "/elsewhere"):
            self._send(200, b"3.17.2" if path == "/version" else b"OK")
        else:
            self._send(500, b"")

    def _metric(self, path: str, query: dict[str, list[str]]) -> None:
        assert path == "/v3/projects/my-project/timeSeries"
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        assert query["interval.startTime"][0] < query["interval.endTime"][0]
        if query["filter"][0] not in self.values:
            self._send(403, b"")
            return
        value = self.values[query["filter"][0]]
        point = {
            "interval": {"endTime": "2026-11-23T18:00:00Z"},
            "value": {"int64Value": f"{value:.0f}"},
        }
        self._send(200, json.dumps({"timeSeries": [{"points": [point]}]}).encode())

    def _send(self, code: int, body: bytes, *, location: str = "") -> None:
        self.send_response(code)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


BASIC = f"Basic {base64.b64encode(f'mlflow:{PASSWORD}'.encode()).decode()}"
IN_RUN = 'resource.labels.service_name="mlflow" AND resource.labels.location="us-central1"'
IN_SQL = (
    'resource.labels.project_id="my-project" AND '
    'resource.labels.database_id="my-project:mlflow-1a2b3c"'
)
IN_BUCKET = f'resource.labels.bucket_name="{OUTPUTS["artifact_bucket"]}"'
VALUES = {
    f'metric.type="{INSTANCES}" AND {IN_RUN}': 2,
    f'metric.type="{DISK}" AND {IN_SQL}': 1.2e9,
    f'metric.type="{CONNECTIONS}" AND {IN_SQL}': 9,
    f'metric.type="{STORED}" AND {IN_BUCKET}': 34.5e9,
    f'metric.type="{OBJECTS}" AND {IN_BUCKET}': 1234,
}


@contextmanager
def answering(machine: Machine, *, front: int = 0, **values: float) -> Iterator[str]:
    handler = type("Handler", (Answers,), {"values": VALUES | values, "front": front})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        machine.environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING"] = f"{address}/"
        yield address
        server.shutdown()


def described(machine: Machine) -> None:
    revisions = {
        "latestCreatedRevisionName": "mlflow-00007",
        "latestReadyRevisionName": "mlflow-00007",
        "traffic": [{"revisionName": "mlflow-00007", "percent": 100, "latestRevision": True}],
    }
    database = {
        "name": "mlflow-1a2b3c",
        "state": "RUNNABLE",
        "databaseInstalledVersion": "POSTGRES_17_4",
        "settings": {
            "tier": "db-custom-2-7680",
            "dataDiskSizeGb": "50",
            "availabilityType": "REGIONAL",
        },
    }
    machine.gcloud(*SERVICE, JSON, stdout=json.dumps({"status": revisions}))
    machine.gcloud(*DATABASE, JSON, stdout=json.dumps(database))
    machine.gcloud("auth", "print-access-token", stdout=f"{TOKEN}\n")


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout
    assert TOKEN not in done.stdout
    rows = [row.split("  ", 1) for row in done.stdout.splitlines()[2:]]
    return {name: text.strip() for name, text in rows}


def test_status_of_a_complete_stack(machine: Machine) -> None:
    with answering(machine) as address:
        machine.stands(outputs={"tracking_uri": address})
        described(machine)
        told = lines(machine.run("--stack", "dev", "status"))
    answers = r"yes, in \d+\.\d s; MLflow 3\.17\.2 with the password"
    assert re.fullmatch(answers, told.pop("answers"))
    bucket = OUTPUTS["artifact_bucket"]
    assert told == {
        "version": OUTPUTS["version"],
        "revision": "100 % mlflow-00007",
        "instances": "2, some minutes ago",
        "database": "mlflow-1a2b3c is RUNNABLE, PostgreSQL 17.4, db-custom-2-7680, with a standby, "
        "50 GB of disk",
        "in use": "1.2 GB of disk, connections: 9",
        "storage": f"{bucket}: 34.5 GB, 1234 objects, with older versions, at the last day's end",
        "cost a month": OUTPUTS["monthly_cost_estimate"],
    }
    assert machine.calls("gcloud").count(["auth", "print-access-token", "--quiet"]) == 1


def test_missing_facts_are_explained_and_the_rest_is_shown(machine: Machine) -> None:
    machine.stands(outputs={"tracking_uri": "http://127.0.0.1:9"})
    denied = "ERROR: (gcloud.run.services.describe) PERMISSION_DENIED: you may not\nmore\n"
    machine.gcloud(*SERVICE, JSON, stderr=denied, code=1)
    not_logged_in = "ERROR: (gcloud.x) You do not currently have…\n\n  $ gcloud auth login\n"
    machine.gcloud(*DATABASE, JSON, stderr=not_logged_in, code=1)
    machine.gcloud("auth", "print-access-token", stderr=not_logged_in, code=1)
    told = lines(machine.run("--stack", "dev", "status"))
    login = "not known: gcloud isn't logged in: `gcloud auth login`."
    assert told["answers"].startswith("not known: no answer from http://127.0.0.1:9/health")
    assert told["revision"] == (
        "not known: gcloud run services describe: PERMISSION_DENIED: you may not"
    )
    assert {told[part] for part in ("database", "instances", "in use", "storage")} == {login}
    assert told["cost a month"] == OUTPUTS["monthly_cost_estimate"]


def test_the_password_does_not_follow_a_redirect(machine: Machine) -> None:
    with answering(machine, front=302) as address:
        machine.stands(outputs={"tracking_uri": address}, access="iap")
        described(machine)
        told = lines(machine.run("--stack", "dev", "status"))
    assert told["answers"] == (
        "not as expected: /health 302, /version with the password 302; "
        "with access iap, Google's front decides first"
    )


def test_a_refused_password_is_reported(machine: Machine) -> None:
    with answering(machine) as address:
        machine.stands(outputs={"tracking_uri": address, "tracking_username": "another"})
        described(machine)
        told = lines(machine.run("--stack", "dev", "status"))
    assert told["answers"].startswith("yes, but it refuses the password: `pulumi up`")


# rotate


HISTORY = ("stack", "history", "--json", "--page-size", "100")


def history(*updates: tuple[str, str, str | None]) -> str:
    return json.dumps(
        [
            {
                "kind": kind,
                "result": result,
                "config": {"mlflow-gcp:databasePasswordVersion": {"value": version}}
                if version
                else {},
            }
            for kind, result, version in updates
        ]
    )


@pytest.mark.parametrize(
    ("updates", "wanted"),
    [
        ([("update", "succeeded", None)], "2"),
        ([("update", "succeeded", "1"), ("update", "failed", "1")], "2"),
        ([("refresh", "failed", "9"), ("update", "succeeded", "4")], "5"),
    ],
    ids=["the default", "the first", "the fourth"],
)
def test_rotating_increments_the_running_version(
    deployed: Machine, updates: list[tuple[str, str, str | None]], wanted: str
) -> None:
    deployed.pulumi(*HISTORY, stdout=history(*updates))
    deployed.pulumi("config", "set", "mlflow-gcp:databasePasswordVersion", wanted)
    deployed.tell(["pulumi", "up", "--stack", "dev"], "asks\n")
    done = deployed.run("--stack", "dev", "rotate", "--what", "database")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"databasePasswordVersion is {wanted} now, in Pulumi.dev.yaml." in done.stdout
    assert "Clients aren't affected." in done.stdout
    assert "asks\nDone." in done.stdout


def test_a_declined_rotation_shows_how_to_undo_it(deployed: Machine) -> None:
    deployed.pulumi(*HISTORY, stdout=history(("update", "succeeded", "3")))
    deployed.pulumi("config", "set", "mlflow-gcp:databasePasswordVersion", "4")
    deployed.tell(["pulumi", "up", "--stack", "dev"], code=255)
    done = deployed.run("--stack", "dev", "rotate", "--what", "database")
    assert done.returncode == 1
    assert "`pulumi config set databasePasswordVersion 3 --stack dev` undoes it" in done.stderr
    assert "Done" not in done.stdout


@pytest.mark.parametrize(
    "updates",
    [[("update", "failed", "2"), ("update", "succeeded", "1")], [("destroy", "succeeded", "1")]],
    ids=["stopped halfway", "never up"],
)
def test_rotation_waits_for_the_last_change(
    deployed: Machine, updates: list[tuple[str, str, str | None]]
) -> None:
    deployed.pulumi(*HISTORY, stdout=history(*updates))
    done = deployed.run("--stack", "dev", "rotate", "--what", "database")
    assert done.returncode == 1
    assert "run `pulumi up` until it succeeds" in done.stderr
    assert "config set" not in str(deployed.calls("pulumi"))


def tracking(version: str) -> str:
    config = {"mlflow-gcp:trackingPasswordVersion": {"value": version}}
    return json.dumps([{"kind": "update", "result": "succeeded", "config": config}])


def rotated(machine: Machine, version: str, *changes: tuple[str, ...]) -> None:
    machine.pulumi(*HISTORY, stdout=tracking(version))
    for change in changes:
        machine.pulumi("config", *change)
    machine.tell(["pulumi", "up", "--stack", "dev"])


PREVIOUS = "mlflow-gcp:previousTrackingPassword"
LATER = f"{datetime.now(UTC) + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
USED = (
    "logging",
    "read",
    'resource.type="cloud_run_revision" AND resource.labels.service_name="mlflow" AND '
    'resource.labels.location="us-central1" AND jsonPayload.previous_password="tracking"',
    *("--freshness=24h", "--limit=1000", "--project=my-project", "--format=json"),
)
CLIENTS = json.dumps([{"jsonPayload": {"client": client}} for client in ("a", "b", "a")])


def test_a_rotated_password_is_accepted_for_a_day_more(deployed: Machine) -> None:
    rotated(deployed, "1", ("set", "mlflow-gcp:trackingPasswordVersion", "2"))
    before = datetime.now(UTC)
    deployed.run("--stack", "dev", "rotate")
    [until] = [call[3] for call in deployed.calls("pulumi") if call[2:3] == [PREVIOUS]]
    version, _, time = until.partition(" until ")
    assert version == "1"
    assert before + timedelta(hours=23.9) < datetime.fromisoformat(time)
    assert datetime.fromisoformat(time) < datetime.now(UTC) + timedelta(hours=24.1)


def test_a_leaked_password_ends_at_once(machine: Machine) -> None:
    machine.stands(previousTrackingPassword=f"1 until {LATER}", trackingPasswordVersion="2")
    machine.gcloud(*USED, stdout=CLIENTS)
    rotated(
        machine,
        "2",
        ("set", "mlflow-gcp:trackingPasswordVersion", "3"),
        ("rm", PREVIOUS),
    )
    done = machine.run("--stack", "dev", "rotate", "--hours", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 addresses" in done.stdout
    assert ["config", "rm", PREVIOUS, "--stack", "dev", "--non-interactive"] in machine.calls(
        "pulumi"
    )


def test_a_previous_password_can_be_ended(machine: Machine) -> None:
    machine.stands(previousTrackingPassword=f"1 until {LATER}", trackingPasswordVersion="2")
    machine.gcloud(*USED, stdout=CLIENTS)
    rotated(machine, "2", ("rm", PREVIOUS))
    done = machine.run("--stack", "dev", "rotate", "--end", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 addresses" in done.stdout
    assert "trackingPasswordVersion is" not in done.stdout


def test_a_second_rotation_names_the_clients_that_would_be_refused(machine: Machine) -> None:
    machine.stands(previousTrackingPassword=f"1 until {LATER}", trackingPasswordVersion="2")
    machine.gcloud(*USED, stdout=CLIENTS)
    rotated(machine, "2")
    done = machine.run("--stack", "dev", "rotate")
    assert done.returncode == 1
    assert "2 addresses" in done.stdout
    assert "END=1" in done.stderr
    assert not [call for call in machine.calls("pulumi") if call[:2] == ["config", "set"]]


@pytest.mark.parametrize(
    "previous",
    ["1 until 2020-01-01T00:00:00Z", f"7 until {LATER}", ""],
    ids=["expired", "of another version", "none"],
)
def test_there_may_be_no_previous_password_to_end(machine: Machine, previous: str) -> None:
    machine.stands(previousTrackingPassword=previous, trackingPasswordVersion="2")
    rotated(machine, "2")
    done = machine.run("--stack", "dev", "rotate", "--end", "1")
    assert done.returncode == 1
    assert "make rotate WHAT=tracking" in done.stderr


# backup


def test_a_backup_shows_the_command_that_restores_it(deployed: Machine) -> None:
    deployed.gcloud(*BACKUP)
    done = deployed.run("--stack", "dev", "backup")
    assert done.returncode == 0, done.stderr
    assert deployed.calls("gcloud") == [[*BACKUP, "--quiet"]]
    restore = "gcloud sql backups restore BACKUP_ID --restore-instance mlflow-1a2b3c "
    assert f"{restore}--project my-project" in done.stdout


def test_a_backup_of_an_existing_instance_has_a_warning(machine: Machine) -> None:
    machine.stands(existingDatabaseInstance=INSTANCE)
    machine.gcloud(*BACKUP)
    done = machine.run("--stack", "dev", "backup")
    assert "isn't the stack's own: a backup or restore covers everything in it" in done.stdout


# upkeep


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_upkeep_job_is_run_and_its_log_shown(machine: Machine, dry_run: bool) -> None:
    machine.stands(cleanupAfterDays="30")
    given = ["--args=--dry-run"] if dry_run else []
    execute = ["run", "jobs", "execute", "mlflow-upkeep", "--wait", *given]
    execution = {"metadata": {"name": "mlflow-upkeep-x7k2p"}}
    where = ("--region=us-central1", "--project=my-project")
    machine.gcloud(*execute, *where, "--format=json", stdout=json.dumps(execution))
    read = (
        *("logging", "read"),
        'resource.type="cloud_run_job" AND resource.labels.location="us-central1"'
        ' AND labels."run.googleapis.com/execution_name"="mlflow-upkeep-x7k2p"',
        *("--limit=1000", "--order=asc", "--freshness=1d", "--project=my-project"),
    )
    entry = {
        "timestamp": "2026-11-23T07:30:01.5Z",
        "severity": "INFO",
        "jsonPayload": {"message": "upkeep: done"},
    }
    machine.gcloud(*read, "--format=json", stdout=json.dumps([entry]))
    done = machine.run("--stack", "dev", "upkeep", *(["--dry-run=1"] if dry_run else []))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2026-11-23 07:30:01Z  INFO      upkeep: done\n"


# psql


PROXY = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
from pathlib import Path
here = Path(__file__).parent
with (here / "calls").open("a") as calls:
    print(json.dumps(["cloud-sql-proxy", *sys.argv[1:]]), file=calls)
(here / "proxy.pid").write_text(str(os.getpid()))
if (here / "trouble").exists():
    sys.exit((here / "trouble").read_text())

def note(signum, _frame):
    (here / f"signal-{{signum}}").touch()
    sys.exit()

signal.signal(signal.SIGINT, note)
signal.signal(signal.SIGTERM, note)
if (here / "later").exists():
    print((here / "later").read_text(), file=sys.stderr, flush=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[-1].partition("?unix-socket-path=")[2])
signal.pause()
"""
PSQL = f"""#!{sys.executable} -IS
import json, os, stat, sys
from pathlib import Path
here = Path(__file__).parent
said = {{name: value for name, value in os.environ.items() if name.startswith("PG")}}
found = Path(said["PGHOST"], ".s.PGSQL." + said["PGPORT"])
said["socket"] = stat.S_ISSOCK(found.stat().st_mode)
said["private"] = stat.S_IMODE(found.parent.stat().st_mode) == 0o700
print(json.dumps([sys.argv[1:], said, sys.stdin.read()]))
sys.exit(int((here / "code").read_text()) if (here / "code").exists() else 0)
"""


@pytest.fixture
def prompt(deployed: Machine) -> Machine:
    stand_in(deployed.bin, "cloud-sql-proxy", PROXY)
    stand_in(deployed.bin, "psql", PSQL)
    deployed.gcloud(*SECRET, stdout=DATABASE_URL)
    # The user's variable for another database.
    deployed.environment |= {"PGHOSTADDR": "10.0.0.1", "PGSERVICE": "other", "PGUSER": "me"}
    return deployed


def ended(machine: Machine) -> bool:
    """Returns whether the proxy ended by SIGTERM, not by the Ctrl-C meant for psql."""
    pid = int((machine.bin / "proxy.pid").read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return [path.name for path in machine.bin.glob("signal-*")] == ["signal-15"]
    return False


@pytest.mark.parametrize("write", [False, True], ids=["only reads", "writes"])
def test_psql_connects_through_the_proxy(prompt: Machine, write: bool) -> None:
    done = prompt.run(
        *("--stack", "dev", "psql", *(["--write=1"] if write else [])), stdin="select 1"
    )
    assert done.returncode == 0, done.stderr
    arguments, environment, given = json.loads(done.stdout)
    sockets = environment.pop("PGHOST")
    assert prompt.calls("cloud-sql-proxy") == [
        ["--quiet", f"{INSTANCE}?unix-socket-path={sockets}/.s.PGSQL.5432"]
    ]
    assert (arguments, given) == (["--set=ON_ERROR_STOP=1"], "select 1")
    assert environment == {
        "PGPORT": "5432",
        "PGUSER": "mlflow-alternate",
        "PGPASSWORD": DATABASE_PASSWORD,
        "PGDATABASE": "mlflow",
        "PGSSLMODE": "disable",
        "PGOPTIONS": "" if write else "-c default_transaction_read_only=on",
        "socket": True,
        "private": True,
    }
    assert DATABASE_PASSWORD not in done.stderr
    assert ended(prompt)
    assert not os.path.exists(sockets)


def test_a_private_database_is_reached_at_its_private_address(machine: Machine) -> None:
    machine.stands(network="private")
    stand_in(machine.bin, "cloud-sql-proxy", PROXY)
    stand_in(machine.bin, "psql", PSQL)
    machine.gcloud(*SECRET, stdout=DATABASE_URL)
    assert machine.run("--stack", "dev", "psql").returncode == 0
    [arguments] = machine.calls("cloud-sql-proxy")
    assert "--private-ip" in arguments


def test_the_reason_why_the_proxy_failed_is_shown(prompt: Machine) -> None:
    (prompt.bin / "trouble").write_text("error: could not find default credentials. See x")
    done = prompt.run("--stack", "dev", "psql")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cloud-sql-proxy did not start: could not find default credentials" in done.stderr
    assert "`gcloud auth application-default login` makes them" in done.stderr


def test_a_failed_connection_has_the_proxys_reason(prompt: Machine) -> None:
    (prompt.bin / "later").write_text("2026/11/23 18:00:00 failed to connect: NOT_AUTHORIZED")
    (prompt.bin / "code").write_text("2")
    done = prompt.run("--stack", "dev", "psql")
    assert done.returncode == 1
    assert "no connection to the database of stack dev. cloud-sql-proxy: " in done.stderr
    assert "NOT_AUTHORIZED" in done.stderr
    assert ended(prompt)


def test_psqls_own_error_is_its_exit_code(prompt: Machine) -> None:
    (prompt.bin / "code").write_text("3")
    assert prompt.run("--stack", "dev", "psql").returncode == 3


@pytest.mark.parametrize(
    ("send", "signum", "code"),
    [
        (os.killpg, signal.SIGINT, 0),
        (os.killpg, signal.SIGHUP, 128 + signal.SIGHUP),
        (os.kill, signal.SIGTERM, 128 + signal.SIGTERM),
    ],
    ids=["Ctrl-C, which is psql's", "a terminal that is closed", "from outside"],
)
def test_the_proxy_ends_with_psql(
    prompt: Machine, send: Callable[[int, int], None], signum: int, code: int
) -> None:
    psql = """#!{python} -IS
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit())
print("on", flush=True)
time.sleep(60)
"""
    stand_in(prompt.bin, "psql", psql.format(python=sys.executable))
    command = [sys.executable, "-m", "operations", "--stack", "dev", "psql"]
    with subprocess.Popen(
        command, env=prompt.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "on\n"
        send(running.pid, signum)
        assert running.wait(20) == code
        # psql has the pipe open too.
        assert running.stdout.read() == ""
    assert ended(prompt)


def test_gclouds_own_parser_accepts_every_command(tmp_path: object) -> None:
    """gcloud exits with 2 for unknown arguments, before it needs a login."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("needs gcloud, which isn't on this machine")
    environment = {"PATH": os.environ["PATH"], "CLOUDSDK_CONFIG": str(tmp_path)}
    environment |= {"CLOUDSDK_CORE_CHECK_GCE_METADATA": "false"}

    def code(command: tuple[str, ...]) -> int:
        return subprocess.run(
            [gcloud, *command], check=False, env=environment, capture_output=True, timeout=120
        ).returncode

    commands = [
        (*SERVICE, "--quiet", JSON),
        (*DATABASE, "--quiet", JSON),
        (*READ_HOUR, "--quiet", JSON),
        (*poll("2026-11-23T18:00:00.000000Z"), "--quiet"),
        (*BACKUP, "--quiet"),
        (*SECRET, "--quiet"),
        ("auth", "print-access-token", "--quiet"),
        (*BACKUP, "--no-such-flag"),
    ]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(code, commands)) == [1, 1, 1, 1, 1, 1, 1, 2]
