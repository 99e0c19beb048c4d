"""Runs every rule of `policy.py` on every shape of stack, and on defects that it must detect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import yaml

from tests.infra import policy
from tests.infra.declared import DIGEST, PROJECT, REGION, ROOT, Program, Secret, recorded
from tests.infra.policy import RULES, Stack

Rule = Callable[[Stack], Iterator[str]]
Defect = Callable[[Program], None]

KEY = f"projects/keys-of-all/locations/{REGION}/keyRings/ring/cryptoKeys/mlflow"
INVOKERS = ["user:ada@example.com", "group:ml@example.com"]


def stack_files() -> dict[str, dict[str, Any]]:
    """Returns the settings of the stacks that come with the project."""
    return {
        path.name: {
            key.removeprefix("mlflow-gcp:"): value
            for key, value in yaml.safe_load(path.read_text())["config"].items()
        }
        for path in sorted(ROOT.glob("Pulumi.*.yaml"))
        if "config" in (yaml.safe_load(path.read_text()) or {})
    }


SHAPES: dict[str, dict[str, Any]] = {
    "defaults": {},
    **stack_files(),
    "the check off": {"publicThrough": "invokerIamDisabled"},
    "internal": {"access": "internal"},
    "iam": {"access": "iam", "invokers": INVOKERS},
    "iap": {"access": "iap", "invokers": INVOKERS},
    "cloud-build": {"builder": "cloud-build"},
    "a ready image": {"image": f"{REGION}-docker.pkg.dev/{PROJECT}/my-images/server@{DIGEST}"},
    "direct": {"artifacts": "direct"},
    "a password of the user's": {"trackingPassword": "a-password-of-the-user"},
    "an existing instance": {"existingDatabaseInstance": f"{PROJECT}:{REGION}:shared"},
    "an existing bucket": {"existingBucket": "my-artifacts"},
    "existing secrets": {
        "trackingPasswordSecret": f"projects/{PROJECT}/secrets/everybody/versions/3",
        "viewerUsername": "viewer",
        "viewerPasswordSecret": f"projects/{PROJECT}/secrets/lookers/versions/1",
        "githubRepository": "my-org/mlflow-gcp",
        "githubRepositoryId": 74,
    },
    "an existing network": {"network": "private", "existingNetwork": "default"},
    "an existing instance in an existing network": {
        "network": "private",
        "existingNetwork": "projects/of-all/global/networks/all",
        "existingDatabaseInstance": f"{PROJECT}:{REGION}:shared",
    },
    "a load balancer": {
        "loadBalancer": True,
        "customDomains": ["mlflow.example.com", "ml.example.org"],
        "rateLimit": 6000,
    },
    "a load balancer before iam": {
        "access": "iam",
        "invokers": INVOKERS,
        "loadBalancer": True,
        "customDomains": ["mlflow.example.com"],
    },
    "a viewer": {"viewerUsername": "viewer"},
    "a private network": {"network": "private"},
    "a private network and a key": {"network": "private", "kmsKey": KEY},
    "a key of the user's": {"kmsKey": KEY},
    "a ready image and a key": {
        "image": f"{REGION}-docker.pkg.dev/{PROJECT}/my-images/server@{DIGEST}",
        "kmsKey": KEY,
    },
    "cloud-build and a key": {"builder": "cloud-build", "kmsKey": KEY},
    "deployed from GitHub": {
        "githubRepository": "my-org/mlflow-gcp",
        "githubRepositoryId": 74,
    },
    "previewed and deployed from GitHub": {
        "githubRepository": "my-org/mlflow-gcp",
        "githubRepositoryId": 74,
        "githubReview": True,
        "builder": "cloud-build",
        "alertEmail": "oncall@example.com",
    },
    "cleaned up": {
        "cleanupAfterDays": 30,
        "githubRepository": "my-org/mlflow-gcp",
        "githubRepositoryId": 74,
        "network": "private",
        "kmsKey": KEY,
    },
    "archived": {"archiveTracesAfterDays": 30},
    "with jobs": {
        "jobs": True,
        "databaseConnections": 5,
        "internalNetworks": ["10.8.0.0/24"],
        "githubRepository": "my-org/mlflow-gcp",
        "githubRepositoryId": 74,
        "network": "private",
        "kmsKey": KEY,
    },
    "watched": {"alertEmail": "oncall@example.com", "uptimeCheck": True},
}
# Shapes that together declare every resource of all shapes.
COVERING = (
    "cleaned up",
    "with jobs",
    "a load balancer",
    "a private network and a key",
    "a viewer",
    "existing secrets",
    "iam",
    "iap",
    "previewed and deployed from GitHub",
    "watched",
)


def declared(shape: str) -> Stack:
    return Stack(SHAPES[shape], recorded(SHAPES[shape]))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_stack_follows_the_rules(shape: str) -> None:
    offences = {rule.__name__: list(rule(declared(shape))) for rule in RULES}
    assert {name: found for name, found in offences.items() if found} == {}


def test_a_few_shapes_declare_every_resource() -> None:
    def resources(shape: str) -> set[tuple[str, str]]:
        return {(each.type, each.name) for each in declared(shape).program.resources}

    assert set().union(*map(resources, SHAPES)) == set().union(*map(resources, COVERING))


# Defects in what the program declares. test_declared_stack.py has defects of the program itself.


def with_(type_: str, path: str = "", **changed: Any) -> Defect:
    """Change inputs of all resources of this type; the path leads to them. None removes one."""

    def defect(program: Program) -> None:
        for resource in program.all(type_):
            for inputs in at(resource.raw, path):
                inputs.update(changed)
                for name in [name for name, value in changed.items() if value is None]:
                    del inputs[name]

    return defect


def at(inputs: Any, path: str) -> Iterator[dict[str, Any]]:
    """Returns the inputs at a path such as `settings.ipConfiguration`, in each item of a list.

    A resource may not have them.
    """
    if isinstance(inputs, list):
        for item in inputs:
            yield from at(item, path)
    elif not path:
        yield inputs
    else:
        first, _, others = path.partition(".")
        if first in inputs:
            yield from at(inputs[first], others)


def and_(type_: str, **inputs: Any) -> Defect:
    """Declare another resource of this type, as part of the server's identity."""

    def defect(program: Program) -> None:
        account = program.all(ACCOUNT)[0]
        program.resources.append(replace(account, type=type_, name="besides", raw=inputs))

    return defect


