"""Rules for every resource of every stack: each rule returns the violations that it finds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.facts.regions import REGIONS
from tests.infra.declared import (
    IAP_AGENT,
    NUMBER,
    POOL,
    PROJECT,
    REGION,
    REGISTRY_TOKEN,
    STORAGE_AGENT,
    Declared,
    Program,
    Secret,
    plain_strings,
    run,
)

API = "gcp:projects/service:Service"
ACCOUNT_MEMBER = "gcp:serviceaccount/iAMMember:IAMMember"
CUSTOM_ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
PROJECT_MEMBER = "gcp:projects/iAMMember:IAMMember"
INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
BUCKET = "gcp:storage/bucket:Bucket"
BUCKET_MEMBER = "gcp:storage/bucketIAMMember:BucketIAMMember"
SECRET = "gcp:secretmanager/secret:Secret"
SECRET_MEMBER = "gcp:secretmanager/secretIamMember:SecretIamMember"
IMAGES_MEMBER = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"
KEY_MEMBER = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"
IDENTITY_PROVIDER = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"
REPOSITORY = "gcp:artifactregistry/repository:Repository"
PEERING = "gcp:servicenetworking/connection:Connection"
INVOKER = "gcp:cloudrunv2/serviceIamMember:ServiceIamMember"
JOB = "gcp:cloudrunv2/job:Job"
SCHEDULE = "gcp:cloudscheduler/job:Job"
ACCESSOR = "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember"

DATABASE = "gcp:sql/database:Database"
# Resources that the user may bring. A brought resource isn't declared, so it isn't checked.
BROUGHT = {INSTANCE: "existingDatabaseInstance", BUCKET: "existingBucket"}
TLS = "gcp:compute/sSLPolicy:SSLPolicy"
HTTP = "gcp:compute/targetHttpProxy:TargetHttpProxy"
URL_MAP = "gcp:compute/uRLMap:URLMap"

EVERYBODY = {"allUsers", "allAuthenticatedUsers"}
BASIC_ROLES = {"roles/owner", "roles/editor", "roles/viewer"}

SERVER, SIGNER = (
    f"serviceAccount:mlflow-{what}@{PROJECT}.iam.gserviceaccount.com"
    for what in ("server", "signer")
)
SIGN_ROLE = f"projects/{PROJECT}/roles/mlflow_signer_ab12cd"
SIGN_BLOB = "iam.serviceAccounts.signBlob"
# Roles that mint an account's credentials, or let their holder grant such a role.
MINT_CREDENTIALS = {
    "roles/iam.serviceAccountAdmin",
    "roles/iam.serviceAccountKeyAdmin",
    "roles/iam.serviceAccountOpenIdTokenCreator",
    "roles/iam.serviceAccountTokenCreator",
}
# All roles that each account may get, with the kind of resource.
OF_THE_SERVER = {
    (ACCOUNT_MEMBER, SIGN_ROLE),
    (PROJECT_MEMBER, "roles/cloudsql.client"),
    (BUCKET_MEMBER, "roles/storage.objectUser"),
    (SECRET_MEMBER, "roles/secretmanager.secretAccessor"),
}
# The upkeep job, and what starts it: it can't sign addresses, nor read the logins.
JOB_MEMBER = "gcp:cloudrunv2/jobIamMember:JobIamMember"
UPKEEP, TIMER = (
    f"serviceAccount:mlflow-{what}@{PROJECT}.iam.gserviceaccount.com"
    for what in ("upkeep", "timer")
)
OF_THE_UPKEEP = {
    (PROJECT_MEMBER, "roles/cloudsql.client"),
    (BUCKET_MEMBER, "roles/storage.objectUser"),
    (SECRET_MEMBER, "roles/secretmanager.secretAccessor"),
}
OF_THE_TIMER = {(JOB_MEMBER, "roles/run.invoker")}
UPKEEPS_SECRETS = {"mlflow_artifact_url", "mlflow_database_url"}
# The worker of jobs: the same, and the key of the gateway's secrets.
POOL_OF_WORKERS = "gcp:cloudrunv2/workerPool:WorkerPool"
POOL_MEMBER = "gcp:cloudrunv2/workerPoolIamMember:WorkerPoolIamMember"
WORKER = f"serviceAccount:mlflow-worker@{PROJECT}.iam.gserviceaccount.com"
WORKERS_SECRETS = {*UPKEEPS_SECRETS, "mlflow_kek_passphrase"}
OF_THE_SIGNER = {(BUCKET_MEMBER, "roles/storage.objectUser")}
RUN_AGENT = f"service-{NUMBER}@serverless-robot-prod.iam.gserviceaccount.com"
# Google's service agents, which store the data, and their role on the user's key.
AGENTS = {
    f"service-{NUMBER}@gcp-sa-sqladmin.iam.gserviceaccount.com",
    f"service-{NUMBER}@gcp-sa-secretmanager.iam.gserviceaccount.com",
    f"service-{NUMBER}@gcp-sa-artifactregistry.iam.gserviceaccount.com",
    RUN_AGENT,
    STORAGE_AGENT,
}
ENCRYPTS = {(KEY_MEMBER, "roles/cloudkms.cryptoKeyEncrypterDecrypter")}
RUNS = {(PROJECT_MEMBER, "roles/run.serviceAgent")}
# The accounts of Cloud Build and of GitHub's workflow.
BUILDER, DEPLOYER, REVIEWER = (
    f"serviceAccount:mlflow-{what}@{PROJECT}.iam.gserviceaccount.com"
    for what in ("build", "deploy", "review")
)
BUILDS = {
    (BUCKET_MEMBER, "roles/storage.objectViewer"),
    (IMAGES_MEMBER, "roles/artifactregistry.writer"),
    (PROJECT_MEMBER, "roles/logging.logWriter"),
}
ROLES_OF_DEPLOYING = f"projects/{PROJECT}/roles/mlflow"
DEPLOYS = {
    (ACCOUNT_MEMBER, "roles/iam.serviceAccountUser"),
    (BUCKET_MEMBER, f"{ROLES_OF_DEPLOYING}_deploy_source_ab12cd"),
    (IMAGES_MEMBER, "roles/artifactregistry.writer"),
    (INVOKER, f"{ROLES_OF_DEPLOYING}_deploy_service_ab12cd"),
    (JOB_MEMBER, f"{ROLES_OF_DEPLOYING}_deploy_upkeep_ab12cd"),
    (POOL_MEMBER, f"{ROLES_OF_DEPLOYING}_deploy_worker_ab12cd"),
    (PROJECT_MEMBER, f"{ROLES_OF_DEPLOYING}_deploy_database_ab12cd"),
    (PROJECT_MEMBER, f"{ROLES_OF_DEPLOYING}_deploy_project_ab12cd"),
    (SECRET_MEMBER, f"{ROLES_OF_DEPLOYING}_deploy_secrets_ab12cd"),
}
REVIEWS = {(PROJECT_MEMBER, f"{ROLES_OF_DEPLOYING}_review_project_ab12cd")}
# Permissions that no custom role may have.
TOO_MUCH = re.compile(r".*\.(delete|destroy|disable|setIamPolicy|actAs|signBlob|getAccessToken)")
CALLS = {(INVOKER, "roles/run.invoker")}
PASSES_IAP = {(ACCESSOR, "roles/iap.httpsResourceAccessor")}

# They replace the whole list of members, so they revoke everyone else's access.
AUTHORITATIVE = re.compile(r".*(I[Aa][Mm](Binding|Policy)|AccessControl|ACL)")
ANY_ADDRESS = re.compile(r"0\.0\.0\.0(/0)?|::/0")
SECRET_KEY = re.compile(r"(?i).*(password|secretdata|privatekey|token)")
SECRET_VALUE = re.compile(rf"generated-|{REGISTRY_TOKEN}|a-password-of-the-user")
SECRET_REFERENCE = re.compile(r"[\w-]+/versions/[1-9][0-9]*")
DIGEST = re.compile(r"[\w./-]+@sha256:[0-9a-f]{64}")


@dataclass
class Stack:
    """A configuration, and what the program declares with it."""

    config: Mapping[str, Any] = field(default_factory=dict)
    program: Program = field(default_factory=Program)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Stack:
        return cls(config, run(config))

    def setting(self, key: str, default: Any) -> Any:
        return self.config.get(key, default)

    @property
    def access(self) -> str:
        return str(self.setting("access", "public"))

    def all(self, type_: str) -> list[Declared]:
        """Returns all of this type; raises if there are none, so no rule holds without a check."""
        found = self.program.all(type_)
        if not found and not self.setting(BROUGHT.get(type_, ""), ""):
            raise LookupError(f"no {type_} is declared")
        return found

    @property
    def data(self) -> list[Declared]:
        """Returns the buckets with the only copy of their objects: not Cloud Build's source."""
        return [bucket for bucket in self.all(BUCKET) if bucket.name != "source"]

    @property
    def grants(self) -> list[Declared]:
        return [r for r in self.program.created if "role" in r.inputs or "member" in r.inputs]


