"""Checks between settings that are each valid on their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..facts import tiers
from ..facts.limits import (
    CONNECTIONS_PER_PROCESS,
    INSTANCE,
    KMS_KEY,
    MAX_CERTIFICATES,
    MEMORY_OF_CPU,
    RESERVED_CONNECTIONS,
    SECRET_VERSION,
    SUBNETWORK,
    UPKEEP_CONNECTIONS,
    WORKER_CONNECTIONS,
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
from .kinds import shown
from .refusals import Command, Refusal, Remedy, Remove, Set, Value, full
from .schema import AccessSettings, Login, ServiceSettings, Settings, values

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
# The tier that accepts the most connections.
LARGEST = "db-custom-20-122880"
# https://cloud.google.com/storage/docs/buckets#naming
LIKE_GOOGLE = re.compile(r"g[o0][o0]g[l1]e|^goog")


class Rules:
    """Collects the refusals of settings that are each valid on their own."""

    def __init__(self, config: Mapping[str, Any], refused: Iterable[str]) -> None:
        self._config = config
        self._refused = {*refused}
        self.refusals: list[Refusal] = []

    def ok(self, *keys: str) -> bool:
        """Returns whether none of these keys was refused, so that they can be checked together."""
        return self._refused.isdisjoint(full(key) for key in keys)

    def refuse(
        self,
        key: str,
        *,
        expected: str,
        example: Value = "",
        remedy: Remedy | None = None,
        given: str | None = None,
    ) -> None:
        """Refuses a key. `example` is another value of it; `remedy` may change another key."""
        if given is None:
            value = self._config.get(full(key))
            given = "nothing" if value is None or value == "" else shown(value)
        remedy = remedy or Set(key, example)
        self._refused.add(full(key))
        self.refusals.append(Refusal(key=full(key), given=given, expected=expected, remedy=remedy))


def check_together(
    settings: Settings, config: Mapping[str, Any], *, refused: Iterable[str]
) -> list[Refusal]:
    """Returns the refusals between settings, except of keys that are already refused."""
    rules = Rules(config, refused)
    _check_names(rules, settings)
    _check_image(rules, settings)
    _check_github(rules, settings)
    _check_kms_key(rules, settings)
    _check_logins(rules, settings)
    _check_google_sign_in(rules, settings)
    _check_access(rules, settings.access)
    _check_database(rules, settings)
    _check_existing(rules, settings)
    _check_network(rules, settings)
    _check_load_balancer(rules, settings)
    _check_service(rules, settings.service)
    _check_processes(rules, settings)
    _check_connections(rules, settings)
    _check_alerts(rules, settings)
    return rules.refusals


def _check_names(rules: Rules, settings: Settings) -> None:
    """Checks that the names made from `name` fit Google's limits."""
    if not rules.ok("name"):
        return
    name = settings.name
    account = account_id(name)
    if len(account) > ACCOUNT_ID_MAX:
        rules.refuse(
            "name",
            expected=f"at most {ACCOUNT_ID_MAX - len(account_id(''))} characters: the service "
            f"account's name, {account}, has {len(account)}, and Google allows {ACCOUNT_ID_MAX}",
            example="mlflow",
        )
    if settings.project and not settings.existing_bucket and rules.ok("existingBucket"):
        _check_bucket_name(rules, settings.project, name)


def _check_bucket_name(rules: Rules, project: str, name: str) -> None:
    bucket = f"{bucket_prefix(project, name)}-{'x' * 2 * SUFFIX_BYTES}"
    if len(bucket) > BUCKET_NAME_MAX:
        rules.refuse(
            "name",
            expected=f"at most {len(name) - len(bucket) + BUCKET_NAME_MAX} characters: the "
            f"bucket's name, {bucket}, has {len(bucket)}, and Google allows {BUCKET_NAME_MAX}",
            example="mlflow",
        )
    if LIKE_GOOGLE.search(project):
        rules.refuse(
            "existingBucket",
            expected=f"a bucket that you created: a new one would be named {bucket}, and Cloud "
            "Storage refuses names that contain google or look like it",
            example="my-artifacts",
        )
    elif LIKE_GOOGLE.search(bucket):
        rules.refuse(
            "name",
            expected=f"a different name: the bucket's name would be {bucket}, and Cloud Storage "
            "refuses names that contain google or look like it",
            example="mlflow",
        )


