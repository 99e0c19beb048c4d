"""Every command on the local stack, with its real server and database."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_google.state import SETTINGS, State
from operations import status
from operations.backup import backup
from operations.database import program
from operations.errors import OperationError
from operations.logs import logs
from operations.rotate import _alone, rotate
from operations.stack import LocalStack
from tests.local.conftest import ROOT, Stack
from tests.local.google_front import ACCESS_TOKEN, ACCOUNT, front
from tests.operations.machine import Machine
from tests.operations.test_env import evaluated


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.temporary(config=("accounts=true", "cleanupAfterDays=1")) as stack:
        yield stack


def operate(stack: Stack, *arguments: str, stdin: str = "", **changed: str) -> str:
    """Returns the command's output. Pulumi is not on PATH, so the local stack is the default."""
    environment = {"PATH": os.defpath, "HOME": str(stack.folder / "home"), **changed}
    done = subprocess.run(
        [sys.executable, "-m", "operations", "--state", str(stack.folder), *arguments],
        check=False, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the server on this computer: Pulumi isn't installed" in done.stderr
    return done.stdout


def ask(
    stack: Stack, path: str, *, password: str, body: object = None, username: str = "mlflow"
) -> int:
    """A request's status."""
    login = b64encode(f"{username}:{password}".encode()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.port}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def password_of(stack: Stack) -> str:
    return stack.environment()["MLFLOW_TRACKING_PASSWORD"]


@pytest.mark.parametrize("format", ["shell", "direnv"])
def test_env_prints_what_the_local_stack_wrote(stack: Stack, format: str) -> None:
    wanted = {k: v for k, v in stack.environment().items() if k.startswith("MLFLOW_")}
    assert evaluated(operate(stack, "env", "--format", format), by="bash") == wanted


def test_open_and_status(stack: Stack) -> None:
    address = f"http://127.0.0.1:{stack.port}"
    assert f"{address} is open in the browser." in operate(stack, "open", BROWSER="/bin/true")
    # The user's own proxy must not be used for local addresses.
    told = operate(stack, "status", http_proxy="http://127.0.0.1:9")
    for row in (
        r"version +mlflow-gcp \d\S+",
        r"answers +yes, in \d+\.\d s; MLflow \d[\d.]+ with the password",
        r"server +process \d+, \d+ MB of memory",
        r"database +PostgreSQL \d+\.\d+, [\d.]+ MB of disk, connections: \d+",
        r"storage +local-project-mlflow-artifacts-\w+: 0 bytes, 0 objects",
        r"cost a month +[\d.]+ USD idle, .*",
    ):
        assert re.search(f"^{row}$", told, re.MULTILINE), told


def test_logs_have_times_and_can_be_followed(stack: Stack) -> None:
    assert ask(stack, "/no-such-page", password="wrong") == 401
    told = operate(stack, "logs", "--since", "5m")
    assert re.search(r"^20\S+ [\d:]{8}Z  INFO      GET /no-such-page 401 ", told, re.MULTILINE)
    command = [sys.executable, "-m", "operations", "--state", str(stack.folder)]
    command += ["--stack", "local", "logs", "--follow=1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout is not None
            seen = iter(following.stdout)
            next(seen)
            ask(stack, "/a-later-page", password="wrong")
            until = time.monotonic() + 30
            assert any("/a-later-page" in line or time.monotonic() > until for line in seen)
        finally:
            following.terminate()


def test_a_period_without_logs_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = LocalStack(State(tmp_path))
    here.log.parent.mkdir()
    here.log.write_text('{"timestamp": "2020-11-23T18:00:00Z", "message": "booted"}\n')
    logs(here, since="0h", follow=False)
    told, said = capsys.readouterr()
    assert told == ""
    assert "0h" in said
    assert "SINCE=1d" in said


def test_upkeep_deletes_what_was_deleted_long_ago(stack: Stack) -> None:
    login, runs = password_of(stack), "/api/2.0/mlflow/runs"
    assert ask(stack, f"{runs}/create", password=login, body={"experiment_id": "0"}) == 200
    path = str(stack.folder)
    mark = "update runs set lifecycle_stage = 'deleted', deleted_time = 1 returning run_uuid;"
    [run] = re.findall("[0-9a-f]{32}", operate(stack, "psql", "--write=1", stdin=mark, PATH=path))
    told = operate(stack, "upkeep", "--dry-run=1")
    assert f"INFO      would delete run {run} " in told
    assert ask(stack, f"{runs}/get?run_id={run}", password=login) == 200
    told = operate(stack, "upkeep")
    assert f"INFO      deleted run {run} " in told
    assert told.splitlines()[-1].endswith("upkeep: done")
    assert ask(stack, f"{runs}/get?run_id={run}", password=login) == 404


def test_psql_is_read_only_without_the_write_option(stack: Stack) -> None:
    # psql isn't on PATH: the command uses the one that came with the server.
    path = str(stack.folder)
    count = "select 'experiments: ' || count(*) from experiments;"
    assert "experiments: " in operate(stack, "psql", stdin=count, PATH=path)
    with pytest.raises(AssertionError, match="cannot execute CREATE TABLE in a read-only"):
        operate(stack, "psql", stdin="create table scratch (x int);", PATH=path)
    script = "create table scratch (x int); drop table scratch;"
    assert "DROP TABLE" in operate(stack, "psql", "--write=1", stdin=script, PATH=path)


def test_a_backup_can_be_restored(stack: Stack) -> None:
    create, password = "/api/2.0/mlflow/experiments/create", password_of(stack)
    assert ask(stack, create, password=password, body={"name": "before"}) == 200
    said = operate(stack, "backup")
    file = stack.folder / "backups" / os.path.basename(said.splitlines()[0])
    assert file.stat().st_mode & 0o777 == 0o600
    assert ask(stack, create, password=password, body={"name": "after"}) == 200
    assert f"make psql STACK=local WRITE=1 < {file}" in said
    operate(stack, "psql", "--write=1", stdin=file.read_text())
    get = "/api/2.0/mlflow/experiments/get-by-name?experiment_name="
    assert ask(stack, f"{get}before", password=password) == 200
    assert ask(stack, f"{get}after", password=password) == 404
    # The server continues with the restored data.
    assert ask(stack, create, password=password, body={"name": "after"}) == 200


def test_people_are_added_changed_and_removed(stack: Stack) -> None:
    ada, path = "ada@example.com", "/api/2.0/mlflow/experiments/get?experiment_id=0"

    def people(what: str, *more: str) -> str:
        return operate(stack, "people", "--what", what, "--person", ada, *more)

    def password_in(told: str) -> str:
        return str(re.search("shown only now: (.{32})$", told, re.MULTILINE)[1])  # type: ignore[index]

    def status(password: str) -> int:
        return ask(stack, path, password=password, username=ada)

    told = people("add")
    first = password_in(told)
    assert f"http://127.0.0.1:{stack.port}" in told
    assert status(first) == 200  # the default permission is READ
    second = password_in(people("reset"))
    assert [status(first), status(second)] == [401, 200]
    experiment = ("--resource", "experiment/0", "--permission")
    for permission, expected in (("DENY", 403), ("EDIT", 200)):
        people("grant", *experiment, permission)
        assert status(second) == expected
    people("revoke", "--resource", "experiment/0")
    people("promote")
    assert re.search(f"^{ada} +administrator$", operate(stack, "people"), re.MULTILINE)
    people("demote")
    assert ada in operate(stack, "people").splitlines()
    with pytest.raises(AssertionError, match="409: |400: .*already exists"):
        people("add")
    people("remove")
    assert status(second) == 401
    assert ada not in operate(stack, "people")


@pytest.mark.parametrize(
    ("pg_dump", "error", "said"),
    [
        ("false", OperationError, "pg_dump: exit code 1"),
        ("no-such-program", FileNotFoundError, "no-such-program"),
    ],
)
def test_a_failed_backup_leaves_no_file(
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    pg_dump: str,
    error: type[Exception],
    said: str,
) -> None:
    monkeypatch.setattr("operations.backup.program", lambda *_: pg_dump)
    before = {*stack.folder.glob("backups/*")}
    with pytest.raises(error, match=said):
        backup(LocalStack(State(stack.folder)))
    assert {*stack.folder.glob("backups/*")} == before


def test_the_restore_command_quotes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = LocalStack(State(tmp_path / "it's a folder"))
    here.entry = {"outputs": {"database_connection_name": "my-project:here:mlflow"}}
    here.database_url = lambda: "postgresql+pg8000://mlflow:word@/mlflow"  # type: ignore[method-assign]
    monkeypatch.setattr("operations.backup.program", lambda *_: "true")
    backup(here)
    file, *_, command, _ = capsys.readouterr().out.splitlines()
    assert " " in file
    assert shlex.split(command) == ["make", "psql", "STACK=local", "WRITE=1", "<", file]


def test_rotating_a_missing_viewer_is_refused(stack: Stack) -> None:
    with pytest.raises(
        AssertionError, match="make local-up CONFIG=viewerUsername=viewer`, creates one"
    ):
        operate(stack, "rotate", "--what", "viewer")


def test_rotating_restarts_the_server_with_another_password(stack: Stack) -> None:
    """The last test on this stack, because it changes the stack."""
    before = password_of(stack)
    assert "Done" in operate(stack, "rotate")
    after = password_of(stack)
    assert after != before
    assert ask(stack, "/version", password=before) == 200
    assert ask(stack, "/version", password=after) == 200
    assert "1 address has used" in operate(stack, "rotate", "--end", "1")
    assert ask(stack, "/version", password=before) == 401
    assert ask(stack, "/version", password=after) == 200
    # The first rotation is remembered, as in Pulumi.<stack>.yaml.
    operate(stack, "rotate", "--what", "database")
    assert password_of(stack) == after
    users = "select 'as ' || current_user;"
    assert "as mlflow-alternate" in operate(stack, "psql", stdin=users)


def test_two_rotations_at_once_are_refused(stack: Stack) -> None:
    local = LocalStack(State(stack.folder))
    before = local.state.load(SETTINGS)
    with (
        _alone(local.state),
        pytest.raises(AssertionError, match="Another `make rotate` is under way on this comp"),
    ):
        operate(stack, "rotate")
    assert local.state.load(SETTINGS) == before


def test_the_log_is_named_if_the_server_does_not_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = LocalStack(State(tmp_path))
    running.entry = {
        "outputs": {},
        "config": {},
        "options": {"detached": True, "config": {}, "port": 1, "command": ["python"]},
    }
    monkeypatch.setattr("operations.rotate.sys.executable", shutil.which("false"))
    with pytest.raises(OperationError) as refused:
        rotate(running, what="tracking")
    assert "`make local-up`" in str(refused.value)
    assert str(tmp_path / "log") in str(refused.value)


def test_a_foreground_server_must_be_restarted_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = LocalStack(State(tmp_path))
    running.entry = {"outputs": {}, "config": {}, "options": {"detached": False}}
    rotate(running, what="tracking", accepted_for=0)
    assert "stop it with Ctrl-C and start it again, `make local`" in capsys.readouterr().out
    assert running.state.load(SETTINGS) == {"mlflow-gcp:trackingPasswordVersion": "2"}


def test_a_restarting_server_is_not_a_failure(tmp_path: Path) -> None:
    between = LocalStack(State(tmp_path))
    between.entry = {"outputs": {}, "config": {}}
    rows = [part for part in status.local_parts(between) if part[0] == "server"]
    assert status.table(rows) == "server  not known: it is being started again"


def test_an_unreachable_database_is_reported_in_its_row(tmp_path: Path) -> None:
    alone = LocalStack(State(tmp_path))
    alone.entry = {"outputs": {"database_connection_name": "my-project:here:mlflow"}, "config": {}}
    alone.database_url = lambda: "postgresql+pg8000://mlflow:word@/mlflow"  # type: ignore[method-assign]
    rows = [part for part in status.local_parts(alone) if part[0] == "database"]
    assert status.table(rows).startswith("database  not known: the database doesn't answer (")


def test_a_program_missing_from_postgresql_is_named(stack: Stack) -> None:
    with pytest.raises(OperationError, match="has no pg_none in"):
        program("pg_none", LocalStack(State(stack.folder)))


@pytest.mark.parametrize(
    ("access", "header"), [("iam", "X-Serverless-Authorization"), ("iap", "Proxy-Authorization")]
)
def test_people_are_listed_through_googles_front_end(
    stack: Stack, machine: Machine, access: str, header: str
) -> None:
    password = LocalStack(State(stack.folder)).password()
    config = {
        "core": {"account": "ada@example.com"},
        "auth": {"impersonate_service_account": ACCOUNT},
    }
    with front(stack.port, header) as google:
        machine.stands(outputs={"tracking_uri": google.address}, accounts="true", access=access)
        machine.pulumi("stack", "output", "tracking_password", "--show-secrets", stdout=password)
        machine.gcloud("config", "list", "--format=json", stdout=json.dumps(config))
        machine.gcloud("auth", "print-access-token", stdout=ACCESS_TOKEN)
        token = google.token({"aud": google.address, "exp": time.time() + 60})
        audience = f"--audiences={google.address}"
        machine.gcloud("auth", "print-identity-token", audience, "--include-email", stdout=token)
        machine.environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS"] = google.address
        done = machine.run("--stack", "dev", "people")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("^mlflow +administrator$", done.stdout, re.MULTILINE)
    assert (google.let_in, google.refused) == (1, 0)
