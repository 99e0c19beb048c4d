"""Reads the stack's configuration, once, and checks it whole before the first resource exists.

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
        github=_github(read),
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
        wanted="owner/name of a repository on GitHub, spelt as GitHub spells it, or none: then "
        "nothing deploys from there",
        example="my-org/mlflow-gcp",
    )
    if name and not number and read.ok("githubRepositoryId"):
        read.problem(
            full("githubRepositoryId"),
            wanted=f"the number that GitHub has for {name}, as its name could be another's one day",
            example=f'"$(gh api repos/{name} --jq .id)"',
        )
    if number and not name and read.ok("githubRepository"):
        read.problem(
            full("githubRepositoryId"),
            wanted="nothing without githubRepository, whose number it is",
            example="pulumi config rm githubRepositoryId",
        )
    review = read.boolean("githubReview", False)
    if review and not name and read.ok("githubRepository"):
        read.problem(
            full("githubReview"),
            wanted="false without githubRepository, whose pull requests it is about",
            example="pulumi config rm githubReview",
        )
    return GitHubRepository(name=name, number=number, review=review) if name else None


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
