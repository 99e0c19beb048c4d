"""Load balancers that Compute Engine refuses, and a grant on a missing bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_google.errors import NotFound, Refused
from tests.local.standins import StandIns, project

GROUP = "regionNetworkEndpointGroup:RegionNetworkEndpointGroup"
BACKEND = "backendService:BackendService"
PROXY = "targetHttpsProxy:TargetHttpsProxy"
POLICY = "securityPolicy:SecurityPolicy"
CERTIFICATE = "managedSslCertificate:ManagedSslCertificate"


@pytest.fixture
def google(tmp_path: Path) -> Iterator[StandIns]:
    with project(tmp_path) as made:
        made.cloud.project.enabled.add("compute.googleapis.com")
        yield made


def create(google: StandIns, kind: str, **inputs: Any) -> str:
    return google.cloud.create(f"gcp:compute/{kind}", "test", {"name": "ml", **inputs})[0]


def rule(priority: int) -> dict[str, Any]:
    return {"priority": priority, "action": "allow"}


@pytest.mark.parametrize(
    ("kind", "inputs", "error"),
    [
        (GROUP, {"name": "ML", "region": "us-central1"}, Refused),
        (GROUP, {"name": "m" * 64, "region": "us-central1"}, Refused),
        (BACKEND, {"backends": [{"group": "networkEndpointGroups/none"}]}, NotFound),
        (PROXY, {"urlMap": "urlMaps/none"}, NotFound),
        (POLICY, {"rules": [rule(1000)]}, Refused),
    ],
)
def test_invalid_resources_are_refused(
    google: StandIns, kind: str, inputs: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        create(google, kind, **inputs)


def test_a_resource_in_use_is_not_deleted(google: StandIns) -> None:
    group = create(google, GROUP, region="us-central1")
    backend = create(google, BACKEND, backends=[{"group": group}])
    with pytest.raises(Refused, match="resourceInUseByAnotherResource"):
        google.cloud.delete(f"gcp:compute/{GROUP}", group, olds={})
    google.cloud.delete(f"gcp:compute/{BACKEND}", backend, olds={})
    google.cloud.delete(f"gcp:compute/{GROUP}", group, olds={})
    assert not [token for token, _ in google.cloud.project.live if token == f"gcp:compute/{GROUP}"]


def test_a_proxy_has_at_most_15_certificates(google: StandIns) -> None:
    made = [create(google, CERTIFICATE, name=f"ml-{number}") for number in range(16)]
    create(google, PROXY, name="enough", sslCertificates=made[:15])
    with pytest.raises(Refused, match="Too many"):
        create(google, PROXY, name="many", sslCertificates=made)


def test_endpoint_groups_of_one_name_can_exist_in_two_regions(google: StandIns) -> None:
    near, far = (create(google, GROUP, region=region) for region in ("us-east1", "us-west1"))
    assert near != far
    with pytest.raises(Refused, match="already exists"):
        create(google, GROUP, region="us-east1")


def test_a_grant_on_a_missing_bucket_is_refused(google: StandIns) -> None:
    grant = {"bucket": "nowhere", "role": "roles/storage.objectUser", "member": "user:a@b.c"}
    with pytest.raises(NotFound, match="nowhere"):
        google.cloud.create("gcp:storage/bucketIAMMember:BucketIAMMember", "test", grant)
