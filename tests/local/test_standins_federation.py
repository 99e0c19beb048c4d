"""What Google refuses of workload identity pools and their providers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.errors import NotFound, Refused
from local.federation import POOL
from tests.local.standins import Project, project

PROVIDER = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"
POOL_INPUTS = {"workloadIdentityPoolId": "github-ab12cd"}
PROVIDER_INPUTS: dict[str, Any] = {
    **POOL_INPUTS,
    "workloadIdentityPoolProviderId": "actions",
    "oidc": {"issuerUri": "https://token.actions.githubusercontent.com"},
    "attributeCondition": "assertion.repository == 'my-org/mlflow-gcp'",
    "attributeMapping": {"google.subject": "assertion.sub"},
}


@pytest.fixture
def google(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path) as made:
        made.cloud.enabled.add("iam.googleapis.com")
        yield made


def test_a_deleted_pools_id_stays_taken(google: Project) -> None:
    made, outputs = google.cloud.create(POOL, "github", POOL_INPUTS)
    assert made == outputs["name"]
    assert made.endswith("/locations/global/workloadIdentityPools/github-ab12cd")
    with pytest.raises(Refused, match="already exists"):
        google.cloud.create(POOL, "github", POOL_INPUTS)
    google.cloud.delete(POOL, made, olds=outputs)
    with pytest.raises(Refused, match="already exists"):
        google.cloud.create(POOL, "github", POOL_INPUTS)


@pytest.mark.parametrize("given", ["abc", "gcp-github", "GitHub", "a" * 33])
def test_ids_are_of_googles_form(google: Project, given: str) -> None:
    with pytest.raises(Refused, match="4 to 32"):
        google.cloud.create(POOL, "github", {"workloadIdentityPoolId": given})


def test_a_provider_has_a_pool(google: Project) -> None:
    with pytest.raises(NotFound, match="github-ab12cd"):
        google.cloud.create(PROVIDER, "github", PROVIDER_INPUTS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attributeCondition": None}, "attribute condition"),
        ({"attributeMapping": {"attribute.job": "assertion.ref"}}, "google.subject"),
    ],
)
def test_what_a_provider_must_ask(google: Project, changed: dict[str, Any], said: str) -> None:
    pool, _ = google.cloud.create(POOL, "github", POOL_INPUTS)
    with pytest.raises(Refused, match=said):
        google.cloud.create(PROVIDER, "github", {**PROVIDER_INPUTS, **changed})
    _, outputs = google.cloud.create(PROVIDER, "github", PROVIDER_INPUTS)
    assert outputs["name"] == f"{pool}/providers/actions"
