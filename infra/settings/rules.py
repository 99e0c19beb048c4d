"""Checks between settings that are each valid on their own."""

from __future__ import annotations

import re

from ..facts import tiers
from ..facts.limits import (
    CONNECTIONS_PER_PROCESS,
    INSTANCE,
    KMS_KEY,
    MAX_CERTIFICATES,
    MEMORY_OF_CPU,
    RESERVED_CONNECTIONS,
    SECRET_VERSION,
    mebibytes,
)
from ..facts.names import (
    ACCOUNT_ID_MAX,
    BUCKET_NAME_MAX,
    SECRETS,
    SUFFIX_BYTES,
    account_id,
    bucket_prefix,
    secret_id,
)
from .model import AccessSettings, Login, ServiceSettings, Settings
from .reader import Reader, full

# Settings that only apply to an instance, or a bucket, that the stack creates.
OF_AN_INSTANCE = (
    "network",
    "databaseVersion",
    "databaseEdition",
    "databaseDiskGb",
    "databaseDiskLimitGb",
    "databaseAvailability",
    "backupRetention",
)
OF_A_BUCKET = ("bucketLocation", "bucketForceDestroy")


def check_together(read: Reader, settings: Settings) -> None:
    _check_names(read, settings)
    _check_image(read, settings)
    _check_kms_key(read, settings)
    _check_logins(read, settings)
    _check_access(read, settings.access)
    _check_database(read, settings)
    _check_existing(read, settings)
    _check_network(read, settings)
    _check_load_balancer(read, settings)
    _check_service(read, settings.service)
    _check_processes(read, settings)
    _check_connections(read, settings)
    _check_alerts(read, settings)


def _check_names(read: Reader, settings: Settings) -> None:
    """Checks that the names made from `name` fit Google's limits."""
    if not read.ok("name"):
        return
    name = settings.name
    account = account_id(name)
    if len(account) > ACCOUNT_ID_MAX:
        read.problem(
            full("name"),
            wanted=f"at most {ACCOUNT_ID_MAX - len(account_id(''))} characters: the service "
            f"account's name, {account}, has {len(account)}, and Google allows {ACCOUNT_ID_MAX}",
            example="mlflow",
        )
    if not settings.project:
        return
    bucket = f"{bucket_prefix(settings.project, name)}-{'x' * 2 * SUFFIX_BYTES}"
    if len(bucket) > BUCKET_NAME_MAX:
        read.problem(
            full("name"),
            wanted=f"at most {len(name) - len(bucket) + BUCKET_NAME_MAX} characters: the bucket's "
            f"name, {bucket}, has {len(bucket)}, and Google allows {BUCKET_NAME_MAX}",
            example="mlflow",
        )
    if re.search(r"g[o0][o0]g[l1]e|^goog", bucket):
        read.problem(
            full("name"),
            wanted=f"a different name: the bucket's name would be {bucket}, and Cloud Storage "
            "refuses names that contain google or look like it",
            example="mlflow",
        )


def _check_image(read: Reader, settings: Settings) -> None:
    if settings.image and settings.builder == "cloud-build" and read.ok("image", "builder"):
        read.problem(
            full("builder"),
            wanted="no builder together with a ready image: remove image or builder",
            example="pulumi config rm builder",
        )


def _check_kms_key(read: Reader, settings: Settings) -> None:
    """Checks the key's location: Google's services require a key where the data is."""
    key = KMS_KEY.fullmatch(settings.kms_key or "")
    if not key or not read.ok("gcp:region"):
        return
    region = settings.region
    if key["location"] != region:
        read.problem(
            full("kmsKey"),
            wanted=f"a key in {region}, the stack's region: this key is in {key['location']}",
            example=f"projects/{key['project']}/locations/{region}/keyRings/my-ring/cryptoKeys/mlflow",
        )
    elif settings.bucket_location != region.upper():
        read.problem(
            full("bucketLocation"),
            wanted=f"none together with kmsKey: the key is in {region}, and a bucket requires a "
            "key in its own location",
            example="pulumi config rm bucketLocation",
        )


def _check_access(read: Reader, access: AccessSettings) -> None:
    """Refuses settings that `access` would ignore: users would believe that they apply."""
    if not read.ok("access"):
        return
    named = access.mode in {"iam", "iap"}
    if access.mode != "public" and access.public_through == "invokerIamDisabled":
        read.problem(
            full("publicThrough"),
            wanted=f"none: it only applies to access public, and access is {access.mode}",
            example="pulumi config rm publicThrough",
        )
    if named and not access.invokers and read.ok("invokers"):
        read.problem(
            full("invokers"),
            wanted=f"at least one invoker: access {access.mode} lets in only the invokers",
            example="pulumi config set --path 'invokers[0]' user:ada@example.com",
        )
    if access.invokers and not named:
        everyone = "in the VPC" if access.mode == "internal" else "on the internet"
        read.problem(
            full("invokers"),
            wanted=f"none: invokers only apply to access iam and iap, and access {access.mode} "
            f"lets in everyone {everyone}",
            example="pulumi config rm invokers",
        )