def _unless(holds: bool, what: object, why: str) -> Iterator[str]:
    if not holds:
        yield f"{what}: {why}"


def buckets_are_private(stack: Stack) -> Iterator[str]:
    for bucket in stack.all(BUCKET):
        inputs = bucket.inputs
        prevention = inputs.get("publicAccessPrevention")
        yield from _unless(prevention == "enforced", bucket, "public access is not prevented")
        uniform = inputs.get("uniformBucketLevelAccess") is True
        yield from _unless(uniform, bucket, "objects may have separate access rules")


def no_member_has_a_basic_role(stack: Stack) -> Iterator[str]:
    for grant in stack.grants:
        role = grant.inputs["role"]
        yield from _unless(role not in BASIC_ROLES, grant, f"the basic role {role}")


def only_listed_roles_are_granted(stack: Stack) -> Iterator[str]:
    allowed = {SERVER: OF_THE_SERVER, SIGNER: OF_THE_SIGNER}
    if stack.access == "public" and stack.setting("publicThrough", "allUsers") == "allUsers":
        allowed["allUsers"] = CALLS
    if stack.access == "iap":
        allowed[f"serviceAccount:{IAP_AGENT}"] = CALLS
    for member in stack.setting("invokers", ()):
        allowed[member] = CALLS if stack.access == "iam" else PASSES_IAP
    if stack.setting("cleanupAfterDays", 0) or stack.setting("archiveTracesAfterDays", 0):
        allowed |= {UPKEEP: OF_THE_UPKEEP, TIMER: OF_THE_TIMER}
    if stack.setting("jobs", False):
        allowed[WORKER] = OF_THE_UPKEEP
    if stack.setting("kmsKey", ""):
        allowed |= {f"serviceAccount:{agent}": ENCRYPTS for agent in AGENTS}
        allowed[f"serviceAccount:{RUN_AGENT}"] = ENCRYPTS | RUNS
    if stack.setting("builder", "docker") == "cloud-build":
        allowed[BUILDER] = BUILDS
    if stack.setting("githubRepository", ""):
        allowed[DEPLOYER] = DEPLOYS
        jobs = ["deploy"]
        if stack.setting("githubReview", False):
            allowed[REVIEWER] = REVIEWS
            jobs.append("review")
        for what in jobs:
            member = f"principalSet://iam.googleapis.com/{POOL}/attribute.environment/{what}"
            allowed[member] = {(ACCOUNT_MEMBER, "roles/iam.workloadIdentityUser")}
    for grant in stack.grants:
        role, member = grant.inputs["role"], grant.inputs["member"]
        listed = (grant.type, role) in allowed.get(member, set())
        yield from _unless(listed, grant, f"{member} gets {role}")


