"""The stack's settings: typed, frozen, and checked whole before the first resource exists.

`Pulumi.yaml` describes each key; the defaults there and here are the same. Limits are
Google's, as of 2026-11; each table says where it is from.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import config as pulumi_config

from . import tiers
from .names import (
    ACCOUNT_ID_MAX,
    BUCKET_NAME_MAX,
    SUFFIX_BYTES,
    account_id,
    bucket_prefix,
)
from .reader import HOSTNAME, Problem, Reader, SettingsError, full
from .regions import MULTI_REGIONS, REGIONS

# https://cloud.google.com/run/docs/configuring/services/memory-limits: MiB for each CPU count.
# Less than one CPU allows one request at a time, less than 512 MiB does not hold MLflow.
MEMORY_OF_CPU = {
    1: (512, 4096),
    2: (512, 8192),
    4: (2048, 16384),
    6: (4096, 24576),
    8: (4096, 32768),
}

# Connections that are not for requests: what PostgreSQL keeps for superusers by default
# (https://www.postgresql.org/docs/17/runtime-config-connection.html), a few for Cloud SQL's own
# agents (our estimate, it publishes none), and those with which a new revision's first instance
# checks the schema while the old revision still serves.
RESERVED_CONNECTIONS = {
    "superuser_reserved_connections": 3,
    "Cloud SQL's agents": 3,
    "a new revision that boots": 2,
}

# What one request of MLflow's may hold at a time; the server refuses less. One process serves
# each CPU.
CONNECTIONS_PER_PROCESS = 4

EMAIL = re.compile(rf"[\w.%+-]+@{HOSTNAME.pattern}", re.ASCII)
BILLING_ACCOUNT = re.compile(r"[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}")

# What NIST asks of a password that is all there is to log in with:
# https://pages.nist.gov/800-63-4/sp800-63b.html#passwordver
PASSWORD_MIN = 15
MAX_VERSION = 10_000

# What is only set on an instance, or a bucket, that is made here.
OF_AN_INSTANCE = (
    "network",
    "databaseVersion",
    "databaseEdition",
    "databaseDiskGb",
    "databaseDiskLimitGb",
    "databaseAvailability",
    "backupRetention",
    "readReplica",
)
OF_A_BUCKET = ("bucketLocation", "bucketForceDestroy")

PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
MEMORY = re.compile(r"([1-9]\d*)(Mi|Gi)")
# https://cloud.google.com/kms/docs/getting-resource-ids
KMS_KEY = re.compile(
    rf"projects/(?P<project>{PROJECT.pattern})/locations/(?P<location>[a-z0-9-]+)"
    r"/keyRings/[\w-]{1,63}/cryptoKeys/[\w-]{1,63}",
    re.ASCII,
)
INSTANCE = re.compile(rf"(?P<project>{PROJECT.pattern}):[a-z0-9-]+:[a-z][a-z0-9-]{{0,96}}[a-z0-9]")
# https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions
SECRET_VERSION = re.compile(
    rf"projects/(?P<project>{PROJECT.pattern})/secrets/(?P<secret>[A-Za-z0-9_-]{{1,255}})"
    r"/versions/[1-9][0-9]*"
)
# https://cloud.google.com/compute/docs/naming-resources
_COMPUTE_NAME = r"(?P<name>[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)"
NETWORK = re.compile(
    rf"(?:projects/(?P<project>{PROJECT.pattern})/global/networks/)?{_COMPUTE_NAME}"
)
SUBNETWORK = re.compile(
    rf"(?:projects/(?P<project>{PROJECT.pattern})/regions/(?P<region>[a-z0-9-]+)/subnetworks/)?"
    rf"{_COMPUTE_NAME}"
)
# https://cloud.google.com/storage/docs/buckets#naming
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
# Of one HTTPS proxy: https://cloud.google.com/load-balancing/docs/quotas#ssl_certificates
MAX_CERTIFICATES = 15
# https://cloud.google.com/armor/docs/rate-limiting-overview#throttle-traffic; MLflow's page alone
# asks for some dozens of files at a time.
RATE_LIMITS = (100, 1_000_000)
# https://docs.github.com/en/rest/repos/repos: an owner has no two hyphens beside each other.
GITHUB_REPOSITORY = re.compile(
    r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}"
)
# The registries that Cloud Run pulls from; others go through a remote repository.
IMAGE = re.compile(
    r"(?:[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io|docker\.io)"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+"
    r"(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    # The connection name of an instance that was there before; None: one is made.
    existing_instance: str | None
    version: int
    tier: str
    edition: str
    disk_gb: int
    disk_limit_gb: int
    availability: str
    connections: int
    password_version: int
    backup_retention: int
    # Whether the viewer reads from a read replica.
    replica: bool


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    mode: str
    public_through: str
    invokers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    artifacts: str
    memory: str
    cpu: int
    concurrency: int
    min_instances: int
    max_instances: int
    request_timeout: int
    custom_domains: tuple[str, ...]
    telemetry: bool


@dataclass(frozen=True, kw_only=True)
class LoadBalancerSettings:
    # Each has a certificate; the first is the server's address.
    domains: tuple[str, ...]
    # Requests a minute from one address; 0: as many as it likes.
    rate_limit: int


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    # Empty: nobody is told of anything, and nothing that watches is made.
    email: str
    uptime_check: bool
    # In the billing account's currency; 0: no budget.
    monthly_budget: int
    billing_account: str


@dataclass(frozen=True, kw_only=True)
class Login:
    username: str
    # None: one is generated.
    password: pulumi.Input[str] | None = field(repr=False)
    password_version: int
    # The full name of a secret's version that was there before and has it; None: one is made.
    password_secret: str | None


@dataclass(frozen=True, kw_only=True)
class ExistingNetwork:
    """A VPC that was there before; another project's is a Shared VPC."""

    project: str
    name: str
    subnetwork: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    project: str
    region: str
    name: str
    tracking: Login
    # Who may only look, if anybody.
    viewer: Login | None
    encryption_key_version: int
    # None: it is built.
    image: str | None
    builder: str
    # Whose workflow may deploy, if anybody's.
    github_repository: str | None
    # A bucket that was there before; None: one is made.
    existing_bucket: str | None
    bucket_location: str
    bucket_force_destroy: bool
    deletion_protection: bool
    # Whether the database has an address in a network, and no public one.
    private_network: bool
    # None: the network is the stack's own.
    existing_network: ExistingNetwork | None
    # None: Google's own keys.
    kms_key: str | None
    access: AccessSettings
    database: DatabaseSettings
    service: ServiceSettings
    # None: callers come to Cloud Run's own address.
    load_balancer: LoadBalancerSettings | None
    alerts: AlertSettings


