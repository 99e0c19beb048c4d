"""The deployment in another program, with existing resources, and behind a load balancer."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from fake_google.project import Inputs
from tests.engine.deployment import (
    PROJECT,
    ROOT,
    SERVICE,
    Deployment,
    kinds,
)
from tests.engine.test_settings import API, GONE, NEW, UPDATED

DATABASE, USER = "gcp:sql/database:Database", "gcp:sql/user:User"
CERTIFICATE = "gcp:compute/managedSslCertificate:ManagedSslCertificate"
PROXY = "gcp:compute/targetHttpsProxy:TargetHttpsProxy"
BACKEND = "gcp:compute/backendService:BackendService"
LIMIT = "gcp:compute/securityPolicy:SecurityPolicy"
BALANCER = (
    "gcp:compute/globalAddress:GlobalAddress",
    "gcp:compute/regionNetworkEndpointGroup:RegionNetworkEndpointGroup",
    BACKEND,
    "gcp:compute/uRLMap:URLMap",
    CERTIFICATE,
    "gcp:compute/sSLPolicy:SSLPolicy",
    PROXY,
    "gcp:compute/targetHttpProxy:TargetHttpProxy",
    "gcp:compute/globalForwardingRule:GlobalForwardingRule",
)
VPC = f"projects/{PROJECT}/global/networks/ours"
SECRET = f"projects/{PROJECT}/secrets/everybody"
THERE: list[tuple[str, dict[str, Any]]] = [
    ("compute/network:Network", {"name": "ours"}),
    (
        "compute/subnetwork:Subnetwork",
        {"name": "servers", "network": VPC, "ipCidrRange": "10.8.0.0/22"},
    ),
    ("compute/globalAddress:GlobalAddress", {"name": "google", "network": VPC}),
    (
        "servicenetworking/connection:Connection",
        {
            "network": VPC,
            "service": "servicenetworking.googleapis.com",
            "reservedPeeringRanges": ["google"],
        },
    ),
    (
        "sql/databaseInstance:DatabaseInstance",
        {
            "name": "shared",
            "region": "europe-west1",
            "databaseVersion": "POSTGRES_17",
            "settings": {
                "tier": "db-f1-micro",
                "edition": "ENTERPRISE",
                "ipConfiguration": {"ipv4Enabled": False, "privateNetwork": VPC},
            },
        },
    ),
    ("storage/bucket:Bucket", {"name": "archive", "location": "EU"}),
    ("secretmanager/secret:Secret", {"secretId": "everybody"}),
    (
        "secretmanager/secretVersion:SecretVersion",
        {"secret": SECRET, "secretData": "a canary that is not ours"},
    ),
]


def test_a_load_balancer_comes_and_goes_and_is_changed_in_place(deployed: Deployment) -> None:
    settings: dict[str, Any] = {"loadBalancer": True, "customDomains": ["mlflow.example.com"]}
    deployed.configure(**settings, rateLimit=6000)
    made = kinds(deployed.up().touched)
    assert made == {**dict.fromkeys((*BALANCER, LIMIT, API), NEW), SERVICE: UPDATED}
    assert deployed.output("tracking_uri") == "https://mlflow.example.com"
    assert deployed.up().touched == set()
    deployed.configure(customDomains=["mlflow.example.com", "ml.example.org"], rateLimit=None)
    assert kinds(deployed.up().touched) == {
        CERTIFICATE: NEW, PROXY: UPDATED, LIMIT: GONE, BACKEND: UPDATED, SERVICE: UPDATED
    }  # fmt: skip
    deployed.configure(**dict.fromkeys(settings))
    gone = dict.fromkeys((*BALANCER, API), GONE)
    assert kinds(deployed.up().touched) == {**gone, SERVICE: UPDATED}


@pytest.fixture
def inhabited(fresh: Deployment) -> Deployment:
    """A project that already has every resource that a setting can name."""
    apis = ("compute", "secretmanager", "servicenetworking", "sqladmin", "storage")
    fresh.cloud.project.enabled |= {f"{api}.googleapis.com" for api in apis}
    for kind, inputs in THERE:
        fresh.cloud.create(f"gcp:{kind}", "there", inputs)
    fresh.init(
        existingDatabaseInstance=f"{PROJECT}:europe-west1:shared",
        existingBucket="archive",
        network="private",
        existingNetwork=VPC,
        existingSubnetwork="servers",
        trackingPasswordSecret=f"{SECRET}/versions/1",
    )
    return fresh


def of(deployment: Deployment, token: str) -> list[Inputs]:
    return [
        live.inputs for (other, _), live in deployment.cloud.project.live.items() if other == token
    ]


def test_existing_resources_are_used_and_kept(inhabited: Deployment) -> None:
    before = dict(inhabited.cloud.project.live)
    inhabited.up()
    assert inhabited.up().touched == set()
    assert [made["name"] for made in of(inhabited, DATABASE)] == ["mlflow"]
    assert inhabited.output("tracking_password_secret") == f"{SECRET}/versions/1"
    kept = [path.read_text() for path in inhabited.state.rglob("*.json")]
    assert any(SECRET in text for text in kept)
    assert not any("a canary that is not ours" in text for text in kept)
    inhabited.configure(deletionProtection=False, databasePasswordVersion=2)
    inhabited.up()
    assert {made["name"] for made in of(inhabited, USER)} == {"mlflow", "mlflow-alternate"}
    inhabited.destroy()
    assert inhabited.cloud.project.live == before
    assert inhabited.cloud.project.databases.keys() == {"shared"}
    assert inhabited.cloud.project.store.bucket("archive")


@pytest.fixture
def teams(fresh: Deployment) -> Deployment:
    """The example's program, next to the package as if it were installed."""
    project = fresh.project
    (project / "infra").rename(project / "mlflow_gcp")
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(ROOT / "examples" / "two_teams" / name, project)
    fresh.pulumi("stack", "init", "prod")
    fresh.configure(**{"gcp:project": PROJECT})
    return fresh


def test_two_teams_in_another_program(teams: Deployment) -> None:
    teams.pulumi("config", "set", "--secret", "forecastPassword", "fourteen chars")
    refused = teams.up(fails=True)
    assert "at least 15 printable characters" in refused.errors
    assert "fourteen chars" not in refused.text
    teams.pulumi("config", "set", "--secret", "forecastPassword", "a phrase that nobody guesses")
    teams.up()
    assert teams.up().touched == set()
    uris = {teams.output(f"{team}_tracking_uri") for team in ("research", "forecast")}
    assert len(uris) == len(teams.cloud.project.databases) == 2
    assert teams.output("forecast_tracking_password") == "a phrase that nobody guesses"