def the_upkeep_job_reads_no_login(stack: Stack) -> Iterator[str]:
    for grant in stack.program.all(SECRET_MEMBER):
        if grant.inputs["member"] == UPKEEP:
            secret = grant.inputs["secretId"]
            yield from _unless(secret in UPKEEPS_SECRETS, grant, f"the job reads {secret}")
    for job in stack.program.all(JOB):
        account = job.inputs["template"]["template"].get("serviceAccount")
        own = f"serviceAccount:{account}" == UPKEEP
        yield from _unless(own, job, f"runs as {account}")
    for schedule in stack.program.all(SCHEDULE):
        account = schedule.inputs["httpTarget"].get("oauthToken", {}).get("serviceAccountEmail")
        own = f"serviceAccount:{account}" == TIMER
        yield from _unless(own, schedule, f"calls as {account}")


def the_worker_reads_no_login(stack: Stack) -> Iterator[str]:
    for grant in stack.program.all(SECRET_MEMBER):
        if grant.inputs["member"] == WORKER:
            secret = grant.inputs["secretId"]
            yield from _unless(secret in WORKERS_SECRETS, grant, f"the worker reads {secret}")
    for pool in stack.program.all(POOL_OF_WORKERS):
        account = pool.inputs["template"].get("serviceAccount")
        own = f"serviceAccount:{account}" == WORKER
        yield from _unless(own, pool, f"runs as {account}")


