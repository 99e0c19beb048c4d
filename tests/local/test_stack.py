"""The stack from a user's view: the sample client, stock MLflow's client, curl, a restart."""

import base64
import json
import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import requests

from tests.local.conftest import ROOT, Stack

CHECK = str(ROOT / "sample_client" / "check_tracking.py")


def test_the_sample_client_logs_everything_and_reads_it_back(stack: Stack) -> None:
    ran = stack.client(CHECK)
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stdout.splitlines() if line.startswith("ok  ")] == [
        "ok  parameters",
        "ok  metrics",
        "ok  artifact",
        "ok  model",
    ]
    address = stack.environment()["MLFLOW_TRACKING_URI"]
    assert f"Everything came back as it was logged: {address}/#/experiments/" in ran.stdout
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"MLFLOW_TRACKING_PASSWORD": "wrong"}, "refuses user 'mlflow' with this password"),
        ({"MLFLOW_TRACKING_USERNAME": "wrong"}, "refuses user 'wrong' with this password"),
        ({"MLFLOW_TRACKING_PASSWORD": ""}, "MLFLOW_TRACKING_PASSWORD: pulumi stack output"),
        ({"MLFLOW_EXPERIMENT_NAME": ""}, "MLFLOW_EXPERIMENT_NAME: a name of your choice"),
        ({"MLFLOW_TRACKING_URI": ""}, "MLFLOW_TRACKING_URI: pulumi stack output"),
        ({"MLFLOW_TRACKING_URI": "mlflow.db"}, "wanted an address with https://"),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "http://127.0.0.1:9 can't be reached"),
    ],
)
def test_the_sample_client_explains_wrong_variables(
    stack: Stack, changed: dict[str, str], said: str
) -> None:
    ran = stack.client(CHECK, **changed)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/api/2.0/mlflow/experiments/search?max_results=1"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/x"),
        ("POST", "/v1/traces"),
        ("POST", "/gateway/x/mlflow/invocations"),
        ("GET", "/ajax-api/3.0/mlflow/server-info"),
    ],
)
def test_every_kind_of_route_requires_credentials(stack: Stack, method: str, path: str) -> None:
    address = stack.environment()["MLFLOW_TRACKING_URI"]
    for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"mlflow:x").decode()}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                urllib.request.Request(address + path, method=method, headers=headers)
            )
        assert refused.value.code == 401
        assert refused.value.headers["WWW-Authenticate"].startswith("Basic ")


CLIENT_TEST = Path(__file__).with_name("client_session.py")


