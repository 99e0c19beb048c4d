"""What must hold between the stack's settings, each of which is right on its own."""

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

# What is only set on an instance, or a bucket, that is made here.
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
    """What the name is part of must fit Google's limits."""
    if not read.ok("name"):
        return
    name = settings.name
    account = account_id(name)
    if len(account) > ACCOUNT_ID_MAX:
        read.problem(
            full("name"),
            wanted=f"at most {ACCOUNT_ID_MAX - len(account_id(''))} characters: the account "
            f"{account} has {len(account)} of {ACCOUNT_ID_MAX} (the service may have 49)",
            example="mlflow",
        )
    if not settings.project:
        return
    bucket = f"{bucket_prefix(settings.project, name)}-{'x' * 2 * SUFFIX_BYTES}"
    if len(bucket) > BUCKET_NAME_MAX:
        read.problem(
            full("name"),
            wanted=f"at most {len(name) - len(bucket) + BUCKET_NAME_MAX} characters: the bucket "
            f"{bucket} has {len(bucket)} of {BUCKET_NAME_MAX}",
            example="mlflow",
        )
    if re.search(r"g[o0][o0]g[l1]e|^goog", bucket):
        read.problem(
            full("name"),
            wanted=f"a name that does not make the bucket {bucket} contain google, or anything "
            "that looks like it, which Cloud Storage refuses",
            example="mlflow",
        )


def _check_image(read: Reader, settings: Settings) -> None:
    if settings.image and settings.builder == "cloud-build" and read.ok("image", "builder"):
        read.problem(
            full("builder"),
            wanted="no builder beside a ready image: unset one of image and builder",
            example="pulumi config rm builder",
        )


def _check_kms_key(read: Reader, settings: Settings) -> None:
    """Each of Google's services encrypts with keys of the location that it keeps the data in."""
    key = KMS_KEY.fullmatch(settings.kms_key or "")
    if not key or not read.ok("gcp:region"):
        return
    region = settings.region
    if key["location"] != region:
        read.problem(
            full("kmsKey"),
            wanted=f"a key in {region}, where everything is: this one is in {key['location']}",
            example=f"projects/{key['project']}/locations/{region}/keyRings/my-ring/cryptoKeys/mlflow",
        )
    elif settings.bucket_location != region.upper():
        read.problem(
            full("bucketLocation"),
            wanted=f"none beside kmsKey, which is in {region}: a bucket is encrypted with keys of "
            "its own location",
            example="pulumi config rm bucketLocation",
        )


def _check_access(read: Reader, access: AccessSettings) -> None:
    """What is set beside an access that does not look at it would be believed to hold."""
    if not read.ok("access"):
        return
    named = access.mode in {"iam", "iap"}
    if access.mode != "public" and access.public_through == "invokerIamDisabled":
        read.problem(
            full("publicThrough"),
            wanted=f"nothing: it says how access public is granted, and access is {access.mode}",
            example="pulumi config rm publicThrough",
        )
    if named and not access.invokers and read.ok("invokers"):
        read.problem(
            full("invokers"),
            wanted=f"with access {access.mode} at least one who is let in",
            example="pulumi config set --path 'invokers[0]' user:ada@example.com",
        )
    if access.invokers and not named:
        everybody = "in the VPC" if access.mode == "internal" else "on the internet"
        read.problem(
            full("invokers"),
            wanted=f"none: they are let in by access iam or iap, and access {access.mode} lets "
            f"in everybody {everybody}",
            example="pulumi config rm invokers",
        )


def _check_logins(read: Reader, settings: Settings) -> None:
    for who, login in (("tracking", settings.tracking), ("viewer", settings.viewer)):
        if login and login.password is not None and login.password_version > 1:
            read.problem(
                full(f"{who}PasswordVersion"),
                wanted=f"none beside a {who}Password of your own, which has no versions: to "
                "change it, set another password",
                example=f"pulumi config rm {who}PasswordVersion",
            )
        if login:
            _check_password_secret(read, who, login, project=settings.project, name=settings.name)
    viewers = settings.viewer.password_secret if settings.viewer else None
    if viewers and _secret_of(viewers) == _secret_of(settings.tracking.password_secret):
        read.problem(
            full("viewerPasswordSecret"),
            wanted="another secret than trackingPasswordSecret's: whoever may look would know the "
            "password of whoever may do everything",
            example=f"projects/{settings.project}/secrets/viewer-password/versions/1",
        )
    if settings.viewer and settings.viewer.username == settings.tracking.username:
        read.problem(
            full("viewerUsername"),
            wanted="another name than trackingUsername's: whoever logs in says by it who is meant",
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
                wanted=f"nothing beside {other}, which is of a password that the stack keeps",
                example=f"pulumi config rm {other}",
            )
    if given["project"] != project and read.ok("gcp:project"):
        read.problem(
            key,
            wanted=f"a secret of the stack's project, which is {project}: the server reads no "
            "other's",
            example=f"projects/{project}/secrets/{given['secret']}/versions/1",
        )
    if given["secret"] in {secret_id(name, what) for what in SECRETS} and read.ok("name"):
        read.problem(
            key,
            wanted=f"a secret of your own: {given['secret']} is the stack's, which takes it away "
            "when it isn't asked for; put the password into another first",
            example=f"projects/{project}/secrets/my-password/versions/1",
        )