def custom_roles_are_small(stack: Stack) -> Iterator[str]:
    """No deletion except of Cloud Build's copies of the source, and no permission to grant access.

    The rule below is about signing.
    """
    for role in stack.all(CUSTOM_ROLE):
        for permission in role.inputs["permissions"]:
            excepted = permission in {"storage.objects.delete", SIGN_BLOB}
            small = excepted or not TOO_MUCH.fullmatch(permission)
            yield from _unless(small, role, f"has {permission}")


def no_member_can_create_tokens(stack: Stack) -> Iterator[str]:
    """A thief could renew a stolen token forever."""
    for grant in stack.grants:
        role = grant.inputs["role"]
        yield from _unless(role not in MINT_CREDENTIALS, grant, f"may mint credentials: {role}")


def no_account_has_a_role_on_itself(stack: Stack) -> Iterator[str]:
    """Even signBlob alone would be enough: a signed JWT can be exchanged for an access token."""
    for grant in stack.all(ACCOUNT_MEMBER):
        account = grant.inputs["serviceAccountId"].rpartition("/")[2]
        itself = grant.inputs["member"] == f"serviceAccount:{account}"
        yield from _unless(not itself, grant, f"{account} has {grant.inputs['role']} on itself")


def custom_roles_on_accounts_only_sign(stack: Stack) -> Iterator[str]:
    """No other permission on accounts is in a custom role."""
    for role in stack.all(CUSTOM_ROLE):
        held = role.inputs["permissions"]
        about_accounts = any(permission.startswith("iam.") for permission in held)
        yield from _unless(not about_accounts or held == [SIGN_BLOB], role, f"holds {held}")


def grants_revoke_nothing(stack: Stack) -> Iterator[str]:
    for resource in stack.program.created:
        authoritative = AUTHORITATIVE.fullmatch(resource.kind)
        yield from _unless(
            not authoritative, resource, "revokes the access of members that it does not name"
        )


def only_the_chosen_access_is_open(stack: Stack) -> Iterator[str]:
    public = stack.access == "public"
    for resource in stack.program.created:
        if EVERYBODY & {*plain_strings(resource.inputs)}:
            call = resource.type == INVOKER and resource.inputs["member"] == "allUsers"
            yield from _unless(public and call, resource, "lets in everybody")
    service = stack.program.service
    off = service.inputs["invokerIamDisabled"]
    inside = service.inputs["ingress"] == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    yield from _unless(inside == (stack.access == "internal"), service, "has the wrong ingress")
    yield from _unless(not off or public or inside, service, "does not check its callers")
    iap = service.inputs["iapEnabled"] is True
    yield from _unless(
        iap == (stack.access == "iap"), service, "Identity-Aware Proxy does not match the setting"
    )


def the_load_balancer_cannot_be_bypassed(stack: Stack) -> Iterator[str]:
    balanced = stack.setting("loadBalancer", False)
    service = stack.program.service
    behind = service.inputs["ingress"] == "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    yield from _unless(behind == balanced, service, f"accepts {service.inputs['ingress']}")
    trusted = stack.program.env.get("TRUSTED_PROXIES")
    yield from _unless(trusted == ("1" if balanced else None), service, f"trusts {trusted} proxies")
    for policy in stack.all(TLS) if balanced else []:
        modern = policy.inputs.get("minTlsVersion") in {"TLS_1_2", "TLS_1_3"}
        yield from _unless(modern, policy, "accepts old TLS versions")
    redirects = {
        f"{url_map.name}-id"
        for url_map in stack.program.all(URL_MAP)
        if url_map.inputs.get("defaultUrlRedirect", {}).get("httpsRedirect") is True
    }
    for proxy in stack.all(HTTP) if balanced else []:
        yield from _unless(proxy.inputs["urlMap"] in redirects, proxy, "serves without TLS")