def _check_image(rules: Rules, settings: Settings) -> None:
    own = f"{settings.region}-docker.pkg.dev/{settings.project}/{settings.name}/"
    if (settings.image or "").startswith(own) and rules.ok("gcp:region", "gcp:project", "name"):
        rules.refuse(
            "image",
            expected=f"an image outside {own}, the stack's own repository, which `pulumi up` "
            "deletes once image is set: copy it to another repository first",
            example=f"{settings.region}-docker.pkg.dev/{settings.project}/my-images/"
            "server@sha256:...",
        )
    if settings.image and settings.builder == "cloud-build" and rules.ok("image", "builder"):
        rules.refuse(
            "builder",
            expected="no builder together with a ready image: remove image or builder",
            remedy=Remove("builder"),
        )


def _check_kms_key(rules: Rules, settings: Settings) -> None:
    """Checks the key's location: Google's services require a key where the data is."""
    key = KMS_KEY.fullmatch(settings.kms_key or "")
    if not key or not rules.ok("gcp:region"):
        return
    region = settings.region
    if key["location"] != region:
        rules.refuse(
            "kmsKey",
            expected=f"a key in {region}, the stack's region: this key is in {key['location']}",
            example=f"projects/{key['project']}/locations/{region}/keyRings/my-ring/cryptoKeys/mlflow",
        )
    elif settings.bucket_location != region.upper():
        rules.refuse(
            "bucketLocation",
            expected=f"none together with kmsKey: the key is in {region}, and a bucket requires a "
            "key in its own location",
            remedy=Remove("bucketLocation"),
        )


def _check_access(rules: Rules, access: AccessSettings) -> None:
    """Refuses settings that `access` would ignore: users would believe that they apply."""
    if not rules.ok("access"):
        return
    named = access.mode in {"iam", "iap"}
    if access.mode != "public" and access.public_through == "invokerIamDisabled":
        rules.refuse(
            "publicThrough",
            expected=f"none: it only applies to access public, and access is {access.mode}",
            remedy=Remove("publicThrough"),
        )
    if named and not access.invokers and rules.ok("invokers"):
        rules.refuse(
            "invokers",
            expected=f"at least one invoker: access {access.mode} lets in only the invokers",
            remedy=Set("invokers", ("user:ada@example.com",)),
        )
    if access.invokers and not named:
        everyone = "in the VPC" if access.mode == "internal" else "on the internet"
        rules.refuse(
            "invokers",
            expected=f"none: invokers only apply to access iam and iap, and access {access.mode} "
            f"lets in everyone {everyone}",
            remedy=Remove("invokers"),
        )


def _check_logins(rules: Rules, settings: Settings) -> None:
    for key, given in (
        ("viewerPassword", settings.viewer_password is not None),
        ("viewerPasswordVersion", settings.viewer_password_version > 1),
        ("viewerPasswordSecret", settings.viewer_password_secret is not None),
    ):
        if given and not settings.viewer_username and rules.ok("viewerUsername"):
            rules.refuse(
                "viewerUsername",
                given="none",
                expected=f"the viewer's username, because {key} is set",
                example="viewer",
            )
    for who, login, previous in (
        ("tracking", settings.tracking, settings.previous_tracking_password),
        ("viewer", settings.viewer, settings.previous_viewer_password),
    ):
        generated = login and login.password is None and login.password_secret is None
        if previous and not generated:
            rules.refuse(
                f"previous{who.title()}Password",
                expected="none: only a password that the stack generates has a previous version",
                remedy=Remove(f"previous{who.title()}Password"),
            )
        if login and login.password is not None and login.password_version > 1:
            rules.refuse(
                f"{who}PasswordVersion",
                expected=f"none together with {who}Password: only a generated password has "
                f"versions; to change yours, set a new {who}Password",
                remedy=Remove(f"{who}PasswordVersion"),
            )
        if login:
            _check_password_secret(rules, who, login, project=settings.project, name=settings.name)
    viewers = settings.viewer.password_secret if settings.viewer else None
    if viewers and _secret_of(viewers) == _secret_of(settings.tracking.password_secret):
        rules.refuse(
            "viewerPasswordSecret",
            expected="a different secret than trackingPasswordSecret: otherwise the viewer knows "
            "the password of a user with all rights",
            example=f"projects/{settings.project}/secrets/viewer-password/versions/1",
        )
    if settings.viewer and settings.viewer.username == settings.tracking.username:
        rules.refuse(
            "viewerUsername",
            expected="a different name than trackingUsername: the username tells the two users "
            "apart",
            example="viewer",
        )


