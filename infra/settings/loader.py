"""Reads and checks the stack's whole configuration before the first resource is created.

`Pulumi.yaml` describes each key; the defaults there and here are the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
from pulumi.runtime import config as pulumi_config

from ..facts import tiers
from ..facts.limits import (
    BILLING_ACCOUNT,
    BUCKET,
    CONNECTIONS_PER_PROCESS,
    EMAIL,
    GITHUB_REPOSITORY,
    IMAGE,
    INSTANCE,
    KMS_KEY,
    MAX_GITHUB_ID,
    MAX_VERSION,
    MEMORY,
    MEMORY_OF_CPU,
    NAME,
    NETWORK,
    PASSWORD_MIN,
    PROJECT,
    RATE_LIMITS,
    SECRET_VERSION,
    SUBNETWORK,
)
from ..facts.regions import MULTI_REGIONS, REGIONS
from .model import (
    AccessSettings,
    AlertSettings,
    DatabaseSettings,
    ExistingNetwork,
    GitHubRepository,
    LoadBalancerSettings,
    Login,
    ServiceSettings,
    Settings,
)
from .reader import Problem, Reader, SettingsError, full
from .rules import check_together


def stack_config() -> dict[str, str]:
    """Returns the whole configuration from Pulumi's engine; each key has its namespace."""
    return {**pulumi_config.get_config_env(), **pulumi_config.CONFIG.get()}


def load(
    config: Mapping[str, Any], *, is_secret: Callable[[str], bool] = pulumi_config.is_config_secret
) -> Settings:
    """Reads and checks all settings; raises one `SettingsError` that lists every problem."""
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
            "(the registries that Cloud Run pulls from), or none to build it from image/",
            example="us-central1-docker.pkg.dev/my-project/mlflow/server@sha256:...",
        )
        or None,
        builder=read.choice("builder", ["docker", "cloud-build"]),
        github=_github(read),
        existing_bucket=read.text(
            "existingBucket",
            "",
            valid=BUCKET.fullmatch,
            wanted="the name of a bucket, without gs://, or none to create one",
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
    check_together(read, settings)
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
        wanted=f"a region of Cloud Run; did you mean {', '.join(close)}?"
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
            wanted="printable characters without spaces around them and without a colon, which "
            "HTTP Basic reads as the end of the name",
            example=default or who,
            # The text after a colon may be a password.
            show=lambda name: f"{name.partition(':')[0]}:..." if ":" in name else name,
        ),
        password=_password(read, f"{who}Password", is_secret),
        password_version=_version(read, f"{who}PasswordVersion"),
        password_secret=read.text(
            f"{who}PasswordSecret",
            "",
            valid=SECRET_VERSION.fullmatch,
            wanted="the full name of a secret version, with the project's id and the version's "
            "number, or none to create a secret",
            example="projects/my-project/secrets/my-password/versions/1",
            # A user may have set the password itself here.
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
                wanted=f"the viewer's username, because {key} is set",
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
        "or none to generate one"
    )

    def checked(word: str) -> str:
        """Checks the password when it becomes known, which is before any resource uses it."""
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
    # Pulumi.yaml can't require a secret: `secret: true` there would refuse the empty default.
    if password and not is_secret(key):
        read.problem(
            key,
            given="(hidden), in plain text in the stack's file",
            wanted="a new password, set with --secret: the stack's file gets committed",
            example=example,
        )
    return password or None


def _is_password(word: str) -> bool:
    return len(word) >= PASSWORD_MIN and word.isprintable() and word == word.strip()


def _version(read: Reader, key: str) -> int:
    """Reads the version of a generated value; a higher version generates a new value."""
    return read.integer(key, 1, low=1, high=MAX_VERSION)