def no_address_range_is_open(stack: Stack) -> Iterator[str]:
    for resource in stack.program.created:
        for text in plain_strings(resource.inputs):
            yield from _unless(not ANY_ADDRESS.fullmatch(text), resource, f"accepts {text}")
    for instance in stack.all(INSTANCE):
        networks = instance.inputs["settings"]["ipConfiguration"].get("authorizedNetworks")
        yield from _unless(not networks, instance, f"authorized networks {networks}")


def the_database_has_the_chosen_network(stack: Stack) -> Iterator[str]:
    private = stack.setting("network", "public") == "private"
    for instance in stack.all(INSTANCE):
        network = instance.inputs["settings"]["ipConfiguration"]
        public = network.get("ipv4Enabled") is True
        yield from _unless(public != private, instance, f"a public address: {public}")
        inside = "privateNetwork" in network
        yield from _unless(inside == private, instance, f"a private address: {inside}")
        # An existing network has its peering already.
        peers = private and not stack.setting("existingNetwork", "")
        peered = {r.urn for r in stack.program.all(PEERING)} & stack.program.before(instance)
        yield from _unless(bool(peered) == peers, instance, "does not wait for the peering")
    service = stack.program.service
    way = service.inputs["template"].get("vpcAccess")
    yield from _unless((way is not None) == private, service, f"its VPC access: {way}")
    # With all traffic through the network, the internet and Google's own APIs would be unreachable.
    egress = (way or {}).get("egress", "PRIVATE_RANGES_ONLY")
    yield from _unless(egress == "PRIVATE_RANGES_ONLY", service, f"sends {egress} into the network")


def data_is_encrypted_with_the_chosen_key(stack: Stack) -> Iterator[str]:
    asked = stack.setting("kmsKey", None)
    grants = {grant.urn for grant in stack.program.all(KEY_MEMBER)}
    for resource in stack.program.created:
        inputs = resource.inputs
        match resource.type:
            case "gcp:sql/databaseInstance:DatabaseInstance":
                key = inputs.get("encryptionKeyName")
            case "gcp:storage/bucket:Bucket":
                key = inputs.get("encryption", {}).get("defaultKmsKeyName")
            case "gcp:artifactregistry/repository:Repository":
                key = inputs.get("kmsKeyName")
            case "gcp:cloudrunv2/service:Service" | "gcp:cloudrunv2/workerPool:WorkerPool":
                key = inputs["template"].get("encryptionKey")
            case "gcp:cloudrunv2/job:Job":
                key = inputs["template"]["template"].get("encryptionKey")
            case "gcp:secretmanager/secret:Secret":
                replicas = inputs["replication"].get("userManaged", {}).get("replicas", [{}])
                yield from _unless(
                    asked is None or [r.get("location") for r in replicas] == [REGION],
                    resource,
                    "is stored outside the key's region",
                )
                key = replicas[0].get("customerManagedEncryption", {}).get("kmsKeyName")
            case _:
                continue
        yield from _unless(key == asked, resource, f"is encrypted with {key}")
        waits = grants <= stack.program.before(resource)
        yield from _unless(waits, resource, "does not wait for the permission to use the key")


def only_one_repositorys_workflows_are_trusted(stack: Stack) -> Iterator[str]:
    """GitHub issues tokens to the workflows of every repository."""
    repository = stack.setting("githubRepository", "")
    providers = stack.program.all(IDENTITY_PROVIDER)
    yield from _unless(len(providers) == bool(repository), "identity providers", str(providers))
    for provider in providers:
        condition = provider.inputs.get("attributeCondition")
        number = stack.setting("githubRepositoryId", 0)
        start = f"assertion.repository_id == '{number}' && assertion.repository == '{repository}' "
        asked = str(condition).startswith(f"{start}&& ((assertion.environment == 'deploy' && ")
        yield from _unless(asked, provider, f"trusts every token that matches {condition}")