def stack_config() -> dict[str, str]:
    """The whole configuration as the engine hands it over, keys with their namespace."""
    return {**pulumi_config.get_config_env(), **pulumi_config.CONFIG.get()}


def load(
    config: Mapping[str, Any], *, is_secret: Callable[[str], bool] = pulumi_config.is_config_secret
) -> Settings:
    """Reads and checks everything; raises one `SettingsError` with all that is wrong."""
    read = Reader(config)
    project, region = _project(read), _region(read)
    settings = Settings(
        project=project,
        region=region,
        name=read.text(
            "name",
            "mlflow",
            valid=NAME.fullmatch,
            wanted="lower-case letters, digits and hyphens, starting with a letter and not "
            "ending with a hyphen",
            example="mlflow",
        ),
        tracking=_login(read, "tracking", "mlflow", is_secret),
        viewer=_viewer(read, is_secret),
        encryption_key_version=_version(read, "encryptionKeyVersion"),
        image=read.text(
            "image",
            "",
            valid=lambda image: IMAGE.fullmatch(image) and re.search(r"[:@]", image),
            wanted="an image with its digest or tag, in Artifact Registry, gcr.io or docker.io "
            "(what Cloud Run pulls from), or none: then it is built",
            example="us-central1-docker.pkg.dev/my-project/mlflow/server@sha256:...",
        )
        or None,
        builder=read.choice("builder", ["docker", "cloud-build"]),
        github_repository=read.text(
            "githubRepository",
            "",
            valid=GITHUB_REPOSITORY.fullmatch,
            wanted="owner/name of a repository on GitHub, spelt as GitHub spells it, or none: then "
            "nothing deploys from there",
            example="my-org/mlflow-gcp",
        )
        or None,
        existing_bucket=read.text(
            "existingBucket",
            "",
            valid=BUCKET.fullmatch,
            wanted="the name of a bucket, without gs://, or none: then one is made",
            example="my-artifacts",
        )
        or None,
        bucket_location=_bucket_location(read, region),
        bucket_force_destroy=read.boolean("bucketForceDestroy", False),
        deletion_protection=read.boolean("deletionProtection", True),
        private_network=read.choice("network", ["public", "private"]) == "private",
        existing_network=_existing_network(read, project, region),
        kms_key=_kms_key(read) or None,
        access=_access(read),
        database=_database(read),
        service=_service(read),
        load_balancer=_load_balancer(read),
        alerts=_alerts(read),
    )
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
    read.refuse_unknown()
    if read.problems:
        raise SettingsError(read.problems)
    return settings


