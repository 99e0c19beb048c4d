"""MLflow's client downloads small files through the server, and large ones from the bucket."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import requests
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from tracking_server.artifacts.repository import LONGEST, download_lifetime

from fake_google.sql.postgres import Postgres
from tests.local.standins import Project, project
from tests.server.conftest import made_database
from tests.server.parity.servers import environment_of, ours
from tests.server.process import PASSWORD, USER, Server

LARGE = 1 << 20
SMALL_FILE, LARGE_FILE = "a ü+b&c.txt", "large.bin"
CONTENT = {SMALL_FILE: b"ab", LARGE_FILE: os.urandom(LARGE)}
GIGABYTE = 10**9


@dataclass
class Served:
    server: Server
    project: Project
    sent: list[str] = field(default_factory=list)
    """The client's requests: to which of the server's routes, or the range for the bucket."""
    bucket_is_reachable = True

    def download(self, name: str, folder: Path) -> bytes:
        self.sent.clear()
        repository = MlflowArtifactsRepository("mlflow-artifacts:/files", self.server.url)
        return Path(repository.download_artifacts(name, str(folder))).read_bytes()

    def watch(self, request: requests.PreparedRequest) -> None:
        address = urlsplit(str(request.url))
        if address.netloc == urlsplit(self.server.url).netloc:
            self.sent += [
                kind for kind in ("presigned", "artifacts") if f"/{kind}/" in address.path
            ]
            return
        self.sent.append(str(request.headers["Range"]))
        if not self.bucket_is_reachable:
            raise requests.ConnectionError("the bucket can't be reached")


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("downloads")
    with project(folder / "google") as made:
        environment = environment_of(
            made, folder, made_database(postgres, "downloads"), cloudsql_root
        )
        environment["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = str(LARGE)
        with ours(environment, folder, forked=True) as server:
            with server.ready().client() as client:
                for name, content in CONTENT.items():
                    path = f"/api/2.0/mlflow-artifacts/artifacts/files/{requests.utils.quote(name)}"
                    assert client.put(path, content=content).status_code == 200
            yield Served(server, made)


@pytest.fixture
def served(running: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    settings = {
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(LARGE // 2),
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    send = requests.Session.send

    def watched(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> Any:
        running.watch(request)
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", watched)
    yield running
    running.bucket_is_reachable = True
    running.project.cloud.project.storage.ahead = timedelta()


def test_a_small_file_needs_no_bucket(served: Served, tmp_path: Path) -> None:
    served.bucket_is_reachable = False
    assert served.download(SMALL_FILE, tmp_path) == CONTENT[SMALL_FILE]
    assert served.sent == ["presigned", "artifacts"]


@pytest.mark.parametrize("prefix", ["api", "ajax-api"])
def test_the_address_of_a_small_file_is_the_servers(served: Served, prefix: str) -> None:
    """MLflow's page opens it."""
    name = requests.utils.quote(SMALL_FILE)
    path = f"/{prefix}/2.0/mlflow-artifacts/presigned/files/{name}"
    with served.server.client() as client:
        address = client.get(path).json()["url"]
        downloaded = client.get(address)
    assert downloaded.content == CONTENT[SMALL_FILE]
    assert downloaded.headers["Content-Disposition"].startswith("attachment")


def test_an_address_is_for_reading_one_file(served: Served) -> None:
    path = f"/api/2.0/mlflow-artifacts/presigned/files/{LARGE_FILE}"
    with served.server.client() as client:
        address = client.get(path).json()["url"]
    assert httpx.get(address).content == CONTENT[LARGE_FILE]
    assert httpx.get(address.replace(LARGE_FILE, SMALL_FILE)).status_code == 403
    assert httpx.put(address, content=b"x").status_code == 403


def test_a_large_file_comes_from_the_bucket(served: Served, tmp_path: Path) -> None:
    assert served.download(LARGE_FILE, tmp_path) == CONTENT[LARGE_FILE]
    ranges = [f"bytes=0-{LARGE // 2 - 1}", f"bytes={LARGE // 2}-{LARGE - 1}"]
    assert sorted(served.sent) == [*ranges, "presigned"]


def test_an_expired_address_is_renewed(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, watch = served.project.cloud.project.storage, Served.watch

    def late(self: Served, request: requests.PreparedRequest) -> None:
        watch(self, request)
        storage.ahead = timedelta(hours=1 if self.sent.count("presigned") < 2 else 0)

    monkeypatch.setattr(Served, "watch", late)
    assert served.download(LARGE_FILE, tmp_path) == CONTENT[LARGE_FILE]
    assert sum(each.startswith("bytes=") for each in served.sent) == 4


@pytest.mark.parametrize(
    ("size", "seconds"),
    [(0, 300), (GIGABYTE, 800), (50 * GIGABYTE, 40_000), (100 * GIGABYTE, LONGEST)],
)
def test_an_address_is_valid_for_a_download_with_10_mbits(size: int, seconds: int) -> None:
    assert download_lifetime(size, at_least=300) == seconds


def test_a_part_can_be_sent_for_as_long_as_google_verifies_its_signature(served: Served) -> None:
    body = {"path": "files/new.bin", "num_parts": 1}
    with served.server.client() as client:
        begun = client.post("/api/2.0/mlflow-artifacts/mpu/create/files", json=body).json()
    address = begun["credentials"][0]["url"]
    assert parse_qs(urlsplit(address).query)["X-Goog-Expires"] == [str(LONGEST)]
    served.project.cloud.project.storage.ahead = timedelta(seconds=LONGEST - 60)
    assert httpx.put(address, content=b"part").status_code == 200
    served.project.cloud.project.storage.ahead = timedelta(seconds=LONGEST + 60)
    refused = httpx.put(address, content=b"part")
    assert refused.status_code == 400
    assert "<Code>ExpiredToken</Code>" in refused.text