def no_account_key_is_created(stack: Stack) -> Iterator[str]:
    for resource in stack.program.created:
        key = resource.kind.endswith("Key") and resource.type.startswith("gcp:")
        yield from _unless(not key, resource, "a key that does not expire")


def connections_are_encrypted(stack: Stack) -> Iterator[str]:
    for instance in stack.all(INSTANCE):
        settings = instance.inputs["settings"]
        mode = settings["ipConfiguration"].get("sslMode")
        encrypted = mode in {"ENCRYPTED_ONLY", "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"}
        yield from _unless(encrypted, instance, f"sslMode {mode}")
        connector = settings.get("connectorEnforcement") == "REQUIRED"
        yield from _unless(connector, instance, "accepts connections without Cloud SQL's connector")


def the_database_is_backed_up(stack: Stack) -> Iterator[str]:
    for instance in stack.all(INSTANCE):
        backup = instance.inputs["settings"].get("backupConfiguration", {})
        yield from _unless(backup.get("enabled") is True, instance, "no backups")
        to_the_point = backup.get("pointInTimeRecoveryEnabled") is True
        yield from _unless(to_the_point, instance, "no point-in-time recovery")
        kept = backup.get("backupRetentionSettings", {}).get("retainedBackups", 0)
        asked = stack.setting("backupRetention", 7)
        yield from _unless(kept == asked, instance, f"{kept} backups of {asked}")


def overwritten_objects_can_be_restored(stack: Stack) -> Iterator[str]:
    for bucket in stack.data:
        versioned = bucket.inputs.get("versioning") == {"enabled": True}
        yield from _unless(versioned, bucket, "no versions")
        kept = bucket.inputs.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0)
        yield from _unless(kept >= 7 * 24 * 3600, bucket, "soft delete for less than a week")


def secrets_are_marked(stack: Stack) -> Iterator[str]:
    """Otherwise, Pulumi's state, diffs and previews would show them."""

    def exposed(value: Any, key: str = "") -> Iterator[str]:
        if isinstance(value, str):
            if SECRET_VALUE.search(value) or (SECRET_KEY.fullmatch(key) and value):
                yield key
        elif isinstance(value, list):
            for item in value:
                yield from exposed(item, key)
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from exposed(item, name)
        elif not isinstance(value, Secret | int | float | None):
            raise TypeError(f"neither a container nor a plain value: {value!r}")

    for resource in stack.program.resources:
        for key in exposed(resource.raw):
            yield f"{resource}: {key} is not marked as secret"
    for name, output in stack.program.outputs.items():
        for key in exposed(output, name):
            yield f"output {name}: {key} is not marked as secret"


def the_container_gets_references_to_its_secrets(stack: Stack) -> Iterator[str]:
    for container in stack.program.service.raw["template"]["containers"]:
        for env in container["envs"]:
            name, value = env["name"], env.get("value")
            yield from _unless(isinstance(value, str), name, "is not plain text")
            if name.endswith("_SECRET"):
                numbered = SECRET_REFERENCE.fullmatch(str(value))
                yield from _unless(bool(numbered), name, f"{value} is not a secret's version")


def protection_matches_the_setting(stack: Stack) -> Iterator[str]:
    asked = stack.setting("deletionProtection", True)
    for resource in [stack.program.service, *stack.all(INSTANCE)]:
        protected = resource.inputs.get("deletionProtection") is asked and resource.protect is asked
        yield from _unless(protected, resource, f"protection is not {asked}")
    for instance in stack.all(INSTANCE):
        google = instance.inputs["settings"].get("deletionProtectionEnabled")
        yield from _unless(google is asked, instance, f"Google's own protection is not {asked}")
    if stack.setting("existingDatabaseInstance", ""):
        for database in stack.all(DATABASE):
            yield from _unless(database.protect is asked, database, f"protection is not {asked}")
    for kept in [*stack.data, *(s for s in stack.all(SECRET) if s.name == "kek_passphrase")]:
        yield from _unless(kept.protect is asked, kept, f"protection is not {asked}")
    forced = stack.setting("bucketForceDestroy", False)
    for bucket in stack.data:
        yield from _unless(
            bucket.inputs.get("forceDestroy") is forced, bucket, "is deleted with its data"
        )


