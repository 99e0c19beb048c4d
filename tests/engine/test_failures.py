"""An `up` that fails at each type of resource in turn: the next `up` continues."""

from __future__ import annotations

from tests.engine.deployment import SERVICE, Deployment

MEMBER = "gcp:secretmanager/secretIamMember:SecretIamMember"
FAULTS = (
    "googleapi: Error 429: Quota exceeded for quota metric 'Write requests', rateLimitExceeded",
    "googleapi: Error 409: There were concurrent policy changes. Please retry, aborted",
    "timeout while waiting for state to become 'DONE' (timeout: 20m0s)",
)
TYPES = (
    "gcp:projects/service:Service",
    "random:index/randomId:RandomId",
    "gcp:serviceaccount/account:Account",
    "gcp:projects/iAMCustomRole:IAMCustomRole",
    "gcp:secretmanager/secret:Secret",
    "gcp:artifactregistry/repository:Repository",
    "gcp:serviceaccount/iAMMember:IAMMember",
    "gcp:sql/databaseInstance:DatabaseInstance",
    "gcp:storage/bucket:Bucket",
    "docker:index/image:Image",
    MEMBER,
    "gcp:sql/database:Database",
    "gcp:sql/user:User",
    "gcp:storage/bucketIAMMember:BucketIAMMember",
    "gcp:projects/iAMMember:IAMMember",
    "gcp:secretmanager/secretVersion:SecretVersion",
    SERVICE,
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember",
)


def test_an_up_continues_after_each_failure(fresh: Deployment) -> None:
    """Each type fails the first time, so every `up` gets one step further."""
    fresh.init()
    faults = {token: f"{FAULTS[n % len(FAULTS)]} ({token})" for n, token in enumerate(TYPES)}
    fresh.cloud.faults = dict(faults)
    while left := fresh.cloud.faults.copy():
        errors = fresh.up(fails=True).errors
        met = left.keys() - fresh.cloud.faults.keys()
        assert met
        assert all(faults[token] in errors for token in met)
    fresh.up()
    assert fresh.cloud.counts() == EVERYTHING
    assert fresh.up().touched == set()


def test_a_grant_without_effect_yet_fails_the_boot_until_a_new_revision(
    fresh: Deployment,
) -> None:
    """The service exists by then and is kept: an `up` without a change doesn't boot it again."""
    fresh.init()
    fresh.cloud.project.unseen = "roles/secretmanager.secretAccessor"
    refused = fresh.up(fails=True)
    assert "Permission 'secretmanager.versions.access' denied" in refused.errors
    assert fresh.cloud.counts()[SERVICE] == 1
    assert f"update {SERVICE} server" in fresh.up().touched
    fresh.configure(requestTimeout="3599")
    assert "denied" in fresh.up(fails=True).errors
    fresh.cloud.project.seen()
    fresh.configure(requestTimeout="3598")
    assert f"update {SERVICE} server" in fresh.up().touched
    assert fresh.cloud.counts() == EVERYTHING
    assert fresh.up().touched == set()


def test_the_service_waits_for_all_that_it_boots_with(deployed: Deployment) -> None:
    """The first `up` creates what the boot reads before the service. Without it, `up` fails."""
    cloud = deployed.cloud
    for key in [key for key in cloud.project.live if key[0] == MEMBER][:1]:
        cloud.delete(*key, olds={})
    deployed.configure(memory="2Gi")
    assert "denied" in deployed.up(fails=True).errors


def test_a_missing_docker_daemon_is_reported_in_one_line(fresh: Deployment) -> None:
    fresh.init()
    fresh.environment["DOCKER_HOST"] = f"unix://{fresh.folder}/docker.sock"
    for refused in (fresh.preview(fails=True), fresh.up(fails=True)):
        assert "No Docker daemon answers at unix://" in refused.errors
        assert "pulumi config set builder cloud-build" in refused.errors
        assert "Traceback" not in refused.text
    assert not fresh.cloud.project.live


# Random values are only in the state.
EVERYTHING = {token: 1 for token in TYPES if not token.startswith("random:")} | {
    "gcp:projects/service:Service": 8,
    "gcp:serviceaccount/account:Account": 2,
    "gcp:storage/bucketIAMMember:BucketIAMMember": 2,
    "gcp:secretmanager/secret:Secret": 5,
    "gcp:secretmanager/secretVersion:SecretVersion": 5,
    MEMBER: 5,
}