def _check_google_sign_in(rules: Rules, settings: Settings) -> None:
    """Refuses settings for people whom Google signs in, where Google doesn't."""
    for key, given in (
        ("accountsAdministrators", settings.service.administrators),
        ("accountsDomains", settings.service.domains),
    ):
        if not given or not rules.ok(key, "access", "accounts"):
            continue
        if settings.access.mode != "iap":
            rules.refuse(
                key,
                expected=f"none: with access {settings.access.mode}, people log in with passwords; "
                "only with access iap does Google sign them in",
                remedy=Remove(key),
            )
        elif not settings.service.accounts:
            rules.refuse(
                key,
                expected="accounts, which it is for, to be switched on as well",
                remedy=Set("accounts", True),
            )


def _secret_of(version: str | None) -> str | None:
    return version.partition("/versions/")[0] if version else None


def _check_password_secret(
    rules: Rules, who: str, login: Login, *, project: str, name: str
) -> None:
    given = SECRET_VERSION.fullmatch(login.password_secret or "")
    if not given:
        return
    key = f"{who}PasswordSecret"
    for other, own in (
        (f"{who}Password", login.password is not None),
        (f"{who}PasswordVersion", login.password_version > 1),
    ):
        if own:
            rules.refuse(
                key,
                expected=f"none together with {other}, which is for a password that the stack "
                "stores: remove one of the two",
                remedy=Remove(other),
            )
    if given["project"] != project and rules.ok("gcp:project"):
        rules.refuse(
            key,
            expected=f"a secret in the stack's project, {project}: the server reads no secrets of "
            "other projects",
            example=f"projects/{project}/secrets/{given['secret']}/versions/1",
        )
    if given["secret"] in {secret_id(name, what) for what in SECRETS} and rules.ok("name"):
        rules.refuse(
            key,
            expected=f"a secret that you created: {given['secret']} belongs to the stack, which "
            "deletes it once this setting is used; copy the password to a secret of your own first",
            example=f"projects/{project}/secrets/my-password/versions/1",
        )


def _check_database(rules: Rules, settings: Settings) -> None:
    database = settings.database
    # An existing instance has its own edition; `databaseTier` then only says how many connections
    # it accepts.
    if rules.ok("databaseTier", "databaseEdition") and not database.existing_instance:
        tier = tiers.require(database.tier)
        if tier.edition != database.edition:
            rules.refuse(
                "databaseEdition",
                expected=f"{tier.edition}, the edition of databaseTier {database.tier}",
                example=tier.edition,
            )
    if (
        rules.ok("databaseDiskGb", "databaseDiskLimitGb")
        and database.disk_limit_gb < database.disk_gb
    ):
        rules.refuse(
            "databaseDiskLimitGb",
            expected=f"at least {database.disk_gb}, which is databaseDiskGb",
            example=database.disk_gb * 2,
        )