def _github(read: Reader) -> GitHubRepository | None:
    number = read.integer(
        "githubRepositoryId",
        0,
        low=0,
        high=MAX_GITHUB_ID,
        unit=", as GitHub numbers the repository",
        example='"$(gh api repos/my-org/mlflow-gcp --jq .id)"',
    )
    name = read.text(
        "githubRepository",
        "",
        valid=GITHUB_REPOSITORY.fullmatch,
        wanted="owner/name of a repository on GitHub, spelt as GitHub spells it, or none if "
        "GitHub doesn't deploy this stack",
        example="my-org/mlflow-gcp",
    )
    if name and not number and read.ok("githubRepositoryId"):
        read.problem(
            full("githubRepositoryId"),
            wanted=f"GitHub's number for {name}: someone else could own the name one day",
            example=f'"$(gh api repos/{name} --jq .id)"',
        )
    if number and not name and read.ok("githubRepository"):
        read.problem(
            full("githubRepositoryId"),
            wanted="no number without githubRepository: set githubRepository or remove this",
            example="pulumi config rm githubRepositoryId",
        )
    review = read.boolean("githubReview", False)
    if review and not name and read.ok("githubRepository"):
        read.problem(
            full("githubReview"),
            wanted="false without githubRepository: set githubRepository or remove this",
            example="pulumi config rm githubReview",
        )
    return GitHubRepository(name=name, number=number, review=review) if name else None


def _bucket_location(read: Reader, region: str) -> str:
    """Reads the location in upper case, as Google returns it, so that Pulumi shows no change."""
    location = read.text(
        "bucketLocation",
        "",
        valid=lambda place: place.upper() in MULTI_REGIONS or place.lower() in REGIONS,
        wanted=f"a region, one of {', '.join(MULTI_REGIONS)}, or none to use the stack's region",
        example="EU",
    )
    return (location or region).upper()


def _kms_key(read: Reader) -> str:
    return read.text(
        "kmsKey",
        "",
        valid=KMS_KEY.fullmatch,
        wanted="the full name of a key in Cloud KMS, without a version, as `gcloud kms keys list` "
        "shows it, or none to use Google's own keys",
        example="projects/my-project/locations/us-central1/keyRings/my-ring/cryptoKeys/mlflow",
    )


def _existing_network(read: Reader, project: str, region: str) -> ExistingNetwork | None:
    network = NETWORK.fullmatch(
        read.text(
            "existingNetwork",
            "",
            valid=NETWORK.fullmatch,
            wanted="the name of a VPC network in the project, or the full name of one, which may "
            "be another project's Shared VPC, or none to create one",
            example="projects/my-project/global/networks/my-network",
        )
    )
    subnetwork = SUBNETWORK.fullmatch(
        read.text(
            "existingSubnetwork",
            "",
            valid=SUBNETWORK.fullmatch,
            wanted="the name or the full name of a subnetwork of existingNetwork, or none to use "
            "the subnetwork with the network's name",
            example=f"projects/my-project/regions/{region}/subnetworks/my-subnetwork",
        )
    )
    if subnetwork and not network and read.ok("existingNetwork"):
        read.problem(
            full("existingSubnetwork"),
            wanted="no subnetwork without existingNetwork, the network that it is part of",
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
                wanted=f"a subnetwork in {region}, the server's region, and in {host}, the project "
                "of existingNetwork",
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
            "NAME --format 'value(connectionName)'` shows it, or none to create one",
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
        internal_networks=read.private_networks("internalNetworks"),
        telemetry=read.boolean("mlflowTelemetry", False),
    )


def _load_balancer(read: Reader) -> LoadBalancerSettings | None:
    low, high = RATE_LIMITS
    wanted = read.boolean("loadBalancer", False)
    # `_service` has read this key already, and reports what is wrong with it.
    domains = read.hostnames("customDomains") if read.ok("customDomains") else ()
    rate_limit = read.integer("rateLimit", 0, low=0, high=high, unit=" requests a minute")
    if 0 < rate_limit < low:
        read.problem(
            full("rateLimit"),
            wanted=f"0 for no limit, or at least {low}: MLflow's page loads dozens of files at a "
            "time",
            example="6000",
        )
    if rate_limit and not wanted and read.ok("loadBalancer", "rateLimit"):
        read.problem(
            full("rateLimit"),
            wanted="no limit without loadBalancer, which counts the requests",
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
            wanted="one e-mail address, or none for no alerts",
            example="oncall@example.com",
        ),
        uptime_check=read.boolean("uptimeCheck", False),
        monthly_budget=read.integer("monthlyBudget", 0, low=0, high=100_000_000),
        billing_account=read.text(
            "billingAccount",
            "",
            valid=BILLING_ACCOUNT.fullmatch,
            wanted="the id of a billing account, three groups of six hexadecimal digits in upper "
            "case, as `gcloud billing accounts list` shows it",
            example="012345-6789AB-CDEF01",
        ),
    )
