"""Checks that the user who deploys has the permissions that the declared types require.

`testIamPermissions` returns which permissions the caller has, and requires none itself:
https://cloud.google.com/resource-manager/reference/rest/v3/projects/testIamPermissions
The permissions and their roles: https://cloud.google.com/iam/docs/roles-permissions (2026-11)

It checks only permissions for creating resources, and only for resources that don't exist yet. It
doesn't check the permissions that the stack's bucket requires later: Owner and Editor have those
through the bucket's own policy, not on the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .declared import Resource
from .findings import Finding, fix, not_checked, ok
from .google import Answer, Google
from .project import ENABLE

# The most permissions in one request.
BATCH = 100

ADMIN_OF_IAM = "resourcemanager.projectIamAdmin"
NETWORK = "compute.networkAdmin"
BALANCER = "compute.loadBalancerAdmin"

# Types that don't call Google.
ASKS_NOBODY = "random:"

# By type: a role that has the permissions, and the permissions.
NEEDED: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "gcp:projects/iAMMember:IAMMember": (
        (
            ADMIN_OF_IAM,
            ("resourcemanager.projects.getIamPolicy", "resourcemanager.projects.setIamPolicy"),
        ),
    ),
    "gcp:serviceaccount/account:Account": (
        ("iam.serviceAccountAdmin", ("iam.serviceAccounts.create", "iam.serviceAccounts.get")),
    ),
    # The provider first checks for a deleted role to undelete.
    "gcp:projects/iAMCustomRole:IAMCustomRole": (
        ("iam.roleAdmin", ("iam.roles.create", "iam.roles.get")),
    ),
    "gcp:serviceaccount/iAMMember:IAMMember": (
        (
            "iam.serviceAccountAdmin",
            ("iam.serviceAccounts.getIamPolicy", "iam.serviceAccounts.setIamPolicy"),
        ),
    ),
    "gcp:secretmanager/secret:Secret": (
        ("secretmanager.admin", ("secretmanager.secrets.create", "secretmanager.secrets.get")),
    ),
    # The provider reads the version back after writing it.
    "gcp:secretmanager/secretVersion:SecretVersion": (
        ("secretmanager.admin", ("secretmanager.versions.add", "secretmanager.versions.access")),
    ),
    "gcp:secretmanager/secretIamMember:SecretIamMember": (
        (
            "secretmanager.admin",
            ("secretmanager.secrets.getIamPolicy", "secretmanager.secrets.setIamPolicy"),
        ),
    ),
    "gcp:sql/databaseInstance:DatabaseInstance": (
        ("cloudsql.admin", ("cloudsql.instances.create", "cloudsql.instances.get")),
    ),
    "gcp:sql/database:Database": (
        ("cloudsql.admin", ("cloudsql.databases.create", "cloudsql.databases.get")),
    ),
    "gcp:sql/user:User": (("cloudsql.admin", ("cloudsql.users.create", "cloudsql.users.list")),),
    "gcp:storage/bucket:Bucket": (("storage.admin", ("storage.buckets.create",)),),
    "gcp:storage/bucketIAMMember:BucketIAMMember": (),
    "gcp:artifactregistry/repository:Repository": (
        (
            "artifactregistry.admin",
            ("artifactregistry.repositories.create", "artifactregistry.repositories.get"),
        ),
    ),
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": (
        (
            "artifactregistry.admin",
            (
                "artifactregistry.repositories.getIamPolicy",
                "artifactregistry.repositories.setIamPolicy",
            ),
        ),
    ),
    "docker:index/image:Image": (
        ("artifactregistry.admin", ("artifactregistry.repositories.uploadArtifacts",)),
    ),
    # gcloud counts its calls for the project, and the build runs as the stack's builder account.
    "command:local:Command": (
        ("cloudbuild.builds.editor", ("cloudbuild.builds.create", "cloudbuild.builds.get")),
        ("serviceusage.serviceUsageConsumer", ("serviceusage.services.use",)),
        ("iam.serviceAccountUser", ("iam.serviceAccounts.actAs",)),
    ),
    "gcp:cloudrunv2/service:Service": (
        ("run.admin", ("run.services.create", "run.services.get")),
        # https://cloud.google.com/run/docs/configuring/services/service-identity
        ("iam.serviceAccountUser", ("iam.serviceAccounts.actAs",)),
    ),
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember": (
        ("run.admin", ("run.services.getIamPolicy", "run.services.setIamPolicy")),
    ),
    "gcp:cloudrunv2/job:Job": (
        ("run.admin", ("run.jobs.create", "run.jobs.get")),
        ("iam.serviceAccountUser", ("iam.serviceAccounts.actAs",)),
    ),
    "gcp:cloudrunv2/workerPool:WorkerPool": (
        ("run.admin", ("run.workerpools.create", "run.workerpools.get")),
        ("iam.serviceAccountUser", ("iam.serviceAccounts.actAs",)),
    ),
    "gcp:cloudrunv2/workerPoolIamMember:WorkerPoolIamMember": (
        ("run.admin", ("run.workerpools.getIamPolicy", "run.workerpools.setIamPolicy")),
    ),
    "gcp:cloudrunv2/jobIamMember:JobIamMember": (
        ("run.admin", ("run.jobs.getIamPolicy", "run.jobs.setIamPolicy")),
    ),
    "gcp:cloudscheduler/job:Job": (
        ("cloudscheduler.admin", ("cloudscheduler.jobs.create", "cloudscheduler.jobs.get")),
    ),
    "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember": (
        ("iap.admin", ("iap.webServices.getIamPolicy", "iap.webServices.setIamPolicy")),
    ),
    # The provider reads the pool back, and lists its attestation rules even if it has none:
    # https://cloud.google.com/iam/docs/audit-logging
    "gcp:iam/workloadIdentityPool:WorkloadIdentityPool": (
        (
            "iam.workloadIdentityPoolAdmin",
            (
                "iam.googleapis.com/workloadIdentityPools.create",
                "iam.googleapis.com/workloadIdentityPools.get",
                "iam.workloadIdentityPools.getAttestationRules",
            ),
        ),
    ),
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": (
        (
            "iam.workloadIdentityPoolAdmin",
            (
                "iam.googleapis.com/workloadIdentityPoolProviders.create",
                "iam.googleapis.com/workloadIdentityPoolProviders.get",
            ),
        ),
    ),
    "gcp:compute/network:Network": ((NETWORK, ("compute.networks.create",)),),
    "gcp:compute/subnetwork:Subnetwork": ((NETWORK, ("compute.subnetworks.create",)),),
    "gcp:servicenetworking/connection:Connection": (
        (NETWORK, ("servicenetworking.services.addPeering", "compute.networks.use")),
    ),
    "gcp:compute/globalAddress:GlobalAddress": ((NETWORK, ("compute.globalAddresses.create",)),),
    "gcp:compute/regionNetworkEndpointGroup:RegionNetworkEndpointGroup": (
        (BALANCER, ("compute.regionNetworkEndpointGroups.create",)),
    ),
    "gcp:compute/backendService:BackendService": ((BALANCER, ("compute.backendServices.create",)),),
    "gcp:compute/uRLMap:URLMap": ((BALANCER, ("compute.urlMaps.create",)),),
    "gcp:compute/targetHttpProxy:TargetHttpProxy": (
        (BALANCER, ("compute.targetHttpProxies.create",)),
    ),
    "gcp:compute/targetHttpsProxy:TargetHttpsProxy": (
        (BALANCER, ("compute.targetHttpsProxies.create",)),
    ),
    "gcp:compute/managedSslCertificate:ManagedSslCertificate": (
        (BALANCER, ("compute.sslCertificates.create",)),
    ),
    "gcp:compute/sSLPolicy:SSLPolicy": ((BALANCER, ("compute.sslPolicies.create",)),),
    "gcp:compute/globalForwardingRule:GlobalForwardingRule": (
        (BALANCER, ("compute.globalForwardingRules.create",)),
    ),
    "gcp:compute/securityPolicy:SecurityPolicy": (
        ("compute.securityAdmin", ("compute.securityPolicies.create",)),
    ),
    "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember": (),
    "gcp:logging/metric:Metric": (("logging.configWriter", ("logging.logMetrics.create",)),),
    "gcp:monitoring/notificationChannel:NotificationChannel": (
        ("monitoring.editor", ("monitoring.notificationChannels.create",)),
    ),
    "gcp:monitoring/alertPolicy:AlertPolicy": (
        ("monitoring.editor", ("monitoring.alertPolicies.create",)),
    ),
    "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig": (
        ("monitoring.editor", ("monitoring.uptimeCheckConfigs.create",)),
    ),
    "gcp:billing/budget:Budget": (),
    # project.py checks these, because APIs that are already on require no permission.
    "gcp:projects/service:Service": (),
    "gcp:projects/serviceIdentity:ServiceIdentity": (),
    "pulumi:providers:gcp": (),
}


def on_project(resources: Iterable[Resource]) -> dict[str, str]:
    """Returns the required permissions, each with a role that has it."""
    return {
        permission: f"roles/{role}"
        for resource in resources
        if not resource.type.startswith(ASKS_NOBODY)
        for role, permissions in NEEDED[resource.type]
        for permission in permissions
    }


def get_granted(google: Google, project: str, permissions: Iterable[str]) -> Answer:
    asked = sorted({*permissions, ENABLE})
    if len(asked) > BATCH:
        raise ValueError(f"{len(asked)} permissions in one question, which takes {BATCH}")
    return google.post(
        "cloudresourcemanager",
        f"v3/projects/{project}:testIamPermissions",
        {"permissions": asked},
    )


def granted(answer: Answer) -> frozenset[str] | None:
    """Returns the granted permissions, or None if unknown. Google omits an empty list."""
    listed = answer.body.get("permissions", [])
    if not answer.ok or not isinstance(listed, list):
        return None
    return frozenset(map(str, listed))


def check_permissions(
    answer: Answer, *, project: str, account: str, needed: Mapping[str, str]
) -> list[Finding]:
    has = granted(answer)
    if has is None:
        return [not_checked("permissions", answer.trouble or "Google's response names none")]
    if not needed:
        return [ok("permissions", "everything exists already")]
    lacking: dict[str, list[str]] = {}
    for permission, role in sorted(needed.items()):
        if permission not in has:
            lacking.setdefault(role, []).append(permission)
    if not lacking:
        return [ok("permissions", f"all {len(needed)} required ones")]
    return [
        fix(
            "permissions",
            f"you lack: {', '.join(permissions)}",
            f"have an owner run: gcloud projects add-iam-policy-binding {project} "
            f"--member {member(account)} --role {role} --condition None",
        )
        for role, permissions in lacking.items()
    ]


def member(account: str) -> str:
    if not account:
        return "user:YOU@example.com"
    kind = "serviceAccount" if account.endswith("gserviceaccount.com") else "user"
    return f"{kind}:{account}"


# ---- resources outside the project ----


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A resource outside the project that the stack changes; it has its own permissions."""

    what: str
    permission: str
    how: str
    # The request: an API, a path and, for a POST, a body.
    api: str
    path: str
    posted: bool = True


