"""What was there before: used, given rights on, and otherwise left alone."""

from __future__ import annotations

import pytest

from tests.infra.declared import PROJECT, Program, run
from tests.infra.policy import BUCKET, BUCKET_MEMBER, DATABASE, INSTANCE, PROJECT_MEMBER, SERVER

USER = "gcp:sql/user:User"
VERSION = "gcp:secretmanager/secretVersion:SecretVersion"
RANDOM_ID = "random:index/randomId:RandomId"
ALERT = "gcp:monitoring/alertPolicy:AlertPolicy"
SHARED = f"{PROJECT}:europe-west1:shared"
IN_SHARED = {"existingDatabaseInstance": SHARED, "name": "ml-two"}


def less(program: Program, plain: Program) -> dict[str, int]:
    """How many fewer of each type are declared."""
    found, usual = program.counts(), plain.counts()
    return {
        kind: difference
        for kind in usual.keys() | found.keys()
        if (difference := usual.get(kind, 0) - found.get(kind, 0))
    }


def test_in_an_existing_instance_a_database_and_a_user_are_made() -> None:
    program = run(IN_SHARED)
    assert less(program, run()) == {INSTANCE: 1, RANDOM_ID: 1}
    for kind in (DATABASE, USER):
        made = program.one(kind)
        assert made.inputs["name"] == "ml-two"
        assert made.inputs["instance"] == "shared"
        # They don't go with the instance, so they are really deleted.
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
def test_there_the_database_holds_the_data_and_goes_before_its_users(protection: bool) -> None:
    program = run({**IN_SHARED, "databasePasswordVersion": 3, "deletionProtection": protection})
    database, users = program.one(DATABASE), program.all(USER)
    assert {user.inputs["name"] for user in users} == {"ml-two", "ml-two-alternate"}
    assert {user.urn for user in users} <= database.depends_on
    assert database.protect is protection
    assert not any(user.protect for user in users)


def test_who_has_the_instance_watches_it() -> None:
    watched = {"alertEmail": "oncall@example.com"}
    usual, there = (
        {r.name for r in run(c).all(ALERT)} for c in (watched, {**watched, **IN_SHARED})
    )
    assert usual - there == {"connections", "disk"}
    assert there < usual


def test_an_existing_bucket_gets_a_grant() -> None:
    program = run({"existingBucket": "my.artifacts"})
    assert less(program, run()) == {BUCKET: 1, RANDOM_ID: 1}
    assert program.one(BUCKET_MEMBER).inputs == {
        "bucket": "my.artifacts",
        "role": "roles/storage.objectUser",
        "member": SERVER,
    }
    assert program.one(VERSION, "artifact_url").inputs["secretData"] == "gs://my.artifacts"
    assert program.outputs["artifact_bucket"] == "my.artifacts"