def images_are_named_by_digest(stack: Stack) -> Iterator[str]:
    templates = [(stack.program.service, stack.program.service.inputs["template"])]
    templates += [(job, job.inputs["template"]["template"]) for job in stack.program.all(JOB)]
    templates += [(pool, pool.inputs["template"]) for pool in stack.program.all(POOL_OF_WORKERS)]
    for resource, template in templates:
        for container in template["containers"]:
            image = container["image"]
            yield from _unless(bool(DIGEST.fullmatch(image)), resource, f"runs {image}")


def the_server_has_a_dedicated_account(stack: Stack) -> Iterator[str]:
    """Not the project's default account, which may be an Editor."""
    account = stack.program.service.inputs["template"].get("serviceAccount")
    own = f"serviceAccount:{account}" == SERVER
    yield from _unless(own, stack.program.service, f"runs as {account}")
    signer = stack.program.env.get("ARTIFACT_SIGNER")
    other = f"serviceAccount:{signer}" == SIGNER
    yield from _unless(other, stack.program.service, f"signs as {signer}")


def everything_is_in_the_region(stack: Stack) -> Iterator[str]:
    """No field and no name has a region or location other than the stack's."""
    bucket_location = str(stack.setting("bucketLocation", REGION)).upper()
    for resource in stack.program.created:
        for key, allowed in (("region", {REGION}), ("location", {REGION, "global"})):
            found = resource.inputs.get(key)
            if found is not None and resource.type != BUCKET:
                yield from _unless(found in allowed, resource, f"has {key} {found}")
        if resource.type == BUCKET:
            found = resource.inputs["location"]
            ours = found in {REGION.upper(), bucket_location}
            yield from _unless(ours, resource, f"is in {found}")
        for text in plain_strings(resource.inputs):
            others = set(_REGION_NAME.findall(text)) & (set(REGIONS) - {REGION})
            yield from _unless(not others, resource, f"names {others}: {text[:200]}")


_REGION_NAME = re.compile(r"[a-z]+-[a-z]+[0-9]+")


def resources_wait_for_their_dependencies(stack: Stack) -> Iterator[str]:
    program = stack.program
    apis = {api.urn for api in stack.all(API)}
    for resource in program.created:
        waits = resource.type == API or apis <= program.before(resource)
        yield from _unless(waits, resource, "does not wait for the APIs")
    service = program.service
    boots_with = re.compile(
        r"gcp:(secretmanager|sql|storage|serviceaccount|artifactregistry|kms"
        r"|servicenetworking)/.*|gcp:compute/(sub)?network:.*|docker:.*|command:.*"
        r"|gcp:projects/iAM(Member:IAMMember|CustomRole:IAMCustomRole)"
    )
    for resource in program.created:
        apart = resource.parent.endswith(("Deployer::deployer", "Upkeep::upkeep", "Worker::worker"))
        if boots_with.fullmatch(resource.type) and not apart:
            waits = resource.urn in program.before(service)
            yield from _unless(waits, service, f"does not wait for {resource}")


RULES = [
    buckets_are_private,
    no_member_has_a_basic_role,
    only_listed_roles_are_granted,
    the_upkeep_job_reads_no_login,
    the_worker_reads_no_login,
    custom_roles_are_small,
    no_member_can_create_tokens,
    no_account_has_a_role_on_itself,
    custom_roles_on_accounts_only_sign,
    grants_revoke_nothing,
    only_the_chosen_access_is_open,
    the_load_balancer_cannot_be_bypassed,
    no_address_range_is_open,
    the_database_has_the_chosen_network,
    data_is_encrypted_with_the_chosen_key,
    only_one_repositorys_workflows_are_trusted,
    no_account_key_is_created,
    connections_are_encrypted,
    the_database_is_backed_up,
    overwritten_objects_can_be_restored,
    secrets_are_marked,
    the_container_gets_references_to_its_secrets,
    protection_matches_the_setting,
    images_are_named_by_digest,
    the_server_has_a_dedicated_account,
    everything_is_in_the_region,
    resources_wait_for_their_dependencies,
]
