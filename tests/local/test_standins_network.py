"""Private networks and customer-managed keys: Google's refusals, and who can reach what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fake_google.errors import ApiNotEnabled, BootRefused, NotFound, Refused
from fake_google.kms import service_agent
from fake_google.network import release_addresses
from tests.local.standins import PROJECT, SERVER, StandIns, project

NETWORK = "compute/network:Network"
SUBNETWORK = "compute/subnetwork:Subnetwork"
ADDRESSES = "compute/globalAddress:GlobalAddress"
PEERING = "servicenetworking/connection:Connection"
INSTANCE = "sql/databaseInstance:DatabaseInstance"
SERVICE = "cloudrunv2/service:Service"

NAME = f"projects/{PROJECT}/global/networks/mlflow"
KEY = f"projects/{PROJECT}/locations/us-central1/keyRings/ring/cryptoKeys/mlflow"


def instance(**configuration: Any) -> dict[str, Any]:
    return {
        "name": "mlflow-1",
        "region": "us-central1",
        "databaseVersion": "POSTGRES_17",
        "deletionProtection": False,
        "settings": {
            "tier": "db-f1-micro",
            "edition": "ENTERPRISE",
            "ipConfiguration": configuration,
        },
    }


SUBNETWORK_INPUTS = {
    "name": "mlflow",
    "region": "us-central1",
    "network": NAME,
    "ipCidrRange": "10.0.0.0/22",
}
PRIVATE = instance(ipv4Enabled=False, privateNetwork=NAME)
PEERED = {
    "network": NAME,
    "service": "servicenetworking.googleapis.com",
    "reservedPeeringRanges": ["services"],
}


def service(network: str | None) -> dict[str, Any]:
    interface = {"network": network, "subnetwork": "mlflow"}
    way = {"vpcAccess": {"networkInterfaces": [interface]}} if network else {}
    connection = f"{PROJECT}:us-central1:mlflow-1"
    return {
        "name": "mlflow",
        "location": "us-central1",
        "deletionProtection": False,
        "template": {
            "serviceAccount": SERVER,
            "volumes": [{"name": "sql", "cloudSqlInstance": {"instances": [connection]}}],
            "containers": [
                {"image": "i", "volumeMounts": [{"name": "sql", "mountPath": "/cloudsql"}]}
            ],
            **way,
        },
    }


@pytest.fixture
def google(tmp_path: Path) -> Iterator[StandIns]:
    with project(tmp_path) as made:
        made.enable("compute", "servicenetworking")
        yield made


def create(google: StandIns, kind: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return google.cloud.create(f"gcp:{kind}", "test", inputs)


def delete(google: StandIns, kind: str, made: str, **olds: Any) -> None:
    google.cloud.delete(f"gcp:{kind}", made, olds)


def network(google: StandIns) -> dict[str, str]:
    """Create everything that a private address requires. Returns ids by type."""
    return {
        kind: create(google, kind, inputs)[0]
        for kind, inputs in {
            NETWORK: {"name": "mlflow"},
            SUBNETWORK: SUBNETWORK_INPUTS,
            ADDRESSES: {"name": "services", "network": NAME},
            PEERING: PEERED,
        }.items()
    }


def test_disabled_apis_refuse(tmp_path: Path) -> None:
    with project(tmp_path) as google:
        with pytest.raises(ApiNotEnabled, match="compute"):
            create(google, NETWORK, {"name": "mlflow"})
        with pytest.raises(ApiNotEnabled, match="servicenetworking"):
            create(google, PEERING, PEERED)


def test_resources_of_a_missing_network_are_refused(google: StandIns) -> None:
    for kind in (SUBNETWORK, ADDRESSES):
        with pytest.raises(NotFound, match="networks/mlflow' was not found"):
            create(google, kind, {"name": "mlflow", "network": NAME})
    create(google, NETWORK, {"name": "mlflow"})
    with pytest.raises(NotFound, match="reserved range services"):
        create(google, PEERING, PEERED)


def test_subnetworks_of_a_network_do_not_overlap(google: StandIns) -> None:
    network(google)
    elsewhere = {**SUBNETWORK_INPUTS, "region": "europe-west1"}
    with pytest.raises(Refused, match="conflicts with existing subnetwork 'mlflow'"):
        create(google, SUBNETWORK, {**elsewhere, "ipCidrRange": "10.0.2.0/24"})
    create(google, SUBNETWORK, {**elsewhere, "ipCidrRange": "10.0.4.0/22"})


def test_an_instance_needs_an_address_and_a_peered_network(google: StandIns) -> None:
    with pytest.raises(Refused, match="At least one of Public IP or Private IP"):
        create(google, INSTANCE, instance(ipv4Enabled=False))
    create(google, NETWORK, {"name": "mlflow"})
    with pytest.raises(Refused, match="NETWORK_NOT_PEERED"):
        create(google, INSTANCE, PRIVATE)
    create(google, ADDRESSES, {"name": "services", "network": NAME})
    create(google, PEERING, PEERED)
    _, outputs = create(google, INSTANCE, PRIVATE)
    assert "publicIpAddress" not in outputs
    assert [address["type"] for address in outputs["ipAddresses"]] == ["PRIVATE"]


def test_an_instance_can_join_a_network_but_not_leave_it(google: StandIns) -> None:
    token, public = f"gcp:{INSTANCE}", instance(ipv4Enabled=True)
    into, out = google.cloud.diff(token, public, PRIVATE), google.cloud.diff(token, PRIVATE, public)
    assert (into.changed, into.replaces) == (("settings",), ())
    assert (out.replaces, out.delete_first) == (("settings",), True)


def test_a_network_is_deleted_last(google: StandIns) -> None:
    made = network(google)
    database, _ = create(google, INSTANCE, PRIVATE)
    for kind in (SUBNETWORK, ADDRESSES):
        with pytest.raises(Refused, match="resourceInUseByAnotherResource"):
            delete(google, NETWORK, made[NETWORK])
        delete(google, kind, made[kind])
    with pytest.raises(Refused, match="networkPeerings"):
        delete(google, NETWORK, made[NETWORK])
    # Google keeps the connection of a deleted instance for days.
    delete(google, INSTANCE, database, deletionProtection=False)
    with pytest.raises(Refused, match="are still using this connection"):
        delete(google, PEERING, made[PEERING])
    delete(google, PEERING, made[PEERING], deletionPolicy="REMOVE_PEERING")
    delete(google, NETWORK, made[NETWORK])
    # A new network of the same name has the old connection, with the old ranges.
    create(google, NETWORK, {"name": "mlflow"})
    create(google, ADDRESSES, {"name": "services", "network": NAME})
    with pytest.raises(Refused, match="Cannot modify allocated ranges in CreateConnection"):
        create(google, PEERING, PEERED)
    create(google, PEERING, {**PEERED, "updateOnCreationFail": True})


def test_an_abandoned_peering_keeps_the_network(google: StandIns) -> None:
    made = network(google)
    delete(google, PEERING, made[PEERING], deletionPolicy="ABANDON")
    for kind in (SUBNETWORK, ADDRESSES):
        delete(google, kind, made[kind])
    with pytest.raises(Refused, match="networkPeerings"):
        delete(google, NETWORK, made[NETWORK])


def test_a_private_database_is_only_reachable_from_its_network(google: StandIns) -> None:
    made = network(google)
    create(google, INSTANCE, PRIVATE)
    google.declare(
        "projects/iAMMember:IAMMember",
        role="roles/cloudsql.client",
        member=f"serviceAccount:{SERVER}",
    )
    for elsewhere in (None, "another"):
        with pytest.raises(BootRefused, match="private address only"):
            google.declare(SERVICE, **service(elsewhere))
    interface = {"network": "mlflow", "subnetwork": "elsewhere"}
    lost = service("mlflow")
    lost["template"]["vpcAccess"]["networkInterfaces"] = [interface]
    with pytest.raises(Refused, match="Subnet 'elsewhere' not found in region us-central1"):
        google.declare(SERVICE, **lost)
    server, _ = google.declare(SERVICE, **service("mlflow"))
    with pytest.raises(Refused, match="subnetworks/mlflow' is already being used by"):
        delete(google, SUBNETWORK, made[SUBNETWORK])
    delete(google, SERVICE, server, deletionProtection=False)
    with pytest.raises(Refused, match="already being used by .*/addresses/serverless-ipv4-"):
        delete(google, SUBNETWORK, made[SUBNETWORK])
    release_addresses(google.cloud.project)
    delete(google, SUBNETWORK, made[SUBNETWORK])


SECRET = {
    "secretId": "password",
    "replication": {
        "userManaged": {
            "replicas": [
                {"location": "us-central1", "customerManagedEncryption": {"kmsKeyName": KEY}}
            ]
        }
    },
}
ENCRYPTED: list[tuple[str, str, dict[str, Any]]] = [
    ("sqladmin", INSTANCE, {**instance(ipv4Enabled=True), "encryptionKeyName": KEY}),
    (
        "storage",
        "storage/bucket:Bucket",
        {"name": "b", "location": "US-CENTRAL1", "encryption": {"defaultKmsKeyName": KEY}},
    ),
    ("secretmanager", "secretmanager/secret:Secret", SECRET),
    (
        "artifactregistry",
        "artifactregistry/repository:Repository",
        {"repositoryId": "r", "kmsKeyName": KEY},
    ),
    (
        "run",
        SERVICE,
        {**service(None), "template": {**service(None)["template"], "encryptionKey": KEY}},
    ),
]


@pytest.mark.parametrize(("api", "kind", "inputs"), ENCRYPTED, ids=[row[0] for row in ENCRYPTED])
def test_a_service_agent_needs_a_grant_to_use_a_key(
    google: StandIns, api: str, kind: str, inputs: Mapping[str, Any]
) -> None:
    google.enable("cloudkms", "artifactregistry")
    if kind == SERVICE:
        create(google, INSTANCE, instance(ipv4Enabled=True))
        role = {"role": "roles/cloudsql.client", "member": f"serviceAccount:{SERVER}"}
        google.declare("projects/iAMMember:IAMMember", **role)
    with pytest.raises(Refused, match=r"useToEncrypt' denied .* for service-.*"):
        create(google, kind, inputs)
    if api == "storage":
        google.cloud.invoke("gcp:storage/getProjectServiceAccount:getProjectServiceAccount", {})
    else:
        google.declare("projects/serviceIdentity:ServiceIdentity", service=f"{api}.googleapis.com")
    google.declare(
        "kms/cryptoKeyIAMMember:CryptoKeyIAMMember",
        cryptoKeyId=KEY,
        role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
        member=f"serviceAccount:{service_agent(api)}",
    )
    create(google, kind, inputs)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (INSTANCE, {**instance(ipv4Enabled=True), "region": "us-east1", "encryptionKeyName": KEY}),
        (
            "storage/bucket:Bucket",
            {"name": "b", "location": "US", "encryption": {"defaultKmsKeyName": KEY}},
        ),
        (
            "secretmanager/secret:Secret",
            {
                "secretId": "password",
                "replication": {"auto": {"customerManagedEncryption": {"kmsKeyName": KEY}}},
            },
        ),
    ],
)
def test_a_key_must_be_in_the_location_of_the_data(
    google: StandIns, kind: str, inputs: Mapping[str, Any]
) -> None:
    with pytest.raises(Refused, match="must be in the same location"):
        create(google, kind, inputs)
