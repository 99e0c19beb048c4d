"""Runs every rule of `policy.py` on every shape of stack, and on defects that it must detect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pulumi
import pulumi_command as command
import pulumi_gcp as gcp
import pytest
import yaml

from infra.component import Component
from tests.infra import policy
from tests.infra.declared import DIGEST, PROJECT, REGION, ROOT
from tests.infra.policy import RULES, Stack

Rule = Callable[[Stack], Iterator[str]]
Defect = Callable[[pytest.MonkeyPatch], None]

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
    "watched": {"alertEmail": "oncall@example.com", "uptimeCheck": True},
}


@cache
def declared(shape: str) -> Stack:
    return Stack.of(SHAPES[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_stack_follows_the_rules(shape: str) -> None:
    offences = {rule.__name__: list(rule(declared(shape))) for rule in RULES}
    assert {name: found for name, found in offences.items() if found} == {}


# Defects of the program.


def with_(module: ModuleType, name: str, **arguments: Any) -> Defect:
    """Declare all resources of this type with these arguments."""

    def defect(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, **others: original(*given, **{**others, **arguments})
        )

    return defect


def and_(module: ModuleType, name: str, **arguments: Any) -> Defect:
    """Declare another resource of this type, as part of the server's identity."""

    def defect(monkeypatch: pytest.MonkeyPatch) -> None:
        original = gcp.serviceaccount.Account

        def account(*given: Any, opts: pulumi.ResourceOptions, **others: Any) -> Any:
            getattr(module, name)("besides", **arguments, opts=opts)
            return original(*given, opts=opts, **others)

        monkeypatch.setattr(gcp.serviceaccount, "Account", account)

    return defect


def as_(module: ModuleType, name: str, other: Callable[..., Any]) -> Defect:
    """Declare something else instead of each resource of this type."""
    return lambda monkeypatch: monkeypatch.setattr(module, name, other)


def env(name: str, value: str, *, marked: bool = False) -> Defect:
    """Give the container another value for this variable."""

    def defect(monkeypatch: pytest.MonkeyPatch) -> None:
        original = gcp.cloudrunv2.ServiceTemplateContainerEnvArgs

        def other(**given: Any) -> Any:
            if given["name"] == name:
                given["value"] = pulumi.Output.secret(value) if marked else value
            return original(**given)

        monkeypatch.setattr(gcp.cloudrunv2, "ServiceTemplateContainerEnvArgs", other)

    return defect


