"""Artifact URLs are signed as the signer, which isn't the server's own account."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from fake_google.iam.policy import Resource, bucket
from fake_google.sql.postgres import Postgres
from tests.local.standins import BUCKET, SERVER, SIGNER, StandIns, project
from tests.server.conftest import made_database
from tests.server.parity.servers import environment_of, ours
from tests.server.process import Server

_ARTIFACTS = "/api/2.0/mlflow-artifacts"
SIGNED = {"MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1"}
"""Makes the server sign addresses of files that it would otherwise send itself."""


@dataclass
class Served:
    server: Server
    client: httpx.Client
    project: StandIns

    def download(self) -> httpx.Response:
        return self.client.get(f"{_ARTIFACTS}/presigned/x.txt")

    def parts(self) -> httpx.Response:
        return self.client.post(
            f"{_ARTIFACTS}/mpu/create/big", json={"path": "big/part.bin", "num_parts": 2}
        )


@pytest.fixture
def served(tmp_path: Path, postgres: Postgres, cloudsql_root: Path) -> Iterator[Served]:
    url = made_database(postgres, f"signing_{tmp_path.name}")
    with (
        project(tmp_path / "google") as made,
        ours(
            environment_of(made, tmp_path, url, cloudsql_root) | SIGNED, tmp_path, forked=True
        ) as server,
        server.ready().client() as client,
    ):
        assert client.put(f"{_ARTIFACTS}/artifacts/x.txt", content=b"x").status_code == 200
        yield Served(server, client, made)


def signed_by(url: str) -> str:
    return parse_qs(urlsplit(url).query)["X-Goog-Credential"][0].partition("/")[0]


def revoke(made: StandIns, email: str, resource: Resource) -> None:
    grants = made.cloud.project.policy.grants
    grants[:] = [
        grant
        for grant in grants
        if (grant.member, grant.resource) != (f"serviceAccount:{email}", resource)
    ]


def test_addresses_have_the_signers_permissions(served: Served) -> None:
    download = served.download().json()["url"]
    parts = [each["url"] for each in served.parts().json()["credentials"]]
    assert {signed_by(url) for url in (download, *parts)} == {SIGNER}
    # A signed URL doesn't have the server's permissions.
    revoke(served.project, SERVER, bucket(BUCKET))
    assert httpx.get(download).content == b"x"
    assert httpx.put(parts[0], content=b"part").status_code == 200
    revoke(served.project, SIGNER, bucket(BUCKET))
    assert httpx.get(download).status_code == 403
    assert httpx.put(parts[1], content=b"part").status_code == 403


def test_a_refused_signature_names_accounts_and_permission(served: Served) -> None:
    served.project.cloud.project.policy.custom_roles.clear()
    refused = served.download()
    assert refused.status_code == 500
    assert served.parts().status_code == 500
    said = refused.text + served.server.log()
    for name in (SERVER, SIGNER, "iam.serviceAccounts.signBlob"):
        assert name in said
    # Everything that needs no signed URL still works.
    assert served.client.get(f"{_ARTIFACTS}/artifacts/x.txt").content == b"x"