def _check_existing(rules: Rules, settings: Settings) -> None:
    """Refuses settings of an existing instance or bucket, which the stack doesn't change."""
    instance, bucket = settings.database.existing_instance, settings.existing_bucket
    # An existing instance may have its address in an existing network.
    own = tuple(key for key in OF_AN_INSTANCE if key != "network" or not settings.existing_network)
    found, defaults = values(settings), values(Settings())
    for existing, given, keys in (
        ("existingDatabaseInstance", instance, own),
        ("existingBucket", bucket, OF_A_BUCKET),
    ):
        for key in keys if given else ():
            if found[key] != defaults[key] and rules.ok(key):
                rules.refuse(
                    key,
                    expected=f"none together with {existing}, which the stack doesn't change",
                    remedy=Remove(key),
                )
    name = INSTANCE.fullmatch(instance or "")
    if name and name["project"] != settings.project:
        rules.refuse(
            "existingDatabaseInstance",
            expected=f"an instance in the stack's project, {settings.project}",
            example=f"{settings.project}:{settings.region}:my-instance",
        )


def _check_network(rules: Rules, settings: Settings) -> None:
    network = settings.existing_network
    if network and not settings.private_network and rules.ok("network"):
        rules.refuse(
            "existingNetwork",
            expected="none unless network is private: a public database isn't in a network",
            remedy=Set("network", "private"),
        )
    subnetwork = SUBNETWORK.fullmatch(settings.existing_subnetwork or "")
    if not subnetwork or not rules.ok("existingNetwork"):
        return
    if not network:
        rules.refuse(
            "existingSubnetwork",
            expected="no subnetwork without existingNetwork, the network that it is part of",
            remedy=Set("existingNetwork", "my-network"),
        )
        return
    host, region = network.project, settings.region
    elsewhere = (subnetwork["project"], subnetwork["region"]) not in {(None, None), (host, region)}
    if elsewhere and rules.ok("gcp:region"):
        rules.refuse(
            "existingSubnetwork",
            expected=f"a subnetwork in {region}, the server's region, and in {host}, the project "
            "of existingNetwork",
            example=f"projects/{host}/regions/{region}/subnetworks/{subnetwork['name']}",
        )


def _check_load_balancer(rules: Rules, settings: Settings) -> None:
    balancer = settings.load_balancer
    if settings.rate_limit and not balancer and rules.ok("loadBalancer"):
        rules.refuse(
            "rateLimit",
            expected="no limit without loadBalancer, which counts the requests",
            remedy=Set("loadBalancer", True),
        )
    if not balancer:
        return
    if not 0 < len(balancer.domains) <= MAX_CERTIFICATES and rules.ok("customDomains"):
        rules.refuse(
            "customDomains",
            expected=f"1 to {MAX_CERTIFICATES} domains with loadBalancer: the first is the "
            "server's address, and each has a certificate",
            remedy=Set("customDomains", ("mlflow.example.com",)),
        )
    if settings.access.mode == "internal":
        rules.refuse(
            "loadBalancer",
            expected="false: a load balancer serves the internet, from which access internal "
            "refuses callers",
            example=False,
        )


def _check_github(rules: Rules, settings: Settings) -> None:
    name, number = settings.github_repository, settings.github_repository_id
    if name and not number and rules.ok("githubRepositoryId"):
        rules.refuse(
            "githubRepositoryId",
            expected=f"GitHub's number for {name}: someone else could own the name one day",
            example=Command(f"gh api repos/{name} --jq .id"),
        )
    for key, given in (("githubRepositoryId", number), ("githubReview", settings.github_review)):
        if given and not name and rules.ok("githubRepository"):
            rules.refuse(
                key,
                expected=f"no {key} without githubRepository: set githubRepository or remove this",
                remedy=Remove(key),
            )


def _check_service(rules: Rules, service: ServiceSettings) -> None:
    if service.jobs and service.accounts and rules.ok("jobs", "accounts"):
        rules.refuse(
            "jobs",
            expected="false together with accounts: a job reads as the server, which doesn't check "
            "what the person who started it may read",
            remedy=Remove("jobs"),
        )
    if rules.ok("minInstances", "maxInstances") and service.min_instances > service.max_instances:
        rules.refuse(
            "minInstances",
            expected=f"at most {service.max_instances}, which is maxInstances",
            example=service.max_instances,
        )
    if rules.ok("memory", "cpu"):
        low, high = MEMORY_OF_CPU[service.cpu]
        if not low <= mebibytes(service.memory) <= high:
            rules.refuse(
                "memory",
                expected=f"{low}Mi to {high}Mi with cpu {service.cpu}, or another cpu "
                f"({'; '.join(f'cpu {c}: {a}Mi-{b}Mi' for c, (a, b) in MEMORY_OF_CPU.items())})",
                example="1Gi" if service.cpu <= 2 else f"{low}Mi",
            )


