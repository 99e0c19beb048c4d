"""Upgrades a stack of each release: resources with data stay."""

from __future__ import annotations

import pytest

from tests.engine.deployment import BUCKET, INSTANCE, SERVICE, VERSION, Deployment, kinds
from tests.engine.previous_release import STACKS, missing, restore

IMAGE = "docker:index/image:Image"
HOLDS_DATA = (
    INSTANCE,
    BUCKET,
    VERSION,
    "gcp:secretmanager/secret:Secret",
    "gcp:sql/database:Database",
    "gcp:sql/user:User",
)
OUTPUTS = (
    "tracking_uri",
    "tracking_username",
    "tracking_password",
    "artifact_bucket",
    "database_connection_name",
)


# The changes of an upgrade from each release. A release has another image, so the service gets
# another revision.
TOUCHED = {
    # The server signs as a separate account, and loses the permission on its own account.
    "unreleased": {
        IMAGE: {"update"},
        SERVICE: {"update"},
        "random:index/randomId:RandomId": {"create"},
        "gcp:serviceaccount/account:Account": {"create"},
        "gcp:projects/iAMCustomRole:IAMCustomRole": {"create"},
        "gcp:storage/bucketIAMMember:BucketIAMMember": {"create"},
        "gcp:serviceaccount/iAMMember:IAMMember": {"create", "delete"},
    },
}


def test_the_stack_of_every_release_is_saved() -> None:
    assert missing() == [], "make previous-release REVISION=... saves it"
    assert {path.stem for path in STACKS.iterdir()} == TOUCHED.keys()


@pytest.mark.parametrize("release", TOUCHED)
def test_a_release_is_upgraded_in_place(fresh: Deployment, release: str) -> None:
    restore(fresh, release)
    outputs = {name: fresh.output(name) for name in OUTPUTS}
    before = {key: live for key, live in fresh.cloud.project.live.items() if key[0] in HOLDS_DATA}
    assert {token for token, _ in before} == set(HOLDS_DATA)
    assert kinds(fresh.up().touched) == TOUCHED[release]
    roles = {grant.role for grant in fresh.cloud.project.policy.grants}
    assert "roles/iam.serviceAccountTokenCreator" not in roles
    assert {name: fresh.output(name) for name in OUTPUTS} == outputs
    assert all(fresh.cloud.project.live[key] is live for key, live in before.items())
    assert fresh.up().touched == set()