def test_stock_mlflow_client_can_do_everything(stack: Stack) -> None:
    """Registry, traces, nested artifacts, deletion, and large files through signed URLs."""
    ran = stack.client(
        str(CLIENT_TEST),
        MLFLOW_EXPERIMENT_NAME="everything",
        # MLflow's own settings, so that a file of 12 MiB is uploaded in parts.
        MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE=str(10 << 20),
        MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE=str(5 << 20),
        MLFLOW_LOGGING_LEVEL="ERROR",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    done = json.loads(ran.stdout.splitlines()[-1])
    assert done == {
        "odd names": True,
        "large file": True,
        "listing": True,
        "deleting": True,
        "registry": True,
        "traces": True,
        "search": 25,
    }
    log = (stack.folder / "log" / "server.log").read_text()
    assert "/api/2.0/mlflow-artifacts/mpu/create" in log
    assert "/api/2.0/mlflow-artifacts/mpu/complete" in log
    # By default, the client downloads as the server offers: straight from the bucket.
    assert "GET /api/2.0/mlflow-artifacts/presigned/" in log


def test_a_proxied_download_is_a_stream_of_known_length(stack: Stack) -> None:
    env = stack.environment()
    address = env["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow-artifacts/artifacts/0/streamed ü.txt"
    login = (env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"])
    content = os.urandom((9 << 20) + 1)
    assert requests.put(address, data=content, auth=login, timeout=60).status_code == 200
    answer = requests.get(address, auth=login, timeout=60)
    assert answer.content == content
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Content-Type"] == "text/plain"
    assert "streamed%20%C3%BC.txt" in answer.headers["Content-Disposition"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"

    missing = requests.get(address + "x", auth=login, timeout=60)
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    outside = requests.get(address.replace("/0/", "/%2e%2e/"), auth=login, timeout=60)
    assert (outside.status_code, outside.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_abandoned_downloads_block_no_others(stack: Stack) -> None:
    """More downloads than the server allows at a time, or in the queue."""
    env = stack.environment()
    auth = (env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"])
    address = env["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow-artifacts/artifacts/0/left.bin"
    content = os.urandom(16 << 20)
    assert requests.put(address, data=content, auth=auth, timeout=60).status_code == 200
    for _ in range(20):
        with requests.get(address, auth=auth, timeout=60, stream=True) as answer:
            next(answer.iter_content(1000))
    assert requests.get(address, auth=auth, timeout=60).content == content


def test_an_interrupted_upload_leaves_nothing(stack: Stack) -> None:
    env = stack.environment()
    path = "/api/2.0/mlflow-artifacts/artifacts/0/half.bin"
    login = f"{env['MLFLOW_TRACKING_USERNAME']}:{env['MLFLOW_TRACKING_PASSWORD']}".encode()
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {20 << 20}\r\n"
        authorization = f"Authorization: Basic {base64.b64encode(login).decode()}\r\n\r\n"
        connection.sendall((head + authorization).encode() + b"x" * (10 << 20))
        time.sleep(0.5)
    address = env["MLFLOW_TRACKING_URI"] + path
    auth = (env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"])
    assert requests.get(address, auth=auth, timeout=60).status_code == 404
    # The server continues, and the bucket's stand-in has no pending upload.
    assert requests.put(address, data=b"whole", auth=auth, timeout=60).status_code == 200
    assert requests.get(address, auth=auth, timeout=60).content == b"whole"


def test_the_server_has_only_the_declared_environment(stack: Stack) -> None:
    """The environment is what Cloud Run would provide, and no secret is in it or in a log."""
    pids = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if b"tracking_server" in _read(path / "cmdline")
        and f"PORT={stack.port}\0".encode() in _read(path / "environ")
    ]
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, which this system does not have")
    (pid,) = pids
    environ = _read(Path("/proc", str(pid), "environ")).decode()
    names = {entry.partition("=")[0] for entry in environ.split("\0") if entry}
    assert names == {
        *("GCP_PROJECT", "ARTIFACTS", "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_DISABLE_TELEMETRY"),
        *("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "WEB_CONCURRENCY", "MAX_CONCURRENCY"),
        "MEMORY_MIB",
        *("ARTIFACT_SIGNER", "ARTIFACT_URL_SECRET", "DATABASE_URL_SECRET"),
        *("TRACKING_USERNAME_SECRET", "TRACKING_PASSWORD_SECRET", "KEK_PASSPHRASE_SECRET"),
        # the variables that Cloud Run adds
        *("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "PATH", "HOME", "LANG"),
        # the addresses of the local Google
        *("GCE_METADATA_HOST", "GCE_METADATA_IP", "SECRET_MANAGER_ENDPOINT", "CLOUDSQL_ROOT"),
        *("IAM_CREDENTIALS_ENDPOINT", "STORAGE_EMULATOR_HOST", "BIND_ADDRESS"),
        "BOOT_PATIENCE",
    }
    secrets = json.loads((stack.folder / "secrets.json").read_text())
    values = {
        name: base64.b64decode(version["data"]).decode()
        for name, versions in secrets.items()
        for version in versions.values()
    }
    hidden = [values["mlflow_tracking_password"], values["mlflow_kek_passphrase"]]
    hidden.append(values["mlflow_database_url"].split("@")[0].rpartition(":")[2])
    shown = environ + _read(Path("/proc", str(pid), "cmdline")).decode()
    shown += "".join(path.read_text() for path in (stack.folder / "log").glob("server*"))
    shown += "".join(path.read_text() for path in (stack.folder / "log").glob("mlflow-*"))
    assert not [value for value in hidden if value in shown]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
