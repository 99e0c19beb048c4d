"""Stock MLflow and our server, as processes with separate databases in one Postgres."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from fake_google.endpoints import Endpoints
from fake_google.iam.policy import Grant, secret
from fake_google.ports import free_port
from tests.local.standins import BUCKET, PROJECT, SERVER, SIGNER, StandIns, project
from tests.reaper import reap_process
from tests.server.process import BOOT_SECONDS, PASSWORD, TLS, USER, Server, is_healthy

SETTINGS = {
    # Some of MLflow's messages list a set, in its iteration order.
    "PYTHONHASHSEED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Otherwise MLflow fetches a catalog of models from the internet.
    "MLFLOW_MODEL_CATALOG_URI": "",
    # The model provider and the receiver of webhooks are on this computer.
    "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
}


def environment(folder: Path) -> dict[str, str]:
    """Returns the variables for both; HOME is separate, as MLflow stores settings there."""
    home = folder / "home"
    (home / "tmp").mkdir(parents=True)
    return {**SETTINGS, "HOME": str(home), "TMPDIR": str(home / "tmp")}


class Stock:
    """`mlflow server` as anyone starts it, its artifacts in a folder.

    `more` are further environment variables, and `app` is MLflow's name of another app.
    """

    def __init__(
        self, folder: Path, database_url: str, *, app: str = "", more: Mapping[str, str] = {}
    ) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._log = folder / "stock.log"
        command = f"server --workers 1 --host 127.0.0.1 --port {self._port}".split()
        command += ["--backend-store-uri", database_url]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        if app:
            command += ["--app-name", app]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command],
                env={
                    "PATH": os.defpath,
                    "MLFLOW_CRYPTO_KEK_PASSPHRASE": "canary-passphrase",
                    # Its job runner uses separate processes, which the container doesn't have.
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    **environment(folder),
                    **more,
                },
                cwd=folder,
                stdout=output,
                stderr=output,
                start_new_session=True,  # its child is the server itself
            )
        reap_process(self._process.pid)

    def ready(self) -> None:
        until = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if is_healthy(self._port):
                return
            time.sleep(0.1)
        raise AssertionError(f"stock MLflow does not serve: {self._log.read_text()}")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, verify=TLS)

    def stop(self) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def our_environment(
    folder: Path, database_url: str, cloudsql_root: Path, *, viewer: tuple[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Returns the container's environment, with a project and a bucket on the stand-ins."""
    with project(folder / "google") as made:
        yield environment_of(made, folder, database_url, cloudsql_root, viewer=viewer)


def environment_of(
    made: StandIns,
    folder: Path,
    database_url: str,
    cloudsql_root: Path,
    *,
    viewer: tuple[str, str] | None = None,
) -> dict[str, str]:
    secrets = {
        "ARTIFACT_URL_SECRET": f"gs://{BUCKET}",
        "DATABASE_URL_SECRET": database_url,
        "TRACKING_USERNAME_SECRET": USER,
        "TRACKING_PASSWORD_SECRET": PASSWORD,
        "KEK_PASSPHRASE_SECRET": "canary-passphrase",
    }
    if viewer:
        secrets["VIEWER_USERNAME_SECRET"], secrets["VIEWER_PASSWORD_SECRET"] = viewer
    return {
        **environment(folder),
        **made.cloud.project.metadata_environment(SERVER),
        **{key: _granted(made, key.lower(), value) for key, value in secrets.items()},
        "GCP_PROJECT": PROJECT,
        "ARTIFACTS": "proxied",
        "ARTIFACT_SIGNER": SIGNER,
        "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1",
        "INTERNAL_NETWORKS": "127.0.0.0/8",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "4",
        "CLOUDSQL_ROOT": str(cloudsql_root),
        "BOOT_PATIENCE": "5",
        "STORAGE_EMULATOR_HOST": made.cloud.project.storage_endpoint,
        "SECRET_MANAGER_ENDPOINT": made.cloud.project.secret_manager_endpoint,
        "IAM_CREDENTIALS_ENDPOINT": made.cloud.project.iam_credentials_endpoint,
    }


def _granted(made: StandIns, name: str, value: str) -> str:
    version = made.secret(name, value)
    role = "roles/secretmanager.secretAccessor"
    made.cloud.project.policy.add(Grant(role, f"serviceAccount:{SERVER}", secret(PROJECT, name)))
    return f"{name}/versions/{version}"


@contextmanager
def ours(
    environment: dict[str, str],
    folder: Path,
    *,
    module: str = "tracking_server",
    forked: bool = False,
) -> Iterator[Server]:
    server = Server(environment, folder, module, forked)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@contextmanager
def upstream() -> Iterator[str]:
    """Stands in for all model providers and webhook receivers. Yields its address."""
    endpoints = Endpoints()
    try:
        yield endpoints.serve(_answer)
    finally:
        endpoints.close()


async def _answer(request: web.Request) -> web.StreamResponse:
    body: dict[str, Any] = await request.json()
    if request.path.endswith("/hook"):
        return web.json_response({"received": sorted(body)})
    if request.path.endswith("/embeddings"):
        return web.json_response(_EMBEDDINGS)
    if body.get("stream"):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for chunk in _CHUNKS:
            await answer.write(f"data: {chunk}\n\n".encode())
        return answer
    return web.json_response({**_COMPLETION, "model": body.get("model")})


_USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
_COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Four."},
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
}
_EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "model": "m",
    "usage": _USAGE,
}
_CHUNKS = (
    '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    '[{"index":0,"delta":{"role":"assistant","content":"Fo"},"finish_reason":null}]}',
    '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    '[{"index":0,"delta":{"content":"ur."},"finish_reason":"stop"}]}',
    "[DONE]",
)
