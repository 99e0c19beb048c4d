"""The container as the server of the whole stack, with the declared environment."""

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.container.conftest import ContainerStack
from tests.local.conftest import ROOT


def status(stack: ContainerStack, path: str, *, password: str | None = None) -> int:
    told = stack.environment()
    request = urllib.request.Request(told["MLFLOW_TRACKING_URI"] + path)
    if password is not None:
        pair = f"{told['MLFLOW_TRACKING_USERNAME']}:{password}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.parametrize(
    "path",
    ["/", "/version", "/api/2.0/mlflow/experiments/search?max_results=1", "/api/2.0/mlflow/x"],
)
def test_every_path_but_health_requires_the_password(stack: ContainerStack, path: str) -> None:
    password = stack.environment()["MLFLOW_TRACKING_PASSWORD"]
    assert status(stack, "/health") == 200
    assert status(stack, path) == 401
    assert status(stack, path, password="wrong") == 401
    assert status(stack, path, password=password) == (404 if path.endswith("/x") else 200)


def test_the_sample_client_works_with_the_container(stack: ContainerStack) -> None:
    ran = stack.client(str(ROOT / "sample_client" / "check_tracking.py"))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_process_has_no_unneeded_privileges(stack: ContainerStack) -> None:
    rows = (stack.server() / "status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (row.partition(":") for row in rows)}
    assert fields["Uid"] == ["65532"] * 4
    assert fields["Gid"] == ["65532"] * 4
    assert fields["NoNewPrivs"] == ["1"]
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[capabilities][0], 16) == 0


def test_the_environment_is_the_declared_one_plus_the_images(stack: ContainerStack) -> None:
    entries = (stack.server() / "environ").read_text().strip("\0").split("\0")
    env = dict(entry.split("=", 1) for entry in entries)
    assert env.keys() >= {"GCP_PROJECT", "DATABASE_URL_SECRET", "MLFLOW_SERVER_ALLOWED_HOSTS"}
    assert (env["HOME"], env["PYTHONDONTWRITEBYTECODE"]) == ("/tmp", "1")
    # The variable is unset, so the server found the database where Cloud Run mounts it.
    assert "CLOUDSQL_ROOT" not in env
    told = stack.environment()
    assert told["MLFLOW_TRACKING_PASSWORD"] not in "".join(entries)


def test_the_server_leaves_no_files_in_tmp(stack: ContainerStack) -> None:
    assert status(stack, "/health") == 200
    root = stack.server() / "root"
    mounts = [row.split() for row in (stack.server() / "mounts").read_text().splitlines()]
    options = {row[1]: row[3].split(",") for row in mounts}
    assert "ro" in options["/"]
    assert "rw" in options["/tmp"]
    assert list(Path(root, "tmp").rglob("*")) == []


def test_sigterm_ends_the_container_with_exit_code_0(stack: ContainerStack) -> None:
    process = stack.server()
    stack.down()
    assert not process.exists()
    assert stack.exit_code() == 0
    last = (stack.folder / "log" / "server.log").read_text().splitlines()[-1]
    assert json.loads(last)["message"] == "stopped"
    # The other tests need it running, in whatever order they run.
    stack.up()
    assert status(stack, "/health") == 200
