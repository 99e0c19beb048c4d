"""Changes each setting alone: which resources it affects; resources with data stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from infra.settings.reader import load
from infra.settings.schema import Change, listed
from operations.doctor.declared import resources
from tests.engine.deployment import (
    BUCKET,
    INSTANCE,
    PROJECT,
    SERVICE,
    VERSION,
    Deployment,
    Run,
    kinds,
)

REPLACED = {"create-replacement", "replace", "delete-replaced"}
UPDATED = {"update"}
GONE = {"delete"}
NEW = {"create"}

ACCOUNT = "gcp:serviceaccount/account:Account"
API = "gcp:projects/service:Service"
BUDGET = "gcp:billing/budget:Budget"
CHANNEL = "gcp:monitoring/notificationChannel:NotificationChannel"
CHECK = "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig"
METRIC = "gcp:logging/metric:Metric"
POLICY = "gcp:monitoring/alertPolicy:AlertPolicy"
IMAGE = "docker:index/image:Image"
INVOKER = "gcp:cloudrunv2/serviceIamMember:ServiceIamMember"
ACCESSOR = "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember"
AGENT = "gcp:projects/serviceIdentity:ServiceIdentity"
PROJECT_MEMBER = "gcp:projects/iAMMember:IAMMember"
ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
IMAGES_MEMBER = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"
SECRET = "gcp:secretmanager/secret:Secret"
SECRET_MEMBER = "gcp:secretmanager/secretIamMember:SecretIamMember"
PASSWORD = "random:index/randomPassword:RandomPassword"
USER = "gcp:sql/user:User"
VPC = (
    "gcp:compute/network:Network",
    "gcp:compute/subnetwork:Subnetwork",
    "gcp:compute/globalAddress:GlobalAddress",
    "gcp:servicenetworking/connection:Connection",
)
KEY = "projects/my-keys/locations/us-central1/keyRings/ring/cryptoKeys/mlflow"
READY = "us-central1-docker.pkg.dev/my-project/my-images/server@sha256:" + "0" * 64

ON_SERVICE = {SERVICE: UPDATED}
ON_INSTANCE = {INSTANCE: UPDATED}
UPKEEP = dict.fromkeys(
    (
        ACCOUNT,
        SECRET_MEMBER,
        "gcp:storage/bucketIAMMember:BucketIAMMember",
        PROJECT_MEMBER,
        "gcp:cloudrunv2/job:Job",
        "gcp:cloudrunv2/jobIamMember:JobIamMember",
        "gcp:cloudscheduler/job:Job",
        API,
    ),
    NEW,
)
TABLE: dict[str, tuple[Any, dict[str, set[str]]]] = {
    "artifacts": ("direct", ON_SERVICE),
    "access": ("internal", {**ON_SERVICE, INVOKER: GONE}),
    "publicThrough": ("invokerIamDisabled", {**ON_SERVICE, INVOKER: GONE}),
    "trackingUsername": ("somebody", {VERSION: REPLACED, **ON_SERVICE}),
    "trackingPasswordVersion": (2, {PASSWORD: REPLACED, VERSION: REPLACED, **ON_SERVICE}),
    "viewerUsername": (
        "viewer",
        {
            **dict.fromkeys((PASSWORD, SECRET, VERSION, SECRET_MEMBER), NEW),
            **ON_SERVICE,
        },
    ),
    "encryptionKeyVersion": (2, {PASSWORD: REPLACED, VERSION: REPLACED, **ON_SERVICE}),
    "databasePasswordVersion": (
        2,
        {PASSWORD: NEW, USER: NEW, VERSION: REPLACED, **ON_SERVICE},
    ),
    "image": (
        READY,
        {
            **ON_SERVICE,
            IMAGE: GONE,
            "gcp:artifactregistry/repository:Repository": GONE,
            API: GONE,
        },
    ),
    "builder": (
        "cloud-build",
        {
            **ON_SERVICE,
            IMAGE: GONE,
            **dict.fromkeys(
                (
                    "command:local:Command",
                    "random:index/randomId:RandomId",
                    BUCKET,
                    "gcp:storage/bucketIAMMember:BucketIAMMember",
                    ACCOUNT,
                    PROJECT_MEMBER,
                    IMAGES_MEMBER,
                    API,
                ),
                NEW,
            ),
        },
    ),
    "network": ("private", {**ON_SERVICE, **ON_INSTANCE, API: NEW, **dict.fromkeys(VPC, NEW)}),
    "databaseVersion": (18, ON_INSTANCE),
    "databaseTier": ("db-g1-small", ON_INSTANCE),
    "databaseDiskGb": (20, ON_INSTANCE),
    "databaseDiskLimitGb": (200, ON_INSTANCE),
    "databaseAvailability": ("REGIONAL", ON_INSTANCE),
    "databaseConnections": (4, ON_SERVICE),
    "backupRetention": (14, ON_INSTANCE),
    "memory": ("2Gi", ON_SERVICE),
    "cpu": (2, ON_SERVICE),
    "concurrency": (40, ON_SERVICE),
    "minInstances": (1, ON_SERVICE),
    "maxInstances": (1, ON_SERVICE),
    "requestTimeout": (60, ON_SERVICE),
    "customDomains": (["mlflow.example.com"], ON_SERVICE),
    "internalNetworks": (["10.8.0.0/24"], ON_SERVICE),
    "accounts": (True, ON_SERVICE),
    "deletionProtection": (False, {**ON_SERVICE, **ON_INSTANCE}),
    "bucketForceDestroy": (True, {BUCKET: UPDATED}),
    "mlflowTelemetry": (True, ON_SERVICE),
    "cleanupAfterDays": (30, UPKEEP),
    "archiveTracesAfterDays": (30, UPKEEP),
    "alertEmail": (
        "oncall@example.com",
        {API: NEW, CHANNEL: NEW, METRIC: NEW, POLICY: NEW},
    ),
}
# These would replace resources with data: the protected stack refuses them.
PROTECTED = (BUCKET, INSTANCE, SECRET, SERVICE)
MOVING: dict[str, tuple[Any, set[str]]] = {
    "gcp:region": ("europe-west1", {BUCKET, INSTANCE, SERVICE}),
    "name": ("another", {BUCKET, INSTANCE, SECRET, SERVICE}),
    "bucketLocation": ("EU", {BUCKET}),
    "existingBucket": ("archive", {BUCKET}),
    "existingDatabaseInstance": (f"{PROJECT}:us-central1:shared", {INSTANCE}),
    "kmsKey": (KEY, {INSTANCE, SECRET}),
}
ELSEWHERE = {
    # With accounts: tests/infra
    "accountsDefaultPermission",
    "accountsAdministrators",
    "accountsDomains",
    "jobs",  # needs databaseConnections: below
    "invokers",  # needs an access mode that uses it: below
    "databaseEdition",  # must match the tier: below
    "trackingPassword",  # test_life
    # With a version of the password: tests/infra
    "previousTrackingPassword",
    # With viewerUsername: tests/infra
    "previousViewerPassword",
    "viewerPassword",
    "viewerPasswordVersion",
    # Together: below
    "githubRepository",
    "githubRepositoryId",
    "githubReview",
    "existingNetwork",
    "existingSubnetwork",
    "trackingPasswordSecret",
    "viewerPasswordSecret",
    "loadBalancer",
    "rateLimit",
    # With alertEmail: below
    "uptimeCheck",
    "monthlyBudget",
    "billingAccount",
}


CHANGES = {setting.key: setting.change for setting in listed()}


def test_every_setting_is_here() -> None:
    assert CHANGES.keys() - {"gcp:project"} == TABLE.keys() | MOVING.keys() | ELSEWHERE


def ahead(shared: Deployment, settings: dict[str, Any], *, fails: bool = False) -> Run:
    try:
        shared.configure("prod", **settings)
        return shared.preview(fails=fails)
    finally:
        shared.configure("prod", **dict.fromkeys(settings))


# The engine previews settings that change the same resources in place together: if one of them
# touched another resource, the preview of all would show it.
# The first two change values that are known only once Google has responded; the last one is refused
# together with `cpu`.
APART = {"customDomains", "databaseDiskGb", "databaseConnections"}
TOGETHER = [
    [key for key in TABLE if TABLE[key][1] == touched and key not in APART]
    for touched in (ON_SERVICE, ON_INSTANCE, {**ON_SERVICE, **ON_INSTANCE})
]
ALONE = [[key] for key in TABLE if not any(key in keys for keys in TOGETHER)]


@pytest.mark.parametrize("keys", [*TOGETHER, *ALONE], ids=lambda keys: keys[0])
def test_settings_touch_only_what_they_should(shared: Deployment, keys: list[str]) -> None:
    touched = TABLE[keys[0]][1]
    assert kinds(ahead(shared, {key: TABLE[key][0] for key in keys}).touched) == touched


def declared(settings: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    config = {
        f"mlflow-gcp:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in settings.items()
    }
    made = resources(load({"gcp:project": PROJECT, **config}))
    return {resource.key: resource.inputs for resource in made}


def test_each_setting_alone_has_the_effect_of_all() -> None:
    before = declared({})
    for key in [key for keys in TOGETHER for key in keys]:
        after = declared({key: TABLE[key][0]})
        assert before.keys() == after.keys()
        changed = {resource[0] for resource in before if before[resource] != after[resource]}
        assert changed == TABLE[key][1].keys(), key


@pytest.mark.parametrize("key", TABLE)
def test_the_effect_is_what_the_settings_page_says(key: str) -> None:
    if CHANGES[key] is Change.REVISION:
        assert SERVICE in TABLE[key][1]
    if CHANGES[key] is Change.DATABASE:
        assert INSTANCE in TABLE[key][1]


@pytest.mark.parametrize("review", [False, True])
def test_the_github_deployer_is_added_without_changing_the_rest(
    shared: Deployment, review: bool
) -> None:
    settings = {
        "githubRepository": "my-org/mlflow-gcp",
        "githubRepositoryId": 74,
        "githubReview": review,
    }
    assert kinds(ahead(shared, settings).touched) == dict.fromkeys(
        (
            "random:index/randomId:RandomId",
            "gcp:iam/workloadIdentityPool:WorkloadIdentityPool",
            "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider",
            ACCOUNT,
            "gcp:serviceaccount/iAMMember:IAMMember",
            ROLE,
            INVOKER,
            PROJECT_MEMBER,
            IMAGES_MEMBER,
            SECRET_MEMBER,
            API,
        ),
        NEW,
    )


def test_jobs_add_the_worker(shared: Deployment) -> None:
    touched = kinds(ahead(shared, {"jobs": True, "databaseConnections": 5}).touched)
    assert touched == {
        **ON_SERVICE,
        **dict.fromkeys(
            (
                ACCOUNT,
                SECRET_MEMBER,
                "gcp:storage/bucketIAMMember:BucketIAMMember",
                PROJECT_MEMBER,
                "gcp:cloudrunv2/workerPool:WorkerPool",
            ),
            NEW,
        ),
    }


def test_edition_and_tier_change_the_instance_in_place(shared: Deployment) -> None:
    larger = {"databaseTier": "db-perf-optimized-N-2", "databaseEdition": "ENTERPRISE_PLUS"}
    assert kinds(ahead(shared, larger).touched) == ON_INSTANCE


@pytest.mark.parametrize(
    ("access", "touched"),
    [
        ("iam", {INVOKER: NEW | GONE}),
        ("iap", {**ON_SERVICE, INVOKER: NEW | GONE, ACCESSOR: NEW, AGENT: NEW, API: NEW}),
    ],
)
def test_a_changed_access_mode_affects_only_access(
    shared: Deployment, access: str, touched: dict[str, set[str]]
) -> None:
    settings = {"access": access, "invokers": ["user:ada@example.com"]}
    assert kinds(ahead(shared, settings).touched) == touched


def test_alerts_are_added_and_removed_without_changing_the_rest(deployed: Deployment) -> None:
    everything = {
        "alertEmail": "oncall@example.com",
        "uptimeCheck": True,
        "monthlyBudget": 50,
        "billingAccount": "012345-6789AB-CDEF01",
    }
    deployed.configure("prod", **everything)
    made = kinds(deployed.up().touched)
    assert made == dict.fromkeys((API, BUDGET, CHANNEL, CHECK, METRIC, POLICY), NEW)
    assert deployed.up().touched == set()
    # A larger database accepts more connections; the address is changed in place.
    deployed.configure("prod", databaseTier="db-g1-small", alertEmail="others@example.com")
    assert kinds(deployed.up().touched) == {**ON_INSTANCE, CHANNEL: UPDATED, POLICY: UPDATED}
    deployed.configure("prod", **dict.fromkeys(everything))
    assert kinds(deployed.up().touched) == dict.fromkeys(made, GONE)


@pytest.mark.parametrize("key", MOVING)
def test_protected_resources_are_not_replaced(shared: Deployment, key: str) -> None:
    assert CHANGES[key] is Change.DATA
    value, kept = MOVING[key]
    errors = ahead(shared, {key: value}, fails=True).errors
    assert "protect" in errors
    assert {token for token in PROTECTED if f"{token}::" in errors} == kept


def test_a_database_in_a_network(fresh: Deployment) -> None:
    fresh.init(network="private")
    fresh.up()
    # The database stays in the network.
    fresh.configure(network=None)
    refused = fresh.preview(fails=True)
    assert refused.errors.count("marked for protection") == 1
    assert f"{INSTANCE}::instance" in refused.errors


def test_settings_are_changed_in_place_and_data_stays(deployed: Deployment) -> None:
    """Many settings at once; the data stays where it was."""
    bucket, [instance] = deployed.output("artifact_bucket"), deployed.cloud.project.databases
    # Settings that need the others: publicThrough is refused together with access internal.
    alone = {"image", "databaseConnections", "access"}
    changed = {key: TABLE[key][0] for key in TABLE.keys() - alone}
    deployed.configure("prod", **changed)
    deployed.up()
    assert deployed.output("artifact_bucket") == bucket
    assert deployed.cloud.project.databases.keys() == {instance}
    assert deployed.cloud.project.databases[instance].settings.major == 18
    assert deployed.up().touched == set()
