"""The start and the end of the real process: its log, its visible state, its connections."""

import http.client
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from tracking_server.boot.settings import CONNECTIONS_PER_PROCESS

from fake_google.sql.postgres import Postgres
from tests.server.conftest import StartServer
from tests.server.google import Google
from tests.server.process import AUTHORIZATION, Server, eventually

CANARIES = ("canary", "p%40ss")


def no_secret_is_visible(server: Server) -> None:
    seen = server.log()
    if server.process.poll() is None:
        seen += server.shown()
    assert not [canary for canary in CANARIES if canary in seen]


def test_a_boot_serves_http_1_and_h2c_and_ends_cleanly(
    start: StartServer, environment: dict[str, str]
) -> None:
    server = start(environment).ready()
    with server.client() as client:
        created = client.post("/api/2.0/mlflow/experiments/create", json={"name": "first"})
        assert created.status_code == 200, created.text
        assert client.get("/").status_code == 200
        assert client.get("/", auth=("x", "y")).status_code == 401
    for options, version in (({}, "HTTP/1.1"), ({"http1": False, "http2": True}, "HTTP/2")):
        with server.client(**options) as client:
            answer = client.get("/version")
            assert (answer.status_code, answer.http_version) == (200, version)
            assert client.get("/version", auth=("x", "y")).status_code == 401
    no_secret_is_visible(server)
    assert server.stop() == 0
    first, *_, last = (entry["message"] for entry in server.entries())
    assert re.fullmatch(r"mlflow-gcp \S+, MLflow \d+\.\d+\.\d+", first)
    assert last == "stopped"
    no_secret_is_visible(server)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has loaded is read in /proc")
def test_rarely_used_modules_are_loaded_on_first_use(
    start: StartServer, environment: dict[str, str]
) -> None:
    server = start(environment).ready()
    loaded = Path("/proc", str(server.process.pid), "maps")
    with server.client() as client:
        assert client.get("/api/2.0/mlflow/experiments/get?experiment_id=0").status_code == 200
        assert client.get("/api/3.0/mlflow/server-info").status_code == 200
        assert "site-packages/numpy" in loaded.read_text()
        for package in ("aiohttp", "pandas"):
            assert f"site-packages/{package}" not in loaded.read_text()
        # The first request to FastAPI's half loads it, and even that one doesn't load pandas.
        assert client.get("/ajax-api/3.0/mlflow/assistant/config").status_code in (200, 403)
        assert "site-packages/aiohttp" in loaded.read_text()
        assert "site-packages/pandas" not in loaded.read_text()


def test_a_missing_secret_ends_the_boot(
    fork: StartServer, environment: dict[str, str], google: Google
) -> None:
    """tests/server/test_secrets.py does so with each of them."""
    google.grant("gone")
    line = fork(environment | {"TRACKING_PASSWORD_SECRET": "gone/versions/1"}).failed()
    assert "projects/my-project/secrets/gone/versions/1 does not exist" in line


def test_a_wrong_database_password_ends_the_boot(
    fork: StartServer, environment: dict[str, str], google: Google, database_url: str
) -> None:
    wrong = google.store(database_url.replace("canary", "wrong-canary"))
    server = fork(environment | {"DATABASE_URL_SECRET": wrong})
    assert "refuses the user's password" in server.failed()
    no_secret_is_visible(server)


def test_a_missing_database_ends_the_boot(
    fork: StartServer, environment: dict[str, str], google: Google, database_url: str
) -> None:
    missing = google.store(database_url.replace("@/mlflow", "@/no_such"))
    assert "no such database" in fork(environment | {"DATABASE_URL_SECRET": missing}).failed()


def test_an_incomplete_environment_ends_the_boot(fork: StartServer) -> None:
    assert "GCP_PROJECT is not set" in fork({}).failed()


def test_direct_mode_gives_clients_the_bucket(
    fork: StartServer, environment: dict[str, str]
) -> None:
    server = fork(environment | {"ARTIFACTS": "direct"}).ready()
    with server.client() as client:
        client.post("/api/2.0/mlflow/experiments/create", json={"name": "direct"})
        found = client.get(
            "/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "direct"}
        ).json()
        assert found["experiment"]["artifact_location"] == "gs://my-bucket/1"


def half_a_request(server: Server, body: bytes) -> http.client.HTTPConnection:
    """Send the headers and five bytes of the body, and wait until the application has them."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/api/2.0/mlflow/experiments/create")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(len(body)))
    connection.putheader("Authorization", AUTHORIZATION)
    connection.endheaders()
    connection.send(body[:5])
    time.sleep(1)
    return connection


def test_requests_finish_or_end_in_time_after_sigterm(
    fork: StartServer, environment: dict[str, str]
) -> None:
    server = fork(environment).ready()
    body = b'{"name": "finished"}'
    connection, endless = half_a_request(server, body), half_a_request(server, body)
    server.process.send_signal(signal.SIGTERM)
    assert eventually(lambda: not server.accepts(), seconds=10)
    assert server.process.poll() is None
    connection.send(body[5:])
    assert connection.getresponse().status == 200
    connection.close()
    # Cloud Run waits for 10 s.
    assert server.process.wait(10) == 0
    endless.close()


def test_an_instance_never_holds_more_connections_than_it_is_allowed(
    fork: StartServer, environment: dict[str, str], postgres: Postgres, database_url: str
) -> None:
    """MLflow creates separate engines for tracking, the registry and jobs."""
    limit = 8
    environment["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] = str(limit)
    server = fork(environment).ready()
    name = database_url.split("@/")[1].split("?")[0]
    counts: list[int] = []
    statuses: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        with postgres.connection() as connection:
            while not done.is_set():
                rows = connection.run(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = :name", name=name
                )
                counts.append(rows[0][0])

    def ask() -> None:
        with server.client() as client:
            for _ in range(8):
                runs = client.post("/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]})
                models = client.get("/api/2.0/mlflow/registered-models/search")
                job = client.get("/ajax-api/3.0/jobs/nothing")
                statuses.update((runs.status_code, models.status_code, job.status_code))

    watcher = threading.Thread(target=watch)
    askers = [threading.Thread(target=ask) for _ in range(12)]
    for thread in (watcher, *askers):
        thread.start()
    for thread in askers:
        thread.join()
    done.set()
    watcher.join()
    # The last connections are reserved for requests that need more than one.
    assert limit - CONNECTIONS_PER_PROCESS < max(counts) <= limit
    assert statuses == {200, 404}


def test_encrypted_values_outlive_the_process_and_a_changed_passphrase(
    fork: StartServer, environment: dict[str, str], google: Google
) -> None:
    """By default, MLflow generates a new key for the webhooks' secrets in each process."""
    hooks = "/api/2.0/mlflow/webhooks"
    server = fork(environment).ready()
    with server.client() as client:
        hook = {
            "name": "told",
            "url": "https://8.8.8.8/hook",
            "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
            "secret": "a shared secret",
        }
        assert client.post(hooks, json=hook).status_code == 200
    assert server.stop() == 0
    changed = google.store_further(environment["KEK_PASSPHRASE_SECRET"], "another canary")
    server = fork(environment | {"KEK_PASSPHRASE_SECRET": changed}).ready()
    with server.client() as client:
        found = client.get(hooks)
        assert found.status_code == 200, found.text
        assert [one["name"] for one in found.json()["webhooks"]] == ["told"]
    no_secret_is_visible(server)