def _project(read: Reader) -> str:
    key = "gcp:project"
    wanted = (
        "the id of a Google Cloud project: 6 to 30 lower-case letters, digits and hyphens, "
        "starting with a letter and not ending with a hyphen (the id, not the name or number)"
    )
    project = read.text(key, "", valid=PROJECT.fullmatch, wanted=wanted, example="my-project")
    if not project and read.ok(key):
        read.problem(key, wanted=wanted, example="my-project")
    return project


def _region(read: Reader) -> str:
    key, default = "gcp:region", "us-central1"
    region = read.text(key, default)
    if region in REGIONS:
        return region
    close = difflib.get_close_matches(region, REGIONS, n=3)
    read.problem(
        key,
        wanted=f"a region of Cloud Run; close to it: {', '.join(close)}"
        if close
        else "a region of Cloud Run: https://cloud.google.com/run/docs/locations",
        example=close[0] if close else default,
    )
    return default


def _login(read: Reader, who: str, default: str, is_secret: Callable[[str], bool]) -> Login:
    return Login(
        username=read.text(
            f"{who}Username",
            default,
            valid=lambda name: name.isprintable() and name == name.strip() and ":" not in name,
            wanted="printable characters without a colon, which ends the name in HTTP Basic, "
            "and without spaces around them",
            example=default or who,
            # What follows a colon may be a password.
            show=lambda name: f"{name.partition(':')[0]}:..." if ":" in name else name,
        ),
        password=_password(read, f"{who}Password", is_secret),
        password_version=_version(read, f"{who}PasswordVersion"),
        password_secret=read.text(
            f"{who}PasswordSecret",
            "",
            valid=SECRET_VERSION.fullmatch,
            wanted="the full name of a version of a secret, by the project's id and with the "
            "version's number, or none: then the stack makes a secret",
            example="projects/my-project/secrets/my-password/versions/1",
            # Somebody may take it for the password's own place.
            show=lambda name: name if name.startswith("projects/") else "(hidden)",
        )
        or None,
    )


def _viewer(read: Reader, is_secret: Callable[[str], bool]) -> Login | None:
    login = _login(read, "viewer", "", is_secret)
    if login.username or not read.ok("viewerUsername"):
        return login
    for key, given in (
        ("viewerPassword", login.password is not None),
        ("viewerPasswordVersion", login.password_version > 1),
        ("viewerPasswordSecret", login.password_secret is not None),
    ):
        if given:
            read.problem(
                full("viewerUsername"),
                given="none",
                wanted=f"with {key} the name of the viewer that it is for",
                example="viewer",
            )
    return None


def _password(
    read: Reader, name: str, is_secret: Callable[[str], bool]
) -> pulumi.Input[str] | None:
    key = full(name)
    example = f"pulumi config set --secret {name} 'a phrase that nobody guesses'"
    wanted = (
        f"at least {PASSWORD_MIN} printable characters without spaces or a line end around them, "
        "or none: then one is generated"
    )

    def checked(word: str) -> str:
        """As soon as it is known, which is before anything gets it."""
        if not _is_password(word):
            hidden = Problem(key=key, given="(hidden)", wanted=wanted, example=example)
            raise SettingsError([hidden])
        return word

    if (later := read.output(key)) is not None:
        secret: pulumi.Output[str] = pulumi.Output.secret(later)
        return secret.apply(checked)
    password = read.text(
        key, "", valid=_is_password, wanted=wanted, example=example, show=lambda _: "(hidden)"
    )
    # Pulumi.yaml can't ask for it: `secret: true` there holds for the empty default too.
    if password and not is_secret(key):
        read.problem(
            key,
            given="(hidden), in plain text, as the stack's file now has it",
            wanted="a new one, set with --secret: the file is there to be committed",
            example=example,
        )
    return password or None