def waits_for_nothing(module: ModuleType, name: str) -> Defect:
    def defect(monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(module, name)

        def other(*given: Any, opts: pulumi.ResourceOptions, **others: Any) -> Any:
            opts.depends_on = None
            return original(*given, opts=opts, **others)

        monkeypatch.setattr(module, name, other)

    return defect


def nothing(*_given: Any, **_others: Any) -> None:
    """Not declared."""


def binding(name: str, *, member: Any, **arguments: Any) -> Any:
    return gcp.storage.BucketIAMBinding(name, members=[member], **arguments)


def not_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Component.child
    monkeypatch.setattr(
        Component, "child", lambda self, **more: original(self, **{**more, "protect": False})
    )


SQL, RUN, STORAGE, PROJECTS, IAP = gcp.sql, gcp.cloudrunv2, gcp.storage, gcp.projects, gcp.iap
IP = "DatabaseInstanceSettingsIpConfigurationArgs"
BACKUP = "DatabaseInstanceSettingsBackupConfigurationArgs"
OPEN = SQL.DatabaseInstanceSettingsIpConfigurationAuthorizedNetworkArgs(value="0.0.0.0/0")
OFFICE = SQL.DatabaseInstanceSettingsIpConfigurationAuthorizedNetworkArgs(value="192.0.2.1/32")
FROM_ANYWHERE = STORAGE.BucketIpFilterArgs(
    mode="Enabled",
    public_network_source=STORAGE.BucketIpFilterPublicNetworkSourceArgs(
        allowed_ip_cidr_ranges=["0.0.0.0/0"]
    ),
)
SERVER = policy.SERVER
ACCOUNTS = gcp.serviceaccount
SECRETS = gcp.secretmanager
EVERYWHERE = SECRETS.SecretReplicationArgs(auto=SECRETS.SecretReplicationAutoArgs())

DEFECTS: list[tuple[Rule, Defect, str]] = [
    (
        policy.buckets_are_private,
        with_(STORAGE, "Bucket", public_access_prevention="inherited"),
        "defaults",
    ),
    (
        policy.buckets_are_private,
        with_(STORAGE, "Bucket", uniform_bucket_level_access=False),
        "defaults",
    ),
    (
        policy.no_member_has_a_basic_role,
        with_(PROJECTS, "IAMMember", role="roles/editor"),
        "defaults",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(STORAGE, "BucketIAMMember", role="roles/storage.admin"),
        "defaults",
    ),
    (
        policy.only_listed_roles_are_granted,
        and_(PROJECTS, "IAMMember", project=PROJECT, role="roles/run.invoker", member=SERVER),
        "defaults",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(RUN, "ServiceIamMember", member="user:eve@example.com"),
        "iam",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(IAP, "WebCloudRunServiceIamMember", role="roles/iap.admin"),
        "iap",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(RUN, "ServiceIamMember", member=INVOKERS[0]),
        "iap",
    ),
    (
        policy.no_member_can_create_tokens,
        with_(ACCOUNTS, "IAMMember", role="roles/iam.serviceAccountTokenCreator"),
        "defaults",
    ),
    (
        policy.no_member_can_create_tokens,
        and_(
            PROJECTS,
            "IAMMember",
            project=PROJECT,
            role="roles/iam.serviceAccountKeyAdmin",
            member="user:eve@example.com",
        ),
        "defaults",
    ),
    (
        policy.no_account_has_a_role_on_itself,
        with_(ACCOUNTS, "IAMMember", member=policy.SIGNER),
        "defaults",
    ),
    *(
        (
            policy.custom_roles_on_accounts_only_sign,
            with_(PROJECTS, "IAMCustomRole", permissions=held),
            shape,
        )
        for held, shape in (
            ([policy.SIGN_BLOB, "iam.serviceAccounts.getAccessToken"], "defaults"),
            (["iam.serviceAccounts.signJwt"], "direct"),
        )
    ),
    (policy.grants_revoke_nothing, as_(STORAGE, "BucketIAMMember", binding), "defaults"),
    (
        policy.grants_revoke_nothing,
        and_(STORAGE, "BucketACL", bucket="my-bucket", predefined_acl="publicRead"),
        "defaults",
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(STORAGE, "BucketIAMMember", member="allUsers"),
        "defaults",
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(RUN, "ServiceIamMember", member="allAuthenticatedUsers"),
        "defaults",
    ),
    *(
        (
            policy.only_the_chosen_access_is_open,
            with_(RUN, "ServiceIamMember", member="allUsers"),
            shape,
        )
        for shape in ("iam", "iap")
    ),
    *(
        (
            policy.only_the_chosen_access_is_open,
            with_(RUN, "Service", invoker_iam_disabled=True),
            shape,
        )
        for shape in ("iam", "iap")
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(RUN, "Service", ingress="INGRESS_TRAFFIC_ALL"),
        "internal",
    ),
    (
        policy.only_the_chosen_access_is_open,
        with_(RUN, "Service", ingress="INGRESS_TRAFFIC_INTERNAL_ONLY"),
        "iam",
    ),
    (policy.only_the_chosen_access_is_open, with_(RUN, "Service", iap_enabled=False), "iap"),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(RUN, "Service", ingress="INGRESS_TRAFFIC_ALL"),
        "a load balancer",
    ),
    (policy.the_load_balancer_cannot_be_bypassed, env("TRUSTED_PROXIES", "0"), "a load balancer"),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(RUN, "Service", ingress="INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"),
        "defaults",
    ),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(gcp.compute, "SSLPolicy", min_tls_version="TLS_1_0"),
        "a load balancer",
    ),
    (
        policy.the_load_balancer_cannot_be_bypassed,
        with_(gcp.compute, "URLMapDefaultUrlRedirectArgs", https_redirect=False),
        "a load balancer",
    ),
    (policy.no_address_range_is_open, with_(SQL, IP, authorized_networks=[OPEN]), "defaults"),
    (policy.no_address_range_is_open, with_(SQL, IP, authorized_networks=[OFFICE]), "defaults"),
    (
        policy.no_address_range_is_open,
        with_(STORAGE, "Bucket", ip_filter=FROM_ANYWHERE),
        "defaults",
    ),
    *(
        (policy.the_database_has_the_chosen_network, defect, shape)
        for defect, shape in (
            (with_(SQL, IP, ipv4_enabled=True), "a private network"),
            (with_(SQL, IP, private_network=None, ipv4_enabled=True), "a private network"),
            (with_(SQL, IP, private_network="projects/p/global/networks/n"), "defaults"),
            (with_(RUN, "ServiceTemplateArgs", vpc_access=None), "a private network"),
            (with_(RUN, "ServiceTemplateVpcAccessArgs", egress="ALL_TRAFFIC"), "a private network"),
            (as_(gcp.servicenetworking, "Connection", nothing), "a private network"),
        )
    ),
    *(
        (policy.data_is_encrypted_with_the_chosen_key, defect, shape)
        for defect, shape in (
            (with_(SQL, "DatabaseInstance", encryption_key_name=None), "a key of the user's"),
            (with_(SQL, "DatabaseInstance", encryption_key_name=KEY), "defaults"),
            (with_(STORAGE, "Bucket", encryption=None), "a key of the user's"),
            (with_(gcp.artifactregistry, "Repository", kms_key_name=None), "a key of the user's"),
            (with_(RUN, "ServiceTemplateArgs", encryption_key=None), "a ready image and a key"),
            (with_(gcp.secretmanager, "Secret", replication=EVERYWHERE), "a key of the user's"),
            (
                with_(SECRETS, "SecretReplicationUserManagedReplicaArgs", location="us-east1"),
                "a key of the user's",
            ),
            (waits_for_nothing(SECRETS, "Secret"), "a key of the user's"),
        )
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(gcp.kms, "CryptoKeyIAMMember", role="roles/cloudkms.admin"),
        "a key of the user's",
    ),
    (
        policy.only_listed_roles_are_granted,
        with_(gcp.kms, "CryptoKeyIAMMember", member=SERVER),
        "a key of the user's",
    ),
    *(
        (policy.only_listed_roles_are_granted, with_(PROJECTS, "IAMMember", role=role), shape)
        for role, shape in (
            ("roles/cloudbuild.builds.builder", "cloud-build"),
            ("roles/resourcemanager.projectIamAdmin", "deployed from GitHub"),
        )
    ),
    (
        policy.custom_roles_are_small,
        with_(PROJECTS, "IAMCustomRole", permissions=["run.services.delete"]),
        "deployed from GitHub",
    ),
    *(
        (
            policy.only_one_repositorys_workflows_are_trusted,
            with_(gcp.iam, "WorkloadIdentityPoolProvider", attribute_condition=condition),
            "deployed from GitHub",
        )
        for condition in (None, "assertion.repository_owner == 'my-org'")
    ),
    (
        policy.no_account_key_is_created,
        and_(gcp.serviceaccount, "Key", service_account_id="mlflow-server"),
        "defaults",
    ),
    (
        policy.no_account_key_is_created,
        and_(STORAGE, "HmacKey", service_account_email="me@example.com"),
        "defaults",
    ),
    (
        policy.connections_are_encrypted,
        with_(SQL, IP, ssl_mode="ALLOW_UNENCRYPTED_AND_ENCRYPTED"),
        "defaults",
    ),
    (policy.connections_are_encrypted, with_(SQL, IP, ssl_mode=None), "defaults"),
    (
        policy.connections_are_encrypted,
        with_(SQL, "DatabaseInstanceSettingsArgs", connector_enforcement="NOT_REQUIRED"),
        "defaults",
    ),
    (policy.the_database_is_backed_up, with_(SQL, BACKUP, enabled=False), "defaults"),
    (
        policy.the_database_is_backed_up,
        with_(SQL, BACKUP, point_in_time_recovery_enabled=None),
        "defaults",
    ),
    (
        policy.the_database_is_backed_up,
        with_(SQL, BACKUP, backup_retention_settings=None),
        "Pulumi.dev.yaml",
    ),
    (
        policy.overwritten_objects_can_be_restored,
        with_(STORAGE, "BucketVersioningArgs", enabled=False),
        "defaults",
    ),
    (
        policy.overwritten_objects_can_be_restored,
        with_(STORAGE, "BucketSoftDeletePolicyArgs", retention_duration_seconds=0),
        "Pulumi.dev.yaml",
    ),
    (policy.secrets_are_marked, env("ARTIFACTS", "generated-tracking-password"), "defaults"),
    (
        policy.secrets_are_marked,
        and_(command.local, "Command", environment={"IMAGE": "a:b", "PGPASSWORD": "correct horse"}),
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
        env("ARTIFACTS", "correct horse", marked=True),
        "defaults",
    ),
    (
        policy.protection_matches_the_setting,
        with_(SQL, "DatabaseInstance", deletion_protection=False),
        "defaults",
    ),
    (
        policy.protection_matches_the_setting,
        with_(SQL, "DatabaseInstanceSettingsArgs", deletion_protection_enabled=True),
        "Pulumi.dev.yaml",
    ),
    (
        policy.protection_matches_the_setting,
        with_(RUN, "Service", deletion_protection=False),
        "defaults",
    ),
    *(
        (policy.protection_matches_the_setting, not_protected, shape)
        for shape in ("defaults", "an existing instance")
    ),
    (
        policy.protection_matches_the_setting,
        with_(STORAGE, "Bucket", force_destroy=True),
        "defaults",
    ),
    *(
        (
            policy.images_are_named_by_digest,
            with_(RUN, "ServiceTemplateContainerArgs", image="us-docker.pkg.dev/p/r/server:latest"),
            shape,
        )
        for shape in ("defaults", "cloud-build")
    ),
    (
        policy.the_server_has_a_dedicated_account,
        with_(RUN, "ServiceTemplateArgs", service_account=None),
        "defaults",
    ),
    *(
        (policy.everything_is_in_the_region, with_(module, kind, **where), "defaults")
        for module, kind, where in (
            (RUN, "Service", {"location": "us-central1"}),
            (gcp.sql, "DatabaseInstance", {"region": "us-central1"}),
            (gcp.storage, "Bucket", {"location": "US"}),
            (gcp.artifactregistry, "Repository", {"location": "us"}),
            (RUN, "ServiceTemplateContainerEnvArgs", {"value": "p:us-central1:i"}),
        )
    ),
    (
        policy.resources_wait_for_their_dependencies,
        waits_for_nothing(gcp.serviceaccount, "Account"),
        "defaults",
    ),
    (
        policy.resources_wait_for_their_dependencies,
        waits_for_nothing(PROJECTS, "ServiceIdentity"),
        "iap",
    ),
    (policy.resources_wait_for_their_dependencies, waits_for_nothing(RUN, "Service"), "defaults"),
]


@pytest.mark.parametrize(
    ("rule", "defect", "shape"),
    DEFECTS,
    ids=[f"{rule.__name__}-{number}" for number, (rule, *_) in enumerate(DEFECTS)],
)
def test_a_defect_breaks_its_rule(
    monkeypatch: pytest.MonkeyPatch, rule: Rule, defect: Defect, shape: str
) -> None:
    defect(monkeypatch)
    assert list(rule(Stack.of(SHAPES[shape])))


def test_every_rule_has_a_defect() -> None:
    assert {rule for rule, *_ in DEFECTS} == {*RULES}
