"""Signed URLs when the server's clock and the bucket's differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from fake_google.sql.postgres import Postgres
from tests.local.standins import StandIns, project
from tests.server.conftest import made_database
from tests.server.parity.servers import environment_of, ours

_ARTIFACTS = "/api/2.0/mlflow-artifacts"
SIGNED = {"MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1"}
"""Makes the server sign addresses of files that it would otherwise send itself."""


@dataclass
class Served:
    client: httpx.Client
    project: StandIns

    def download(self) -> httpx.Response:
        signed = self.client.get(f"{_ARTIFACTS}/presigned/x.txt")
        assert signed.status_code == 200, signed.text
        return httpx.get(signed.json()["url"])

    def upload_a_part(self) -> httpx.Response:
        begun = self.client.post(
            f"{_ARTIFACTS}/mpu/create/big", json={"path": "big/part.bin", "num_parts": 1}
        )
        assert begun.status_code == 200, begun.text
        return httpx.put(begun.json()["credentials"][0]["url"], content=b"part")


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clocks")
    url = made_database(postgres, "clocks")
    with (
        project(folder / "google") as made,
        ours(
            environment_of(made, folder, url, cloudsql_root) | SIGNED, folder, forked=True
        ) as server,
        server.ready().client() as client,
    ):
        assert client.put(f"{_ARTIFACTS}/artifacts/x.txt", content=b"x").status_code == 200
        yield Served(client, made)


@pytest.mark.parametrize("minutes", [-14, -4, 0, 4])
def test_addresses_are_valid_while_the_clocks_differ_by_minutes(
    served: Served, minutes: int
) -> None:
    served.project.cloud.project.storage.ahead = timedelta(minutes=minutes)
    assert served.download().content == b"x"
    assert served.upload_a_part().status_code == 200


@pytest.mark.parametrize(
    ("minutes", "code"), [(-16, "AccessDenied"), (6, "ExpiredToken")], ids=["ahead", "behind"]
)
def test_beyond_that_the_bucket_refuses_and_the_server_still_streams(
    served: Served, minutes: int, code: str
) -> None:
    served.project.cloud.project.storage.ahead = timedelta(minutes=minutes)
    refused = served.download()
    assert refused.status_code in (400, 403)
    assert code in refused.text
    assert served.client.get(f"{_ARTIFACTS}/artifacts/x.txt").content == b"x"