def as_(type_: str, other: str) -> Defect:
    """Declare a resource of another type instead of each one of this type."""

    def defect(program: Program) -> None:
        for resource in program.all(type_):
            resource.type = other

    return defect


def without(type_: str) -> Defect:
    def defect(program: Program) -> None:
        gone = {resource.urn for resource in program.all(type_)}
        program.resources = [each for each in program.resources if each.urn not in gone]
        for resource in program.resources:
            resource.depends_on -= gone

    return defect


def env(name: str, value: Any) -> Defect:
    """Give the container another value for this variable."""

    def defect(program: Program) -> None:
        for each in at(program.service.raw, "template.containers.envs"):
            if each["name"] == name:
                each["value"] = value

    return defect


def waits_for_nothing(type_: str) -> Defect:
    def defect(program: Program) -> None:
        for resource in program.all(type_):
            resource.depends_on = frozenset()

    return defect


def not_protected(program: Program) -> None:
    for resource in program.resources:
        resource.protect = False


SERVICE, ACCOUNT = "gcp:cloudrunv2/service:Service", "gcp:serviceaccount/account:Account"
IP, BACKUP = "settings.ipConfiguration", "settings.backupConfiguration"
CONTAINER = "template.containers"
FROM_ANYWHERE = {
    "mode": "Enabled",
    "publicNetworkSource": {"allowedIpCidrRanges": ["0.0.0.0/0"]},
}
SERVER = policy.SERVER