def _check_processes(rules: Rules, settings: Settings) -> None:
    """Checks that each process gets enough connections; each CPU has one process."""
    if not rules.ok("cpu", "databaseConnections"):
        return
    cpus = settings.service.cpu
    least = CONNECTIONS_PER_PROCESS * cpus
    if settings.database.connections < least:
        rules.refuse(
            "databaseConnections",
            expected=f"at least {least}: cpu {cpus} starts {cpus} processes, and each needs "
            f"{CONNECTIONS_PER_PROCESS} connections, which one request may use",
            example=2 * least,
        )


def _check_connections(rules: Rules, settings: Settings) -> None:
    """Checks that the pools of all instances together fit what the tier accepts.

    `maxInstances` limits all revisions together (the service's `scaling`), so a rollout only needs
    connections for the boot of the new revision. Cloud Run may exceed the limit for a moment, but
    pools open connections only as requests need them, so full pools are the worst case.
    """
    if not rules.ok("databaseTier", "maxInstances", "databaseConnections", "cpu", "jobs"):
        return
    instances = settings.service.max_instances
    each = settings.database.connections
    limit = tiers.require(settings.database.tier).max_connections
    others = dict(RESERVED_CONNECTIONS)
    if settings.upkeep.wanted:
        others["the upkeep job"] = UPKEEP_CONNECTIONS
    if settings.service.jobs:
        others["the worker of jobs"] = WORKER_CONNECTIONS
    reserved = sum(others.values())
    room = limit - reserved
    least = CONNECTIONS_PER_PROCESS * settings.service.cpu
    if instances * each <= room:
        return
    kept = ", ".join(f"{count} for {what}" for what, count in others.items())
    tier = tiers.smallest_for(instances * each + reserved)
    possible = [
        remedy
        for remedy, enough in (
            (Set("databaseConnections", room // instances), room >= instances * least),
            (Set("maxInstances", room // each), room >= each),
            (Set("databaseTier", tier or LARGEST), tier),
        )
        if enough
    ] or [Set("maxInstances", room // least) if room >= least else Set("databaseTier", LARGEST)]
    rules.refuse(
        "databaseConnections",
        given=f"maxInstances {instances} x databaseConnections {each} = {instances * each}",
        expected=f"at most {room}: {settings.database.tier} accepts {limit} connections, less "
        f"{reserved} ({kept}); set "
        f"{' or '.join(f'{remedy.key} {remedy.value}' for remedy in possible)}",
        remedy=possible[0],
    )


def _check_alerts(rules: Rules, settings: Settings) -> None:
    alerts = settings.alerts
    for key, value in (
        ("uptimeCheck", alerts.uptime_check),
        ("monthlyBudget", alerts.monthly_budget),
    ):
        if value and not alerts.email and rules.ok("alertEmail"):
            rules.refuse(
                key,
                expected=f"no {key} without alertEmail, the address that gets the messages",
                remedy=Set("alertEmail", "oncall@example.com"),
            )
    if alerts.monthly_budget and not alerts.billing_account and rules.ok("billingAccount"):
        rules.refuse(
            "billingAccount",
            expected="with monthlyBudget, the billing account that pays for the project, as "
            "`gcloud billing accounts list` shows it",
            example="012345-6789AB-CDEF01",
        )
    if alerts.billing_account and not alerts.monthly_budget and rules.ok("monthlyBudget"):
        rules.refuse(
            "monthlyBudget",
            expected="an amount of at least 1, because billingAccount is set, which only a budget "
            "needs",
            example=50,
        )
    if alerts.uptime_check and settings.access.mode != "public" and rules.ok("access"):
        rules.refuse(
            "uptimeCheck",
            expected="false: Google's check comes from the internet without logging in, and access "
            f"{settings.access.mode} refuses it",
            example=False,
        )
