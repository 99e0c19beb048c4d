"""`pulumi up` with everything real: PostgreSQL, the server, and the server's address."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from fake_google.ports import free_port
from fake_google.project import Container
from fake_google.sql.postgres import Postgres
from tests.engine.deployment import ROOT, Deployment, deployment
from tests.engine.engine import Engine

SERVER = ROOT / ".venvs" / "server" / "bin" / "python"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(made: Deployment, path: str, body: Any = None, *, login: bool = True) -> tuple[int, Any]:
    """Call the server with the outputs of the stack, as a user would."""
    uri, user, password = (
        made.output(f"tracking_{name}", "dev") for name in ("uri", "username", "password")
    )
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if login:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {token}"
    method = "GET" if body is None else "PUT" if isinstance(body, bytes) else "POST"
    request = urllib.request.Request(f"{uri}{path}", data=data, headers=headers, method=method)
    try:
        with _DIRECT.open(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text.startswith(b"{") else text
    except urllib.error.HTTPError as error:
        return error.code, None


def test_the_output_is_the_servers_address_and_destroy_leaves_nothing(
    tmp_path: Path, engine: Engine
) -> None:
    if not SERVER.exists():
        message = "the server's environment is missing: make install-local"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    container = Container(command=[str(SERVER), "-m", "tracking_server"], port=free_port())
    with deployment(tmp_path, engine, container=container) as made:
        made.init("dev")
        made.up("dev")
        made.cloud.check_reachable()
        assert call(made, "/health", login=False)[0] == 200
        assert call(made, "/api/2.0/mlflow/experiments/get?experiment_id=0", login=False)[0] == 401
        status, created = call(made, "/api/2.0/mlflow/experiments/create", {"name": "kept"})
        assert status == 200
        experiment = created["experiment_id"]
        status, started = call(
            made, "/api/2.0/mlflow/runs/create", {"experiment_id": experiment, "start_time": 1}
        )
        run = started["run"]["info"]["run_id"]
        artifact = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/model.bin"
        assert call(made, artifact, b"weights")[0] == 200
        [stored] = made.cloud.project.store.below(
            made.output("artifact_bucket", "dev"), after="", prefix=""
        )
        assert stored.attributes["name"].endswith("model.bin")

        # Another revision with the same data.
        made.configure("dev", mlflowTelemetry=True)
        made.up("dev")
        assert call(made, artifact) == (200, b"weights")
        assert made.up("dev").touched == set()

        [database] = made.cloud.project.databases.values()
        assert isinstance(database, Postgres)
        made.destroy("dev")
        assert not made.cloud.project.live
        assert not made.cloud.project.databases
        assert not made.cloud.project.services
        assert not list((tmp_path / "cloud" / "postgres").iterdir())
        assert not list(made.cloud.project.store.files.iterdir())
        for gone in (database.port, container.port):
            with pytest.raises(OSError):
                _DIRECT.open(f"http://127.0.0.1:{gone}/health", timeout=5)