def elsewhere(resources: Iterable[Resource], *, existing_bucket: str | None) -> list[Elsewhere]:
    found: dict[str, Elsewhere] = {}
    for resource in resources:
        if resource.type == "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember":
            key = str(resource.inputs["cryptoKeyId"])
            found[key] = Elsewhere(
                what=f"the key {key}",
                permission="cloudkms.cryptoKeys.setIamPolicy",
                how="have its owner give you the role Cloud KMS Admin on it: gcloud kms keys "
                f"add-iam-policy-binding {key} --member {{member}} --role roles/cloudkms.admin",
                api="cloudkms",
                path=f"v1/{key}:testIamPermissions",
            )
        elif resource.type == "gcp:billing/budget:Budget":
            account = str(resource.inputs["billingAccount"])
            found[account] = Elsewhere(
                what=f"the billing account {account}",
                permission="billing.budgets.create",
                how="have its administrator run: gcloud billing accounts add-iam-policy-binding "
                f"{account} --member {{member}} --role roles/billing.costsManager",
                api="cloudbilling",
                path=f"v1/billingAccounts/{account}:testIamPermissions",
            )
        elif (
            resource.type == "gcp:storage/bucketIAMMember:BucketIAMMember"
            and existing_bucket
            and resource.inputs.get("bucket") == existing_bucket
        ):
            found[existing_bucket] = Elsewhere(
                what=f"the bucket {existing_bucket}",
                permission="storage.buckets.setIamPolicy",
                how=f"have its owner run: gcloud storage buckets add-iam-policy-binding "
                f"gs://{existing_bucket} --member {{member}} --role roles/storage.admin",
                api="storage",
                path=f"storage/v1/b/{existing_bucket}/iam/testPermissions",
                posted=False,
            )
    return list(found.values())


def get_elsewhere(google: Google, thing: Elsewhere) -> Answer:
    if thing.posted:
        return google.post(thing.api, thing.path, {"permissions": [thing.permission]})
    return google.get(thing.api, thing.path, permissions=thing.permission)


def check_elsewhere(answer: Answer, thing: Elsewhere, *, account: str) -> Finding:
    if answer.missing:
        return fix(
            "permissions",
            f"{thing.what} does not exist",
            "check its spelling in the stack's settings: pulumi config",
        )
    has = granted(answer)
    if has is None:
        return not_checked("permissions", f"{thing.what}: {answer.trouble}")
    if thing.permission in has:
        return ok("permissions", f"{thing.permission} on {thing.what}")
    return fix(
        "permissions",
        f"you lack: {thing.permission} on {thing.what}",
        thing.how.format(member=member(account)),
    )
