"""A private network, a customer-managed key, and the stack file for production."""

from __future__ import annotations

from typing import Any

import pytest

from infra.facts import tiers
from infra.facts.limits import CONNECTIONS_PER_PROCESS, RESERVED_CONNECTIONS
from infra.google.network import SERVER_RANGE
from infra.settings.reader import load
from tests.infra.declared import NUMBER, PROJECT, REGION, UNKNOWN, Program, recorded
from tests.infra.policy import AGENTS
from tests.infra.test_policy import KEY, stack_files

API = "gcp:projects/service:Service"
NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
ADDRESSES = "gcp:compute/globalAddress:GlobalAddress"
PEERING = "gcp:servicenetworking/connection:Connection"
AGENT = "gcp:projects/serviceIdentity:ServiceIdentity"
MEMBER = "gcp:projects/iAMMember:IAMMember"
ENCRYPTS = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"
STORAGE_AGENT_CALL = "gcp:storage/getProjectServiceAccount:getProjectServiceAccount"
INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
IMAGE = f"{REGION}-docker.pkg.dev/{PROJECT}/my-images/server@sha256:{'d' * 64}"


SHAPES: dict[str, dict[str, Any]] = {
    "public": {},
    "private": {"network": "private"},
    "key": {"kmsKey": KEY},
    "key and image": {"kmsKey": KEY, "image": IMAGE},
    "both": {"network": "private", "kmsKey": KEY},
}


def declared(shape: str) -> Program:
    return recorded(SHAPES[shape])


def added(shape: str) -> dict[str, int]:
    before, after = declared("public").counts(), declared(shape).counts()
    return {kind: n - before.get(kind, 0) for kind, n in after.items() if n != before.get(kind, 0)}


def apis(program: Program) -> set[str]:
    return {api.inputs["service"].partition(".")[0] for api in program.all(API)}


@pytest.mark.parametrize(
    ("shape", "resources", "switched_on"),
    [
        (
            "private",
            {API: 2, NETWORK: 1, SUBNETWORK: 1, ADDRESSES: 1, PEERING: 1},
            {"compute", "servicenetworking"},
        ),
        ("key", {API: 1, AGENT: 4, MEMBER: 1, ENCRYPTS: 5}, {"cloudkms"}),
    ],
)
def test_exactly_the_chosen_resources_are_added(
    shape: str, resources: dict[str, int], switched_on: set[str]
) -> None:
    assert added(shape) == resources
    assert apis(declared(shape)) - apis(declared("public")) == switched_on
    # No other resource is removed or renamed.
    before = {resource.urn for resource in declared("public").created}
    assert before < {resource.urn for resource in declared(shape).created}


def test_the_network_has_the_servers_subnet_and_a_peering_with_google() -> None:
    program = declared("private")
    network = program.one(NETWORK)
    assert network.inputs["name"] == "mlflow"
    assert network.inputs["autoCreateSubnetworks"] is False
    subnetwork = program.one(SUBNETWORK).inputs
    assert (subnetwork["name"], subnetwork["region"]) == ("mlflow", REGION)
    assert subnetwork["ipCidrRange"] == SERVER_RANGE
    assert subnetwork["privateIpGoogleAccess"] is True
    addresses = program.one(ADDRESSES).inputs
    assert addresses["name"] == "mlflow-services"
    assert (addresses["purpose"], addresses["addressType"]) == ("VPC_PEERING", "INTERNAL")
    # Google needs a /24 for each region.
    assert addresses["prefixLength"] <= 24
    peering = program.one(PEERING).inputs
    assert peering["service"] == "servicenetworking.googleapis.com"
    assert peering["reservedPeeringRanges"] == ["mlflow-services"]
    assert peering["deletionPolicy"] == "REMOVE_PEERING"
    for each in (subnetwork, addresses, peering):
        assert each["network"] == "network-id"


def test_the_subnet_has_addresses_for_the_maximum_of_instances() -> None:
    largest = tiers.require("db-perf-optimized-N-128").max_connections
    instances = (largest - sum(RESERVED_CONNECTIONS.values())) // CONNECTIONS_PER_PROCESS
    prefix = int(SERVER_RANGE.partition("/")[2])
    # Google reserves four addresses of a range.
    assert 4 * instances <= 2 ** (32 - prefix) - 4


def test_the_database_is_only_in_the_network_that_the_service_joins() -> None:
    program = declared("private")
    assert program.one(INSTANCE).inputs["settings"]["ipConfiguration"] == {
        "ipv4Enabled": False,
        "privateNetwork": "network-id",
        "sslMode": "ENCRYPTED_ONLY",
    }
    template = program.service.inputs["template"]
    assert template["vpcAccess"] == {
        "egress": "PRIVATE_RANGES_ONLY",
        "networkInterfaces": [{"network": "mlflow", "subnetwork": "mlflow"}],
    }
    # The socket is the same in both networks, so the URL and the server's settings are too.
    assert template["volumes"] == declared("public").service.inputs["template"]["volumes"]
    assert program.env == declared("public").env


def test_only_the_service_agents_that_store_data_may_use_the_key() -> None:
    for shape, without in (
        ("key", set()),
        ("key and image", {f"service-{NUMBER}@gcp-sa-artifactregistry.iam.gserviceaccount.com"}),
    ):
        grants = declared(shape).all(ENCRYPTS)
        members = {grant.inputs["member"].removeprefix("serviceAccount:") for grant in grants}
        assert members == AGENTS - without
        assert len(members) == len(grants)
        assert {grant.inputs["cryptoKeyId"] for grant in grants} == {KEY}
        assert {agent.inputs["project"] for agent in declared(shape).all(AGENT)} == {PROJECT}


def test_no_api_is_called_before_it_is_enabled() -> None:
    assert STORAGE_AGENT_CALL in {token for token, *_ in declared("key").calls}
    ahead = recorded(SHAPES["key"], preview=True)
    assert STORAGE_AGENT_CALL not in {token for token, *_ in ahead.calls}
    assert ahead.one(ENCRYPTS, "storage-encrypts").inputs["member"] == UNKNOWN


@pytest.mark.parametrize("shape", ["private", "both"])
def test_a_first_preview_works_while_all_outputs_are_unknown(shape: str) -> None:
    assert recorded(SHAPES[shape], preview=True).counts() == declared(shape).counts()


def test_the_production_stack_is_highly_available_protected_and_private() -> None:
    file = stack_files()["Pulumi.prod.yaml"]
    settings = load(
        {"gcp:project": PROJECT, **{f"mlflow-gcp:{key}": str(v) for key, v in file.items()}}
    )
    assert settings.private_network
    assert settings.deletion_protection
    assert not settings.bucket_force_destroy
    assert settings.database.availability == "REGIONAL"
    assert settings.database.backup_retention >= 30
    assert settings.service.min_instances >= 1
    # Shared cores are outside Cloud SQL's service level agreement:
    # https://cloud.google.com/sql/sla
    assert settings.database.tier not in tiers.SHARED_CORE