def _check_logins(read: Reader, settings: Settings) -> None:
    for who, login in (("tracking", settings.tracking), ("viewer", settings.viewer)):
        if login and login.password is not None and login.password_version > 1:
            read.problem(
                full(f"{who}PasswordVersion"),
                wanted=f"none together with {who}Password: only a generated password has "
                f"versions; to change yours, set a new {who}Password",
                example=f"pulumi config rm {who}PasswordVersion",
            )
        if login:
            _check_password_secret(read, who, login, project=settings.project, name=settings.name)
    viewers = settings.viewer.password_secret if settings.viewer else None
    if viewers and _secret_of(viewers) == _secret_of(settings.tracking.password_secret):
        read.problem(
            full("viewerPasswordSecret"),
            wanted="a different secret than trackingPasswordSecret: otherwise the viewer knows the "
            "password of the user who may change everything",
            example=f"projects/{settings.project}/secrets/viewer-password/versions/1",
        )
    if settings.viewer and settings.viewer.username == settings.tracking.username:
        read.problem(
            full("viewerUsername"),
            wanted="a different name than trackingUsername: the username tells the two users apart",
            example="viewer",
        )


def _secret_of(version: str | None) -> str | None:
    return version.partition("/versions/")[0] if version else None


def _check_password_secret(
    read: Reader, who: str, login: Login, *, project: str, name: str
) -> None:
    given = SECRET_VERSION.fullmatch(login.password_secret or "")
    if not given:
        return
    key = full(f"{who}PasswordSecret")
    for other, own in (
        (f"{who}Password", login.password is not None),
        (f"{who}PasswordVersion", login.password_version > 1),
    ):
        if own:
            read.problem(
                key,
                wanted=f"none together with {other}, which is for a password that the stack "
                "stores: remove one of the two",
                example=f"pulumi config rm {other}",
            )
    if given["project"] != project and read.ok("gcp:project"):
        read.problem(
            key,
            wanted=f"a secret in the stack's project, {project}: the server reads no secrets of "
            "other projects",
            example=f"projects/{project}/secrets/{given['secret']}/versions/1",
        )
    if given["secret"] in {secret_id(name, what) for what in SECRETS} and read.ok("name"):
        read.problem(
            key,
            wanted=f"a secret that you created: {given['secret']} belongs to the stack, which "
            "deletes it once this setting is used; copy the password to a secret of your own first",
            example=f"projects/{project}/secrets/my-password/versions/1",
        )


def _check_database(read: Reader, settings: Settings) -> None:
    database = settings.database
    # An existing instance has its own edition; `databaseTier` then only says how many connections
    # it accepts.
    if read.ok("databaseTier", "databaseEdition") and not database.existing_instance:
        tier = tiers.require(database.tier)
        if tier.edition != database.edition:
            read.problem(
                full("databaseEdition"),
                wanted=f"{tier.edition}, the edition of databaseTier {database.tier}",
                example=tier.edition,
            )
    if (
        read.ok("databaseDiskGb", "databaseDiskLimitGb")
        and database.disk_limit_gb < database.disk_gb
    ):
        read.problem(
            full("databaseDiskLimitGb"),
            wanted=f"at least {database.disk_gb}, which is databaseDiskGb",
            example=str(database.disk_gb * 2),
        )


def _check_existing(read: Reader, settings: Settings) -> None:
    """Refuses settings of an existing instance or bucket, which the stack doesn't change."""
    instance, bucket = settings.database.existing_instance, settings.existing_bucket
    # An existing instance may have its address in an existing network.
    own = tuple(key for key in OF_AN_INSTANCE if key != "network" or not settings.existing_network)
    for existing, given, keys in (
        ("existingDatabaseInstance", instance, own),
        ("existingBucket", bucket, OF_A_BUCKET),
    ):
        for key in keys if given else ():
            if read.own(key) and read.ok(key):
                read.problem(
                    full(key),
                    wanted=f"none together with {existing}, which the stack doesn't change",
                    example=f"pulumi config rm {key}",
                )
    if (found := INSTANCE.fullmatch(instance or "")) and found["project"] != settings.project:
        read.problem(
            full("existingDatabaseInstance"),
            wanted=f"an instance in the stack's project, {settings.project}",
            example=f"{settings.project}:{settings.region}:my-instance",
        )


def _check_network(read: Reader, settings: Settings) -> None:
    if settings.existing_network and not settings.private_network and read.ok("network"):
        read.problem(
            full("existingNetwork"),
            wanted="none unless network is private: a public database isn't in a network",
            example="pulumi config set network private",
        )


