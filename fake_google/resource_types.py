"""The resource types: how each is created, changed and deleted here, and what Google refuses.

`fake_google/project.py` keeps the existing resources; `KINDS` at the end is the table. Properties
have the provider's names. The providers' own schemas say which can't be changed in place
(`ForceNew`), https://github.com/hashicorp/terraform-provider-google.
"""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Callable
from dataclasses import replace

from fake_google import artifact_registry, load_balancing, monitoring, network
from fake_google.errors import ApiNotEnabled, NotFound, Refused
from fake_google.iam import custom_roles, federation
from fake_google.iam import policy as iam
from fake_google.iam.policy import Resource
from fake_google.kms import check_key, service_agent
from fake_google.project import PROJECT_NUMBER, Inputs, Outputs, Project
from fake_google.resource_type import Kind, last
from fake_google.run import jobs, services, worker_pools
from fake_google.sql import instances
from infra.facts.regions import MULTI_REGIONS, REGIONS

# Random values: https://www.pulumi.com/registry/packages/random/


def _random_id(_project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    value = secrets.token_bytes(int(inputs["byteLength"]))
    prefix = inputs.get("prefix") or ""
    url = base64.urlsafe_b64encode(value).decode().rstrip("=")
    outputs = {
        "hex": prefix + value.hex(),
        "dec": prefix + str(int.from_bytes(value, "big")),
        "b64Url": prefix + url,
        "b64Std": prefix + base64.b64encode(value).decode(),
    }
    return url, outputs


def _random_text(_project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    special = inputs.get("overrideSpecial") or "!@#$%&*()-_=+[]{}<>:?"
    groups = {
        "Lower": string.ascii_lowercase,
        "Upper": string.ascii_uppercase,
        "Numeric": string.digits,
        "Special": special,
    }
    groups = {key: text for key, text in groups.items() if inputs.get(key.lower(), True)}
    picked = [
        secrets.choice(text)
        for key, text in groups.items()
        for _ in range(int(inputs.get(f"min{key}") or 0))
    ]
    everything = "".join(groups.values())
    picked += [secrets.choice(everything) for _ in range(int(inputs["length"]) - len(picked))]
    secrets.SystemRandom().shuffle(picked)
    return "none", {"result": "".join(picked)}


# Project, identity, grants


def _api(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    project.enabled.add(inputs["service"])
    return f"{project.id}/{inputs['service']}", {}


def _disable_api(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("disableOnDestroy") is not False:
        project.enabled.discard(inputs["service"])


def _account(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    email = _email(project, inputs)
    project.keys.create(email)
    resource = f"projects/{project.id}/serviceAccounts/{email}"
    return resource, {"email": email, "member": f"serviceAccount:{email}", "name": resource}


def _email(project: Project, inputs: Inputs) -> str:
    return f"{inputs['accountId']}@{project.id}.iam.gserviceaccount.com"


def _delete_account(project: Project, _olds: Inputs, inputs: Inputs) -> None:
    """Deletes an account. A new account with the same name doesn't get its grants.

    https://cloud.google.com/iam/docs/service-accounts-delete-undelete
    """
    email = _email(project, inputs)
    project.keys.forget(email)
    member, suffix = f"serviceAccount:{email}", f"/serviceAccounts/{email}"
    for key, live in list(project.live.items()):
        if live.inputs.get("member") == member or (
            str(live.inputs.get("serviceAccountId", "")).endswith(suffix)
        ):
            KINDS[key[0]].delete(project, {}, live.inputs)
            del project.live[key]


def _exists(project: Project, email: str) -> bool:
    """Returns whether an account exists; accounts of other projects always do."""
    domain = email.partition("@")[2]
    ours = domain == f"{project.id}.iam.gserviceaccount.com" or (
        email.startswith(f"service-{PROJECT_NUMBER}@")
    )
    elsewhere = domain.endswith(".gserviceaccount.com") and not ours
    return elsewhere or email in project.keys or email in project.agents


def _service_agent(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    """https://cloud.google.com/iam/docs/service-agents"""
    api = inputs["service"]
    if api not in project.enabled:
        raise ApiNotEnabled(f"Error 403: {api} has not been used in project {PROJECT_NUMBER}.")
    email = service_agent(api.partition(".")[0])
    project.agents.add(email)
    outputs = {"email": email, "member": f"serviceAccount:{email}"}
    return f"projects/{project.id}/services/{api}", outputs


def _member(
    resource: Callable[[Project, Inputs], Resource | None],
    *,
    api: str = "",
    deleted_first: bool = False,
) -> Kind:
    def make(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
        role, member = inputs["role"], inputs["member"]
        kind, _, email = member.partition(":")
        if kind == "serviceAccount" and not _exists(project, email):
            raise NotFound(f"Error 400: Service account {email} does not exist.")
        custom_roles.check_exists(project, role)
        target = resource(project, inputs)
        project.grant(member, role, target, inputs.get("condition"))
        where = target.name if target else f"projects/{project.id}"
        return f"{where}/{role}/{member}", {}

    def delete(project: Project, _olds: Inputs, inputs: Inputs) -> None:
        target = resource(project, inputs)
        project.revoke(inputs["member"], inputs["role"], target, inputs.get("condition"))

    return Kind(make, delete=delete, immutable=None, deleted_first=deleted_first, api=api)


# Secrets


def _secret_name(project: Project, inputs: Inputs) -> str:
    return f"projects/{project.id}/secrets/{inputs['secretId']}"


def _secret(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    replication = inputs.get("replication") or {}
    for replica in (replication.get("userManaged") or {}).get("replicas") or ():
        key = (replica.get("customerManagedEncryption") or {}).get("kmsKeyName")
        check_key(project, key, api="secretmanager", location=replica["location"])
    key = ((replication.get("auto") or {}).get("customerManagedEncryption") or {}).get("kmsKeyName")
    check_key(project, key, api="secretmanager", location="global")
    project.secrets.create(inputs["secretId"])
    name = f"projects/{PROJECT_NUMBER}/secrets/{inputs['secretId']}"
    return _secret_name(project, inputs), {"name": name}


def _delete_secret(project: Project, _olds: Inputs, inputs: Inputs) -> None:
    project.secrets.delete(inputs["secretId"])


def _secret_version(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    secret_id, enabled = last(inputs["secret"]), inputs.get("enabled") is not False
    if project.secrets.versions(secret_id) is None:
        raise NotFound(f"Error 404: Secret [{inputs['secret']}] not found.")
    payload = inputs["secretData"].encode()
    version = project.secrets.add_version(secret_id, payload, enabled=enabled)
    name = f"projects/{PROJECT_NUMBER}/secrets/{secret_id}/versions/{version}"
    return name, {"name": name, "version": version, "enabled": enabled}


def _delete_version(project: Project, olds: Inputs, inputs: Inputs) -> None:
    if olds.get("deletionPolicy") != "ABANDON":
        project.secrets.destroy_version(last(inputs["secret"]), olds["version"])


# Cloud Storage


# A bucket's default: https://cloud.google.com/storage/docs/soft-delete.
_SOFT_DELETE_SECONDS = 7 * 24 * 3600


def _bucket(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name, location = inputs["name"], inputs["location"].upper()
    if location not in MULTI_REGIONS and location.lower() not in REGIONS:
        raise Refused(f"Error 400: The specified location constraint is not valid: {location}.")
    key = (inputs.get("encryption") or {}).get("defaultKmsKeyName")
    check_key(project, key, api="storage", location=location)
    uniform = bool(inputs.get("uniformBucketLevelAccess"))
    attributes = {
        "location": location,
        "storageClass": inputs.get("storageClass") or "STANDARD",
        "iamConfiguration": {
            "uniformBucketLevelAccess": {"enabled": uniform},
            "publicAccessPrevention": inputs.get("publicAccessPrevention") or "inherited",
        },
        "versioning": {"enabled": bool((inputs.get("versioning") or {}).get("enabled"))},
        "softDeletePolicy": {
            "retentionDurationSeconds": (inputs.get("softDeletePolicy") or {}).get(
                "retentionDurationSeconds", _SOFT_DELETE_SECONDS
            )
        },
    }
    project.store.create_bucket(name, attributes)
    link = f"{project.storage_endpoint}/storage/v1/b/{name}"
    return name, {"url": f"gs://{name}", "selfLink": link}


def _delete_bucket(project: Project, olds: Inputs, inputs: Inputs) -> None:
    name = inputs["name"]
    objects = list(project.store.below(name, after="", prefix=""))
    objects += project.store.versions(name, deleted=False)
    if objects and not olds.get("forceDestroy"):
        raise Refused(
            f"Error trying to delete bucket {name} without `force_destroy` set to true: it "
            f"contains objects ({len(objects)})"
        )
    for found in objects:
        project.store.delete(found)
    project.store.delete_bucket(name)


_ON_A_BUCKET = _member(lambda project, inputs: iam.bucket(inputs["bucket"]), api="storage")


def _member_of_a_bucket(project: Project, name: str, inputs: Inputs) -> tuple[str, Outputs]:
    if project.store.bucket(inputs["bucket"]) is None:
        raise NotFound(f"Error 404: The specified bucket does not exist: {inputs['bucket']}.")
    return _ON_A_BUCKET.make(project, name, inputs)


_ON_A_SECRET = _member(
    lambda project, inputs: iam.secret(project.id, last(inputs["secretId"])), api="secretmanager"
)


def _member_of_a_secret(project: Project, name: str, inputs: Inputs) -> tuple[str, Outputs]:
    if project.secrets.versions(last(inputs["secretId"])) is None:
        raise NotFound(f"Error 404: Secret [{inputs['secretId']}] not found.")
    return _ON_A_SECRET.make(project, name, inputs)


_NAMED = frozenset({"name", "project", "location", "region"})

KINDS: dict[str, Kind] = {
    "random:index/randomId:RandomId": Kind(_random_id, immutable=None, kept=True),
    "random:index/randomPassword:RandomPassword": Kind(_random_text, immutable=None, kept=True),
    "random:index/randomString:RandomString": Kind(_random_text, immutable=None, kept=True),
    "gcp:projects/service:Service": Kind(
        _api, delete=_disable_api, immutable=frozenset({"service", "project"})
    ),
    "gcp:projects/serviceIdentity:ServiceIdentity": Kind(_service_agent, immutable=None),
    "gcp:projects/iAMMember:IAMMember": _member(
        lambda project, inputs: None, api="cloudresourcemanager", deleted_first=True
    ),
    "gcp:projects/iAMCustomRole:IAMCustomRole": Kind(
        custom_roles.make_role,
        delete=custom_roles.delete_role,
        taken=custom_roles.role_name,
        immutable=frozenset({"roleId", "project"}),
        api="iam",
    ),
    "gcp:serviceaccount/account:Account": Kind(
        _account,
        delete=_delete_account,
        taken=_email,
        immutable=frozenset({"accountId", "project"}),
        autonamed="accountId",
        api="iam",
    ),
    "gcp:serviceaccount/iAMMember:IAMMember": _member(
        lambda project, inputs: iam.service_account(project.id, last(inputs["serviceAccountId"])),
        api="iam",
    ),
    "gcp:secretmanager/secret:Secret": Kind(
        _secret,
        delete=_delete_secret,
        taken=_secret_name,
        immutable=frozenset({"secretId", "project", "replication"}),
        api="secretmanager",
    ),
    "gcp:secretmanager/secretVersion:SecretVersion": Kind(
        _secret_version,
        delete=_delete_version,
        immutable=frozenset({"secret", "secretData"}),
        api="secretmanager",
    ),
    "gcp:secretmanager/secretIamMember:SecretIamMember": replace(
        _ON_A_SECRET, make=_member_of_a_secret
    ),
    instances.INSTANCE: Kind(
        instances.make_instance,
        delete=instances.delete_instance,
        taken=lambda _, inputs: str(inputs["name"]),
        immutable=_NAMED | {"encryptionKeyName"},
        replaces=instances.leaves_network,
        api="sqladmin",
        same=instances.same_instance,
        sent=instances.sent_instance,
    ),
    "gcp:sql/database:Database": Kind(
        instances.make_database,
        delete=instances.delete_database,
        taken=instances.name_of("databases"),
        defaults=instances.DATABASE_DEFAULTS,
        immutable=_NAMED | {"instance"},
        api="sqladmin",
    ),
    "gcp:sql/user:User": Kind(
        instances.make_user,
        delete=instances.delete_user,
        taken=instances.name_of("users"),
        immutable=_NAMED | {"instance", "type"},
        imported=instances.imported_user,
        untold=frozenset({"password"}),
        api="sqladmin",
    ),
    "gcp:storage/bucket:Bucket": Kind(
        _bucket,
        delete=_delete_bucket,
        taken=lambda _, inputs: str(inputs["name"]),
        immutable=_NAMED,
        api="storage",
    ),
    "gcp:storage/bucketIAMMember:BucketIAMMember": replace(_ON_A_BUCKET, make=_member_of_a_bucket),
    artifact_registry.REPOSITORY: Kind(
        artifact_registry.make_repository,
        delete=artifact_registry.delete_repository,
        taken=artifact_registry.repository_name,
        immutable=_NAMED | {"repositoryId", "format", "kmsKeyName"},
        api="artifactregistry",
    ),
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": _member(
        lambda project, inputs: iam.image_repository(
            project.id, inputs.get("location") or project.region, last(inputs["repository"])
        ),
        api="artifactregistry",
    ),
    federation.POOL: Kind(
        federation.make_pool,
        delete=federation.delete_pool,
        taken=federation.pool_name,
        immutable=frozenset({"workloadIdentityPoolId", "project"}),
        api="iam",
    ),
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": Kind(
        federation.make_provider,
        taken=federation.provider_name,
        immutable=frozenset(
            {"workloadIdentityPoolId", "workloadIdentityPoolProviderId", "project"}
        ),
        api="iam",
    ),
    network.NETWORK: Kind(
        network.make_network,
        delete=network.delete_network,
        taken=network.network_id,
        immutable=frozenset({"name", "project", "description", "autoCreateSubnetworks"}),
        api="compute",
    ),
    network.SUBNETWORK: Kind(
        network.make_subnetwork,
        delete=network.delete_subnetwork,
        taken=network.subnetwork_id,
        immutable=frozenset({"name", "project", "description", "network", "region"}),
        api="compute",
    ),
    network.ADDRESSES: Kind(
        network.make_addresses, taken=network.addresses_id, immutable=None, api="compute"
    ),
    "gcp:servicenetworking/connection:Connection": Kind(
        network.make_peering,
        delete=network.delete_peering,
        immutable=frozenset({"network", "service"}),
        api="servicenetworking",
    ),
    "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember": _member(
        lambda _, inputs: iam.crypto_key(inputs["cryptoKeyId"]), api="cloudkms"
    ),
    "gcp:logging/metric:Metric": Kind(
        monitoring.make_log_metric,
        taken=lambda _, inputs: str(inputs["name"]),
        immutable=frozenset({"name", "project", "bucketName"}),
        api="logging",
    ),
    monitoring.CHANNEL: Kind(
        monitoring.make_channel,
        delete=monitoring.delete_channel,
        assigned=frozenset({"name"}),
        api="monitoring",
    ),
    monitoring.POLICY: Kind(monitoring.make_policy, assigned=frozenset({"name"}), api="monitoring"),
    "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig": Kind(
        monitoring.make_uptime_check,
        immutable=frozenset({"project", "monitoredResource"}),
        assigned=frozenset({"name", "uptimeCheckId"}),
        api="monitoring",
    ),
    "gcp:billing/budget:Budget": Kind(
        monitoring.make_budget,
        immutable=frozenset({"billingAccount"}),
        assigned=frozenset({"name"}),
        api="billingbudgets",
    ),
    **load_balancing.KINDS,
    "docker:index/image:Image": Kind(
        artifact_registry.push_by_docker,
        api="artifactregistry",
        renewed=frozenset({"repoDigest"}),
        check=artifact_registry.with_digest,
        same=artifact_registry.same_image,
    ),
    "command:local:Command": Kind(
        artifact_registry.push_by_cloud_build,
        immutable=frozenset({"triggers"}),
        api="cloudbuild",
        renewed=frozenset({"stdout"}),
    ),
    "gcp:cloudrunv2/service:Service": Kind(
        services.make_service,
        delete=services.delete_service,
        taken=services.name_of,
        immutable=_NAMED,
        api="run",
    ),
    "gcp:cloudrunv2/serviceIamMember:ServiceIamMember": _member(
        lambda project, inputs: iam.run_service(
            project.id, inputs.get("location") or project.region, last(inputs["name"])
        ),
        api="run",
    ),
    "gcp:cloudrunv2/job:Job": Kind(
        jobs.make_job,
        delete=jobs.delete_job,
        taken=jobs.job_of,
        immutable=_NAMED,
        api="run",
    ),
    "gcp:cloudrunv2/jobIamMember:JobIamMember": _member(
        lambda project, inputs: iam.run_job(
            project.id, inputs.get("location") or project.region, last(inputs["name"])
        ),
        api="run",
    ),
    "gcp:cloudrunv2/workerPool:WorkerPool": Kind(
        worker_pools.make_pool,
        delete=worker_pools.delete_pool,
        taken=worker_pools.pool_of,
        immutable=_NAMED,
        api="run",
    ),
    "gcp:cloudrunv2/workerPoolIamMember:WorkerPoolIamMember": _member(
        lambda project, inputs: iam.run_worker_pool(
            project.id, inputs.get("location") or project.region, last(inputs["name"])
        ),
        api="run",
    ),
    "gcp:cloudscheduler/job:Job": Kind(
        jobs.make_schedule, taken=jobs.schedule_of, immutable=_NAMED, api="cloudscheduler"
    ),
    "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember": _member(
        lambda project, inputs: iam.web_service(
            inputs.get("project") or project.id,
            inputs.get("location") or project.region,
            last(inputs["cloudRunServiceName"]),
        ),
        api="iap",
    ),
}