DEFECTS: list[tuple[Rule, Defect, str]] = [
    (
        policy.buckets_are_private,
        with_(policy.BUCKET, publicAccessPrevention="inherited"),
        "defaults",
    ),
    (
        policy.buckets_are_private,
        with_(policy.BUCKET, uniformBucketLevelAccess=False),
        "defaults",
    ),
    (
        policy.no_member_has_a_basic_role,
        with_(policy.PROJECT_MEMBER, role="roles/editor"),
        "defaults",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(policy.BUCKET_MEMBER, role="roles/storage.admin"),
        "defaults",
    ),
    (
        policy.only_listed_roles_are_granted,
        and_(policy.PROJECT_MEMBER, project=PROJECT, role="roles/run.invoker", member=SERVER),
        "defaults",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(policy.INVOKER, member="user:eve@example.com"),
        "iam",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(policy.ACCESSOR, role="roles/iap.admin"),
        "iap",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(policy.INVOKER, member=INVOKERS[0]),
        "iap",
    ),
    (
        policy.no_member_can_create_tokens,
        with_(policy.ACCOUNT_MEMBER, role="roles/iam.serviceAccountTokenCreator"),
        "defaults",
    ),
    (
        policy.no_member_can_create_tokens,
        and_(
            policy.PROJECT_MEMBER,
            project=PROJECT,
            role="roles/iam.serviceAccountKeyAdmin",
            member="user:eve@example.com",
        ),
        "defaults",
    ),
    (
        policy.no_account_has_a_role_on_itself,
        with_(policy.ACCOUNT_MEMBER, member=policy.SIGNER),
        "defaults",
    ),
    *(
        (
            policy.custom_roles_on_accounts_only_sign,
            with_(policy.CUSTOM_ROLE, permissions=held),
            shape,
        )
        for held, shape in (
            ([policy.SIGN_BLOB, "iam.serviceAccounts.getAccessToken"], "defaults"),
            (["iam.serviceAccounts.signJwt"], "direct"),
        )
    ),
    (
        policy.grants_revoke_nothing,
        as_(policy.BUCKET_MEMBER, "gcp:storage/bucketIAMBinding:BucketIAMBinding"),
        "defaults",
    ),
    (
        policy.grants_revoke_nothing,
        and_("gcp:storage/bucketACL:BucketACL", bucket="my-bucket", predefinedAcl="publicRead"),
        "defaults",
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(policy.BUCKET_MEMBER, member="allUsers"),
        "defaults",
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(policy.INVOKER, member="allAuthenticatedUsers"),
        "defaults",
    ),
    *(
        (
            policy.only_the_chosen_access_is_open,
            with_(policy.INVOKER, member="allUsers"),
            shape,
        )
        for shape in ("iam", "iap")
    ),
    *(
        (
            policy.only_the_chosen_access_is_open,
            with_(SERVICE, invokerIamDisabled=True),
            shape,
        )
        for shape in ("iam", "iap")
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(SERVICE, ingress="INGRESS_TRAFFIC_ALL"),
        "internal",
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(SERVICE, ingress="INGRESS_TRAFFIC_INTERNAL_ONLY"),
        "iam",
    ),
    (policy.only_the_chosen_access_is_open, with_(SERVICE, iapEnabled=False), "iap"),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(SERVICE, ingress="INGRESS_TRAFFIC_ALL"),
        "a load balancer",
    ),
    (policy.the_load_balancer_cannot_be_bypassed, env("TRUSTED_PROXIES", "0"), "a load balancer"),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(SERVICE, ingress="INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"),
        "defaults",
    ),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(policy.TLS, minTlsVersion="TLS_1_0"),
        "a load balancer",
    ),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(policy.URL_MAP, "defaultUrlRedirect", httpsRedirect=False),
        "a load balancer",
    ),
    (
        policy.no_address_range_is_open,
        with_(policy.INSTANCE, IP, authorizedNetworks=[{"value": "0.0.0.0/0"}]),
        "defaults",
    ),
    (
        policy.no_address_range_is_open,
        with_(policy.INSTANCE, IP, authorizedNetworks=[{"value": "192.0.2.1/32"}]),
        "defaults",
    ),
    (
        policy.no_address_range_is_open,
        with_(policy.BUCKET, ipFilter=FROM_ANYWHERE),
        "defaults",
    ),
    *(
        (policy.the_database_has_the_chosen_network, defect, shape)
        for defect, shape in (
            (with_(policy.INSTANCE, IP, ipv4Enabled=True), "a private network"),
            (
                with_(policy.INSTANCE, IP, privateNetwork=None, ipv4Enabled=True),
                "a private network",
            ),
            (with_(policy.INSTANCE, IP, privateNetwork="projects/p/global/networks/n"), "defaults"),
            (with_(SERVICE, "template", vpcAccess=None), "a private network"),
            (with_(SERVICE, "template.vpcAccess", egress="ALL_TRAFFIC"), "a private network"),
            (without(policy.PEERING), "a private network"),
        )
    ),
    *(
        (policy.data_is_encrypted_with_the_chosen_key, defect, shape)
        for defect, shape in (
            (with_(policy.INSTANCE, encryptionKeyName=None), "a key of the user's"),
            (with_(policy.INSTANCE, encryptionKeyName=KEY), "defaults"),
            (with_(policy.BUCKET, encryption=None), "a key of the user's"),
            (with_(policy.REPOSITORY, kmsKeyName=None), "a key of the user's"),
            (with_(SERVICE, "template", encryptionKey=None), "a ready image and a key"),
            (with_(policy.SECRET, replication={"auto": {}}), "a key of the user's"),
            (
                with_(policy.SECRET, "replication.userManaged.replicas", location="us-east1"),
                "a key of the user's",
            ),
            (waits_for_nothing(policy.SECRET), "a key of the user's"),
        )
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(policy.KEY_MEMBER, role="roles/cloudkms.admin"),
        "a key of the user's",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(policy.KEY_MEMBER, member=SERVER),
        "a key of the user's",
    ),
    *(
        (policy.only_listed_roles_are_granted, with_(policy.PROJECT_MEMBER, role=role), shape)
        for role, shape in (
            ("roles/cloudbuild.builds.builder", "cloud-build"),
            ("roles/resourcemanager.projectIamAdmin", "deployed from GitHub"),
        )
    ),
    (
        policy.custom_roles_are_small,
        with_(policy.CUSTOM_ROLE, permissions=["run.services.delete"]),
        "deployed from GitHub",
    ),
    *(
        (
            policy.only_one_repositorys_workflows_are_trusted,
            with_(policy.IDENTITY_PROVIDER, attributeCondition=condition),
            "deployed from GitHub",
        )
        for condition in (None, "assertion.repository_owner == 'my-org'")
    ),
    (
        policy.no_account_key_is_created,
        and_("gcp:serviceaccount/key:Key", serviceAccountId="mlflow-server"),
        "defaults",
    ),
    (
        policy.no_account_key_is_created,
        and_("gcp:storage/hmacKey:HmacKey", serviceAccountEmail="me@example.com"),
        "defaults",
    ),
    (
        policy.connections_are_encrypted,
        with_(policy.INSTANCE, IP, sslMode="ALLOW_UNENCRYPTED_AND_ENCRYPTED"),
        "defaults",
    ),
    (policy.connections_are_encrypted, with_(policy.INSTANCE, IP, sslMode=None), "defaults"),
    (
        policy.connections_are_encrypted,
        with_(policy.INSTANCE, "settings", connectorEnforcement="NOT_REQUIRED"),
        "defaults",
    ),
    (policy.the_database_is_backed_up, with_(policy.INSTANCE, BACKUP, enabled=False), "defaults"),
    (
        policy.the_database_is_backed_up,
        with_(policy.INSTANCE, BACKUP, pointInTimeRecoveryEnabled=None),
        "defaults",
    ),
    (
        policy.the_database_is_backed_up,
        with_(policy.INSTANCE, BACKUP, backupRetentionSettings=None),
        "Pulumi.dev.yaml",
    ),
    (
        policy.overwritten_objects_can_be_restored,
        with_(policy.BUCKET, "versioning", enabled=False),
        "defaults",
    ),
    (
        policy.overwritten_objects_can_be_restored,
        with_(policy.BUCKET, "softDeletePolicy", retentionDurationSeconds=0),
        "Pulumi.dev.yaml",
    ),
    (policy.secrets_are_marked, env("ARTIFACTS", "generated-tracking-password"), "defaults"),
    (
        policy.secrets_are_marked,
        and_("command:local:Command", environment={"IMAGE": "a:b", "PGPASSWORD": "correct horse"}),
        "defaults",
    ),
    (
        policy.secrets_are_marked,
        env("ARTIFACTS", "a-password-of-the-user"),
        "a password of the user's",
    ),
    (
        policy.the_container_gets_references_to_its_secrets,
        env("DATABASE_URL_SECRET", "mlflow_database_url/versions/latest"),
        "defaults",
    ),
    (
        policy.the_container_gets_references_to_its_secrets,
        env("TRACKING_PASSWORD_SECRET", "correct horse"),
        "defaults",
    ),
    (
        policy.the_container_gets_references_to_its_secrets,
        env("ARTIFACTS", Secret("correct horse")),
        "defaults",
    ),
    (
        policy.protection_matches_the_setting,
        with_(policy.INSTANCE, deletionProtection=False),
        "defaults",
    ),
    (
        policy.protection_matches_the_setting,
        with_(policy.INSTANCE, "settings", deletionProtectionEnabled=True),
        "Pulumi.dev.yaml",
    ),
    (
        policy.protection_matches_the_setting,
        with_(SERVICE, deletionProtection=False),
        "defaults",
    ),
    *(
        (policy.protection_matches_the_setting, not_protected, shape)
        for shape in ("defaults", "an existing instance")
    ),
    (
        policy.protection_matches_the_setting,
        with_(policy.BUCKET, forceDestroy=True),
        "defaults",
    ),
    *(
        (
            policy.images_are_named_by_digest,
            with_(SERVICE, CONTAINER, image="us-docker.pkg.dev/p/r/server:latest"),
            shape,
        )
        for shape in ("defaults", "cloud-build")
    ),
    (
        policy.the_server_has_a_dedicated_account,
        with_(SERVICE, "template", serviceAccount=None),
        "defaults",
    ),
    *(
        (policy.the_upkeep_job_reads_no_login, defect, "cleaned up")
        for defect in (
            with_(policy.SECRET_MEMBER, secretId="mlflow_tracking_password"),
            with_(policy.JOB, "template.template", serviceAccount="mlflow-server@p.example.com"),
            with_(policy.SCHEDULE, "httpTarget", oauthToken={}),
        )
    ),
    *(
        (policy.the_worker_reads_no_login, defect, "with jobs")
        for defect in (
            with_(policy.SECRET_MEMBER, secretId="mlflow_tracking_password"),
            with_(policy.POOL_OF_WORKERS, "template", serviceAccount="mlflow-server@p.example.com"),
        )
    ),
    *(
        (policy.everything_is_in_the_region, with_(type_, path, **where), "defaults")
        for type_, path, where in (
            (SERVICE, "", {"location": "us-central1"}),
            (policy.INSTANCE, "", {"region": "us-central1"}),
            (policy.BUCKET, "", {"location": "US"}),
            (policy.REPOSITORY, "", {"location": "us"}),
            (SERVICE, f"{CONTAINER}.envs", {"value": "p:us-central1:i"}),
        )
    ),
    (
        policy.resources_wait_for_their_dependencies,
        waits_for_nothing(ACCOUNT),
        "defaults",
    ),
    (
        policy.resources_wait_for_their_dependencies,
        waits_for_nothing("gcp:projects/serviceIdentity:ServiceIdentity"),
        "iap",
    ),
    (policy.resources_wait_for_their_dependencies, waits_for_nothing(SERVICE), "defaults"),
]


@pytest.mark.parametrize(
    ("rule", "defect", "shape"),
    DEFECTS,
    ids=[f"{rule.__name__}-{number}" for number, (rule, *_) in enumerate(DEFECTS)],
)
def test_a_defect_breaks_its_rule(rule: Rule, defect: Defect, shape: str) -> None:
    stack = deepcopy(declared(shape))
    defect(stack.program)
    assert list(rule(stack))


def test_every_rule_has_a_defect() -> None:
    assert {rule for rule, *_ in DEFECTS} == {*RULES}