def _check_load_balancer(read: Reader, settings: Settings) -> None:
    balancer = settings.load_balancer
    if not balancer:
        return
    if not 0 < len(balancer.domains) <= MAX_CERTIFICATES and read.ok("customDomains"):
        read.problem(
            full("customDomains"),
            wanted=f"1 to {MAX_CERTIFICATES} domains with loadBalancer: the first is the server's "
            "address, and each has a certificate",
            example="pulumi config set --path 'customDomains[0]' mlflow.example.com",
        )
    if settings.access.mode == "internal":
        read.problem(
            full("loadBalancer"),
            wanted="false: a load balancer serves the internet, from which access internal refuses "
            "callers",
            example="false",
        )


def _check_service(read: Reader, service: ServiceSettings) -> None:
    if read.ok("minInstances", "maxInstances") and service.min_instances > service.max_instances:
        read.problem(
            full("minInstances"),
            wanted=f"at most {service.max_instances}, which is maxInstances",
            example=str(service.max_instances),
        )
    if read.ok("memory", "cpu"):
        low, high = MEMORY_OF_CPU[service.cpu]
        if not low <= mebibytes(service.memory) <= high:
            read.problem(
                full("memory"),
                wanted=f"{low}Mi to {high}Mi with cpu {service.cpu}, or another cpu "
                f"({'; '.join(f'cpu {c}: {a}Mi-{b}Mi' for c, (a, b) in MEMORY_OF_CPU.items())})",
                example="1Gi" if service.cpu <= 2 else f"{low}Mi",
            )


def _check_processes(read: Reader, settings: Settings) -> None:
    """Checks that each process gets enough connections; each CPU has one process."""
    if not read.ok("cpu", "databaseConnections"):
        return
    cpus = settings.service.cpu
    least = CONNECTIONS_PER_PROCESS * cpus
    if settings.database.connections < least:
        read.problem(
            full("databaseConnections"),
            wanted=f"at least {least}: cpu {cpus} starts {cpus} processes, and each needs "
            f"{CONNECTIONS_PER_PROCESS} connections, which one request may use",
            example=str(2 * least),
        )


def _check_connections(read: Reader, settings: Settings) -> None:
    """Checks that the pools of all instances together fit what the tier accepts.

    `maxInstances` limits all revisions together (the service's `scaling`), so a rollout only needs
    connections for the boot of the new revision. Cloud Run may exceed the limit for a moment, but
    pools open connections only as requests need them, so full pools are the worst case.
    """
    if not read.ok("databaseTier", "maxInstances", "databaseConnections", "cpu"):
        return
    instances = settings.service.max_instances
    each = settings.database.connections
    limit = tiers.require(settings.database.tier).max_connections
    reserved = sum(RESERVED_CONNECTIONS.values())
    room = limit - reserved
    least = CONNECTIONS_PER_PROCESS * settings.service.cpu
    if instances * each <= room:
        return
    kept = ", ".join(f"{count} for {what}" for what, count in RESERVED_CONNECTIONS.items())
    choices = [
        f"maxInstances {room // each}" if room >= each else "",
        f"databaseConnections {room // instances}" if room >= instances * least else "",
        f"a larger databaseTier ({tiers.smallest_for(instances * each + reserved)})",
    ]
    read.problem(
        full("databaseConnections"),
        given=f"maxInstances {instances} x databaseConnections {each} = {instances * each}",
        wanted=f"at most {room}: {settings.database.tier} accepts {limit} connections, less "
        f"{reserved} ({kept}); set {' or '.join(choice for choice in choices if choice)}",
        example=str(max(least, room // instances)),
    )


def _check_alerts(read: Reader, settings: Settings) -> None:
    alerts = settings.alerts
    for key, value in (
        ("uptimeCheck", alerts.uptime_check),
        ("monthlyBudget", alerts.monthly_budget),
    ):
        if value and not alerts.email and read.ok("alertEmail"):
            read.problem(
                full(key),
                wanted=f"no {key} without alertEmail, the address that gets the messages",
                example="pulumi config set alertEmail oncall@example.com",
            )
    if alerts.monthly_budget and not alerts.billing_account and read.ok("billingAccount"):
        read.problem(
            full("billingAccount"),
            wanted="with monthlyBudget, the billing account that pays for the project, as "
            "`gcloud billing accounts list` shows it",
            example="012345-6789AB-CDEF01",
        )
    if alerts.billing_account and not alerts.monthly_budget and read.ok("monthlyBudget"):
        read.problem(
            full("monthlyBudget"),
            wanted="an amount of at least 1, because billingAccount is set, which only a budget "
            "needs",
            example="50",
        )
    if alerts.uptime_check and settings.access.mode != "public" and read.ok("access"):
        read.problem(
            full("uptimeCheck"),
            wanted="false: Google's check comes from the internet without logging in, and access "
            f"{settings.access.mode} refuses it",
            example="false",
        )