def _check_database(read: Reader, settings: Settings) -> None:
    database = settings.database
    # An instance that isn't ours has its own; its tier says how many connections it accepts.
    if read.ok("databaseTier", "databaseEdition") and not database.existing_instance:
        tier = tiers.require(database.tier)
        if tier.edition != database.edition:
            read.problem(
                full("databaseEdition"),
                wanted=f"{tier.edition}, which databaseTier {database.tier} belongs to",
                example=tier.edition,
            )
    if (
        read.ok("databaseDiskGb", "databaseDiskLimitGb")
        and database.disk_limit_gb < database.disk_gb
    ):
        read.problem(
            full("databaseDiskLimitGb"),
            wanted=f"at least databaseDiskGb, which is {database.disk_gb}",
            example=str(database.disk_gb * 2),
        )


def _check_existing(read: Reader, settings: Settings) -> None:
    """What would be set on something that isn't ours would be believed to hold."""
    instance, bucket = settings.database.existing_instance, settings.existing_bucket
    # In a network that was there before, an instance may have been there too.
    own = tuple(key for key in OF_AN_INSTANCE if key != "network" or not settings.existing_network)
    for existing, given, keys in (
        ("existingDatabaseInstance", instance, own),
        ("existingBucket", bucket, OF_A_BUCKET),
    ):
        for key in keys if given else ():
            if read.own(key) and read.ok(key):
                read.problem(
                    full(key),
                    wanted=f"nothing beside {existing}, which is left as it is",
                    example=f"pulumi config rm {key}",
                )
    if (found := INSTANCE.fullmatch(instance or "")) and found["project"] != settings.project:
        read.problem(
            full("existingDatabaseInstance"),
            wanted=f"an instance in the stack's project, which is {settings.project}",
            example=f"{settings.project}:{settings.region}:my-instance",
        )


def _check_network(read: Reader, settings: Settings) -> None:
    if settings.existing_network and not settings.private_network and read.ok("network"):
        read.problem(
            full("existingNetwork"),
            wanted="with it network private: a public database is in no network",
            example="pulumi config set network private",
        )


def _check_load_balancer(read: Reader, settings: Settings) -> None:
    balancer = settings.load_balancer
    if not balancer:
        return
    if not 0 < len(balancer.domains) <= MAX_CERTIFICATES and read.ok("customDomains"):
        read.problem(
            full("customDomains"),
            wanted=f"with loadBalancer at least one, the server's address, and at most "
            f"{MAX_CERTIFICATES}, as each has a certificate",
            example="pulumi config set --path 'customDomains[0]' mlflow.example.com",
        )
    if settings.access.mode == "internal":
        read.problem(
            full("loadBalancer"),
            wanted="false: it is for callers from the internet, whom access internal refuses",
            example="false",
        )


def _check_service(read: Reader, service: ServiceSettings) -> None:
    if read.ok("minInstances", "maxInstances") and service.min_instances > service.max_instances:
        read.problem(
            full("minInstances"),
            wanted=f"at most maxInstances, which is {service.max_instances}",
            example=str(service.max_instances),
        )
    if read.ok("memory", "cpu"):
        low, high = MEMORY_OF_CPU[service.cpu]
        if not low <= mebibytes(service.memory) <= high:
            read.problem(
                full("memory"),
                wanted=f"{low}Mi to {high}Mi, which is what {service.cpu} CPU can have, or another "
                f"cpu ({'; '.join(f'{c} CPU {a}Mi-{b}Mi' for c, (a, b) in MEMORY_OF_CPU.items())})",
                example="1Gi" if service.cpu <= 2 else f"{low}Mi",
            )


def _check_processes(read: Reader, settings: Settings) -> None:
    """Each CPU has a process, and each process connections of its own."""
    if not read.ok("cpu", "databaseConnections"):
        return
    cpus = settings.service.cpu
    least = CONNECTIONS_PER_PROCESS * cpus
    if settings.database.connections < least:
        read.problem(
            full("databaseConnections"),
            wanted=f"at least {least}: {CONNECTIONS_PER_PROCESS}, which one request may take, for "
            f"each of the {cpus} processes that cpu asks for",
            example=str(2 * least),
        )


def _check_connections(read: Reader, settings: Settings) -> None:
    """All instances' pools must fit what the tier accepts.

    `maxInstances` holds over all revisions (`scaling` of the service), so a rollout needs
    room only for a new revision's boot. Cloud Run may overshoot it for a moment: a pool opens
    connections as requests need them, so this is the worst case, not the usual one.
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
    kept = ", ".join(f"{count} {what}" for what, count in RESERVED_CONNECTIONS.items())
    choices = [
        f"maxInstances {room // each}" if room >= each else "",
        f"databaseConnections {room // instances}" if room >= instances * least else "",
        f"a larger databaseTier ({tiers.smallest_for(instances * each + reserved)})",
    ]
    read.problem(
        full("databaseConnections"),
        given=f"maxInstances {instances} x databaseConnections {each} = {instances * each}",
        wanted=f"at most {room}: {settings.database.tier} accepts {limit}, less {reserved} "
        f"({kept}); take {' or '.join(choice for choice in choices if choice)}",
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
                wanted="with it alertEmail, which says who is told",
                example="pulumi config set alertEmail oncall@example.com",
            )
    if alerts.monthly_budget and not alerts.billing_account and read.ok("billingAccount"):
        read.problem(
            full("billingAccount"),
            wanted="with monthlyBudget the billing account that pays for the project; "
            "`gcloud billing accounts list` shows it",
            example="012345-6789AB-CDEF01",
        )
    if alerts.billing_account and not alerts.monthly_budget and read.ok("monthlyBudget"):
        read.problem(
            full("monthlyBudget"),
            wanted="with billingAccount, which only a budget needs, an amount of at least 1",
            example="50",
        )
    if alerts.uptime_check and settings.access.mode != "public" and read.ok("access"):
        read.problem(
            full("uptimeCheck"),
            wanted="false: Google asks from the internet without logging in, which access "
            f"{settings.access.mode} refuses",
            example="false",
        )