def _is_password(word: str) -> bool:
    return len(word) >= PASSWORD_MIN and word.isprintable() and word == word.strip()


def _version(read: Reader, key: str) -> int:
    """Of something generated: one more, and it is generated anew."""
    return read.integer(key, 1, low=1, high=MAX_VERSION)


def _bucket_location(read: Reader, region: str) -> str:
    """Upper case, as Google answers, so that no difference shows."""
    location = read.text(
        "bucketLocation",
        "",
        valid=lambda place: place.upper() in MULTI_REGIONS or place.lower() in REGIONS,
        wanted=f"a region, or one of {', '.join(MULTI_REGIONS)}, or none: then the stack's region",
        example="EU",
    )
    return (location or region).upper()


def _kms_key(read: Reader) -> str:
    return read.text(
        "kmsKey",
        "",
        valid=KMS_KEY.fullmatch,
        wanted="the full name of a key in Cloud KMS, not of a version of it, or none: then Google "
        "encrypts with keys of its own; `gcloud kms keys list` shows it",
        example="projects/my-project/locations/us-central1/keyRings/my-ring/cryptoKeys/mlflow",
    )


def _existing_network(read: Reader, project: str, region: str) -> ExistingNetwork | None:
    network = NETWORK.fullmatch(
        read.text(
            "existingNetwork",
            "",
            valid=NETWORK.fullmatch,
            wanted="the name of a VPC network of the project, or the full name of one, which may "
            "be another project's Shared VPC, or none: then one is made",
            example="projects/my-project/global/networks/my-network",
        )
    )
    subnetwork = SUBNETWORK.fullmatch(
        read.text(
            "existingSubnetwork",
            "",
            valid=SUBNETWORK.fullmatch,
            wanted="the name of a subnetwork of existingNetwork, or its full name, or none: then "
            "the one that is called what the network is",
            example=f"projects/my-project/regions/{region}/subnetworks/my-subnetwork",
        )
    )
    if subnetwork and not network and read.ok("existingNetwork"):
        read.problem(
            full("existingSubnetwork"),
            wanted="with it existingNetwork, which it is part of",
            example="pulumi config set existingNetwork my-network",
        )
    if not network:
        return None
    host = network["project"] or project
    if subnetwork and subnetwork["project"]:
        theirs, there = subnetwork["project"], subnetwork["region"]
        if (theirs, there) != (host, region) and read.ok("gcp:region"):
            read.problem(
                full("existingSubnetwork"),
                wanted=f"a subnetwork in {region}, where the server is, and of the project "
                f"{host}, as existingNetwork is",
                example=f"projects/{host}/regions/{region}/subnetworks/{subnetwork['name']}",
            )
    return ExistingNetwork(
        project=host,
        name=network["name"],
        subnetwork=subnetwork["name"] if subnetwork else network["name"],
    )


def _access(read: Reader) -> AccessSettings:
    return AccessSettings(
        mode=read.choice("access", ["public", "internal", "iam", "iap"]),
        public_through=read.choice("publicThrough", ["allUsers", "invokerIamDisabled"]),
        invokers=read.members("invokers"),
    )


def _database(read: Reader) -> DatabaseSettings:
    return DatabaseSettings(
        existing_instance=read.text(
            "existingDatabaseInstance",
            "",
            valid=INSTANCE.fullmatch,
            wanted="the connection name of a Cloud SQL instance, as `gcloud sql instances describe "
            "NAME --format 'value(connectionName)'` shows it, or none: then one is made",
            example="my-project:us-central1:my-instance",
        )
        or None,
        version=read.integer("databaseVersion", 17, low=15, high=18, unit=", PostgreSQL's major"),
        tier=read.text(
            "databaseTier",
            "db-f1-micro",
            valid=tiers.parse,
            wanted=tiers.WANTED,
            example="db-custom-1-3840",
        ),
        edition=read.choice("databaseEdition", ["ENTERPRISE", "ENTERPRISE_PLUS"]),
        disk_gb=read.integer("databaseDiskGb", 10, low=10, high=65536, unit=" GB"),
        disk_limit_gb=read.integer("databaseDiskLimitGb", 100, low=10, high=65536, unit=" GB"),
        availability=read.choice("databaseAvailability", ["ZONAL", "REGIONAL"]),
        connections=read.integer("databaseConnections", 8, low=CONNECTIONS_PER_PROCESS, high=200),
        password_version=_version(read, "databasePasswordVersion"),
        backup_retention=read.integer("backupRetention", 7, low=1, high=365, unit=" backups"),
        replica=read.boolean("readReplica", False),
    )


