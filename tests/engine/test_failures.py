"""An `up` that stops halfway, at each type of resource in turn: running it again goes on."""

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


def test_each_failure_is_gone_on_from(fresh: Deployment) -> None:
    """Every type fails the first time, and every `up` gets as far as that lets it."""
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


def test_a_grant_that_is_not_seen_yet_stops_the_boot_until_there_is_a_new_revision(
    fresh: Deployment,
) -> None:
    """The service exists by then: it is kept, and an `up` without a change doesn't boot it."""
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
    """What the boot above looks at is there by the first `up`; without it, it stops."""
    cloud = deployed.cloud
    for key in [key for key in cloud.project.live if key[0] == MEMBER][:1]:
        cloud.delete(*key, olds={})
    deployed.configure(memory="2Gi")
    assert "denied" in deployed.up(fails=True).errors


def test_a_missing_docker_daemon_is_said_in_one_line(fresh: Deployment) -> None:
    fresh.init()
    fresh.environment["DOCKER_HOST"] = f"unix://{fresh.folder}/docker.sock"
    for refused in (fresh.preview(fails=True), fresh.up(fails=True)):
        assert "No Docker daemon answers at unix://" in refused.errors
        assert "pulumi config set builder cloud-build" in refused.errors
        assert "Traceback" not in refused.text
    assert not fresh.cloud.project.live


# Random values are in the state alone.
EVERYTHING = {token: 1 for token in TYPES if not token.startswith("random:")} | {
    "gcp:projects/service:Service": 8,
    "gcp:serviceaccount/account:Account": 2,
    "gcp:storage/bucketIAMMember:BucketIAMMember": 2,
    "gcp:secretmanager/secret:Secret": 5,
    "gcp:secretmanager/secretVersion:SecretVersion": 5,
    MEMBER: 5,
}
