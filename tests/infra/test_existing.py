"""Existing resources: they are used, get grants and are otherwise left unchanged."""

from __future__ import annotations

import pytest

from tests.infra.declared import PROJECT, REGION, Program, recorded
from tests.infra.policy import (
    BUCKET,
    BUCKET_MEMBER,
    DATABASE,
    INSTANCE,
    PEERING,
    PROJECT_MEMBER,
    SECRET,
    SECRET_MEMBER,
    SERVER,
    SIGNER,
)

USER = "gcp:sql/user:User"
VERSION = "gcp:secretmanager/secretVersion:SecretVersion"
NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
ADDRESSES = "gcp:compute/globalAddress:GlobalAddress"
PASSWORD = "random:index/randomPassword:RandomPassword"
RANDOM_ID = "random:index/randomId:RandomId"
ALERT = "gcp:monitoring/alertPolicy:AlertPolicy"
SHARED = f"{PROJECT}:europe-west1:shared"
IN_SHARED = {"existingDatabaseInstance": SHARED, "name": "ml-two"}


def less(program: Program, plain: Program) -> dict[str, int]:
    """Returns how many fewer resources of each type are declared."""
    found, usual = program.counts(), plain.counts()
    return {
        kind: difference
        for kind in usual.keys() | found.keys()
        if (difference := usual.get(kind, 0) - found.get(kind, 0))
    }


def test_an_existing_instance_gets_a_database_and_a_user() -> None:
    program = recorded(IN_SHARED)
    assert less(program, recorded()) == {INSTANCE: 1, RANDOM_ID: 1}
    for kind in (DATABASE, USER):
        made = program.one(kind)
        assert made.inputs["name"] == "ml-two"
        assert made.inputs["instance"] == "shared"
        # The instance stays, so they are deleted themselves.
        assert "deletionPolicy" not in made.inputs
    condition = program.one(PROJECT_MEMBER).inputs["condition"]["expression"]
    assert f'"projects/{PROJECT}/instances/shared"' in condition
    assert program.one(VERSION, "database_url").inputs["secretData"] == (
        "postgresql+pg8000://ml-two:generated-database-password@/ml-two"
        f"?unix_sock=/cloudsql/{SHARED}/.s.PGSQL.5432"
    )
    [volume] = program.service.inputs["template"]["volumes"]
    assert volume["cloudSqlInstance"]["instances"] == [SHARED]
    assert program.outputs["database_connection_name"] == SHARED


@pytest.mark.parametrize("protection", [True, False])
def test_there_the_database_is_protected_and_deleted_before_its_users(protection: bool) -> None:
    program = recorded(
        {**IN_SHARED, "databasePasswordVersion": 3, "deletionProtection": protection}
    )
    database, users = program.one(DATABASE), program.all(USER)
    assert {user.inputs["name"] for user in users} == {"ml-two", "ml-two-alternate"}
    assert {user.urn for user in users} <= database.depends_on
    assert database.protect is protection
    assert not any(user.protect for user in users)


def test_an_existing_instance_gets_no_database_alerts() -> None:
    watched = {"alertEmail": "oncall@example.com"}
    usual, there = (
        {r.name for r in recorded(c).all(ALERT)} for c in (watched, {**watched, **IN_SHARED})
    )
    assert usual - there == {"connections", "disk"}
    assert there < usual


def test_an_existing_bucket_gets_a_grant() -> None:
    program = recorded({"existingBucket": "my.artifacts"})
    assert less(program, recorded()) == {BUCKET: 1, RANDOM_ID: 1}
    granted = program.all(BUCKET_MEMBER)
    assert {(r.inputs["bucket"], r.inputs["role"], r.inputs["member"]) for r in granted} == {
        ("my.artifacts", "roles/storage.objectUser", member) for member in (SERVER, SIGNER)
    }
    assert program.one(VERSION, "artifact_url").inputs["secretData"] == "gs://my.artifacts"
    assert program.outputs["artifact_bucket"] == "my.artifacts"


@pytest.mark.parametrize(
    ("given", "network", "way"),
    [
        (
            {"existingNetwork": "ours", "existingSubnetwork": "servers"},
            f"projects/{PROJECT}/global/networks/ours",
            {"network": "ours", "subnetwork": "servers"},
        ),
        # A Shared VPC must be given by its full name.
        (
            {
                "existingNetwork": "projects/host-project/global/networks/all",
                "existingSubnetwork": "servers",
            },
            "projects/host-project/global/networks/all",
            {
                "network": "projects/host-project/global/networks/all",
                "subnetwork": f"projects/host-project/regions/{REGION}/subnetworks/servers",
            },
        ),
    ],
)
def test_an_existing_network_is_used_unchanged(
    given: dict[str, str], network: str, way: dict[str, str]
) -> None:
    program = recorded({"network": "private", **given})
    own = recorded({"network": "private"})
    assert less(program, own) == dict.fromkeys((NETWORK, SUBNETWORK, ADDRESSES, PEERING), 1)
    configuration = program.one(INSTANCE).inputs["settings"]["ipConfiguration"]
    assert configuration == {
        "ipv4Enabled": False,
        "privateNetwork": network,
        "sslMode": "ENCRYPTED_ONLY",
    }
    access = program.service.inputs["template"]["vpcAccess"]
    assert access == {"egress": "PRIVATE_RANGES_ONLY", "networkInterfaces": [way]}
    # The same with an existing instance.
    shared = recorded({"network": "private", **given, **IN_SHARED})
    assert shared.service.inputs["template"]["vpcAccess"] == access


def test_a_password_in_an_existing_secret_is_not_copied() -> None:
    deployed = {"githubRepository": "my-org/mlflow-gcp", "githubRepositoryId": 74}
    given = {
        "trackingPasswordSecret": f"projects/{PROJECT}/secrets/everybody/versions/3",
        "viewerUsername": "viewer",
        "viewerPasswordSecret": f"projects/{PROJECT}/secrets/lookers/versions/12",
        # The deploy account gets no permission on these secrets.
        **deployed,
    }
    program = recorded(given)
    usual = recorded({"viewerUsername": "viewer", **deployed})
    assert less(program, usual) == dict.fromkeys((SECRET, VERSION, PASSWORD), 2) | {
        SECRET_MEMBER: 2
    }
    for key, secret, number in (
        ("tracking_password", "everybody", 3),
        ("viewer_password", "lookers", 12),
    ):
        [grant] = [g for g in program.all(SECRET_MEMBER) if secret in g.inputs["secretId"]]
        assert grant.inputs == {
            "secretId": f"projects/{PROJECT}/secrets/{secret}",
            "role": "roles/secretmanager.secretAccessor",
            "member": SERVER,
        }
        assert grant.urn in program.before(program.service)
        assert program.env[f"{key.upper()}_SECRET"] == f"{secret}/versions/{number}"
        assert key not in program.outputs
        assert program.outputs[f"{key}_secret"].endswith(f"/{secret}/versions/{number}")