def _service(read: Reader) -> ServiceSettings:
    return ServiceSettings(
        artifacts=read.choice("artifacts", ["proxied", "direct"]),
        memory=read.text(
            "memory",
            "1Gi",
            valid=MEMORY.fullmatch,
            wanted="a whole number of Mi or Gi",
            example="1Gi",
        ),
        cpu=int(
            read.text(
                "cpu",
                "1",
                valid=lambda cpu: cpu in {str(count) for count in MEMORY_OF_CPU},
                wanted=f"one of {', '.join(str(count) for count in MEMORY_OF_CPU)}",
                example="1",
            )
        ),
        concurrency=read.integer("concurrency", 80, low=1, high=1000, unit=" requests"),
        min_instances=read.integer("minInstances", 0, low=0, high=1000),
        max_instances=read.integer("maxInstances", 2, low=1, high=1000),
        request_timeout=read.integer("requestTimeout", 3600, low=1, high=3600, unit=" seconds"),
        custom_domains=read.hostnames("customDomains"),
        telemetry=read.boolean("mlflowTelemetry", False),
    )


def _load_balancer(read: Reader) -> LoadBalancerSettings | None:
    low, high = RATE_LIMITS
    wanted = read.boolean("loadBalancer", False)
    # The service's too, and refused there.
    domains = read.hostnames("customDomains") if read.ok("customDomains") else ()
    rate_limit = read.integer("rateLimit", 0, low=0, high=high, unit=" requests a minute")
    if 0 < rate_limit < low:
        read.problem(
            full("rateLimit"),
            wanted=f"0, which is no limit, or at least {low}: MLflow's page asks for dozens of "
            "files at a time",
            example="6000",
        )
    if rate_limit and not wanted and read.ok("loadBalancer", "rateLimit"):
        read.problem(
            full("rateLimit"),
            wanted="with it loadBalancer, which counts the requests",
            example="pulumi config set loadBalancer true",
        )
    if not wanted:
        return None
    return LoadBalancerSettings(
        domains=tuple(dict.fromkeys(domains)),
        rate_limit=rate_limit,
    )


def _alerts(read: Reader) -> AlertSettings:
    return AlertSettings(
        email=read.text(
            "alertEmail",
            "",
            valid=EMAIL.fullmatch,
            wanted="one e-mail address, or none: then nothing watches",
            example="oncall@example.com",
        ),
        uptime_check=read.boolean("uptimeCheck", False),
        monthly_budget=read.integer("monthlyBudget", 0, low=0, high=100_000_000),
        billing_account=read.text(
            "billingAccount",
            "",
            valid=BILLING_ACCOUNT.fullmatch,
            wanted="the id of a billing account, three times six hexadecimal digits in upper case; "
            "`gcloud billing accounts list` shows it",
            example="012345-6789AB-CDEF01",
        ),
    )


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
            _check_password_secret(read, settings.project, who, login)
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


def _check_password_secret(read: Reader, project: str, who: str, login: Login) -> None:
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


def _check_database(read: Reader, settings: Settings) -> None:
    database = settings.database
    alone = not settings.viewer and not database.existing_instance
    if database.replica and alone and read.ok("viewerUsername"):
        read.problem(
            full("readReplica"),
            wanted="with it viewerUsername: nobody else reads from it, as who writes would miss "
            "what is not there yet",
            example="pulumi config set viewerUsername viewer",
        )
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


def mebibytes(memory: str) -> int:
    """`1Gi` -> 1024."""
    match = MEMORY.fullmatch(memory)
    if not match:
        raise ValueError(f"not a memory size: {memory}")
    return int(match[1]) * (1024 if match[2] == "Gi" else 1)
