"""The stack's settings: accepted values, refused values, and the text of a refusal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pytest
import yaml

from infra.facts import tiers
from infra.facts.limits import CONNECTIONS_PER_PROCESS, mebibytes
from infra.settings.reader import load
from infra.settings.refusals import Refusal, SettingsError, command_line
from tests.infra.declared import ROOT

Config = Mapping[str, Any]

NAMED = {"gcp:project": "my-project"}
# A part of every secret below.
CANARY = "canary"
PHRASE = f"{CANARY} horse battery"
KEY = "projects/my-keys/locations/us-central1/keyRings/ring/cryptoKeys/mlflow_1"
ADA = '["user:ada@example.com"]'
NETWORK = "projects/my-project/global/networks/my-network"
SUBNETWORK = "projects/my-project/regions/us-central1/subnetworks/my-subnetwork"
SECRET = "projects/my-project/secrets/my-password/versions/1"
PREVIOUS = "1 until 2026-12-01T12:00:00Z"
SHARED, DOMAINS = "my-project:us-central1:shared", '["mlflow.example.com"]'
EMAIL, PAYER = "oncall+mlflow@example.com", "012345-6789AB-CDEF01"
DIGEST = "0" * 64

IAM, IAP = ({"access": mode, "invokers": ADA} for mode in ("iam", "iap"))
SIGNED_IN = {**IAP, "accounts": "true"}
BALANCER = {"loadBalancer": "true", "customDomains": DOMAINS}
BUDGET = {"monthlyBudget": 50, "billingAccount": PAYER, "alertEmail": EMAIL}
WATCHED = {"uptimeCheck": "true", "alertEmail": EMAIL}
PRIVATE = {"network": "private"}
REPOSITORY = {"githubRepository": "my-org/mlflow-gcp", "githubRepositoryId": 74}
VIEWER = {"viewerUsername": "viewer"}
PLUS = {"databaseEdition": "ENTERPRISE_PLUS"}
# A tier that accepts 1000 connections, and one instance of the server.
LARGE = {"databaseTier": "db-custom-20-122880"}
ALONE = {"maxInstances": 1}


def named(key: str) -> str:
    return key if ":" in key else f"mlflow-gcp:{key}"


def full(config: Config) -> dict[str, Any]:
    """Returns the configuration with a project, and its keys with their namespace."""
    return NAMED | {named(key): value for key, value in config.items()}


def loaded(**settings: Any) -> Any:
    return load(full(settings), is_secret=lambda _: True)


def refusals(config: Config, *, secret: bool = True) -> Sequence[Refusal]:
    """Returns what is wrong. `secret`: whether passwords were set with --secret."""
    try:
        load(config, is_secret=lambda _: secret)
    except SettingsError as error:
        return error.refusals
    return ()


def without(config: Config, key: str) -> Config:
    return {name: value for name, value in config.items() if name != key}


def names(count: int) -> list[str]:
    return [f"ml{number}.example.com" for number in range(count)]


@dataclass(frozen=True)
class Limit:
    """The last value of a setting that is accepted, and the first that is refused."""

    key: str
    accepted: Any
    refused: Any
    # Other settings that are set as well.
    beside: Config = field(default_factory=dict)
    # A part of the refusal; a limit that is a number is always a part of it.
    says: str = ""
    # The value as the refusal shows it. None: as it was given.
    given: str | None = None


LIMITS = [
    Limit("gcp:project", "p" * 6, "p" * 5, says="6 to 30"),
    Limit("gcp:project", "p" * 30, "p" * 31, says="6 to 30"),
    Limit("name", "n" * 23, "n" * 24, says="at most 23"),
    # The bucket's name contains both.
    Limit("name", "n" * 15, "n" * 16, {"gcp:project": "p" * 30}, says="at most 15"),
    Limit("trackingPassword", PHRASE[:15], PHRASE[:14], says="15"),
    Limit("viewerPassword", PHRASE[:15], PHRASE[:14], VIEWER, says="15"),
    *(
        limit
        for key, beside in {
            "trackingPasswordVersion": {},
            "viewerPasswordVersion": VIEWER,
            "databasePasswordVersion": {},
            "encryptionKeyVersion": {},
        }.items()
        for limit in (Limit(key, 1, 0, beside), Limit(key, 10_000, 10_001, beside))
    ),
    *(
        limit
        for key in ("cleanupAfterDays", "archiveTracesAfterDays")
        for limit in (Limit(key, 1, -1), Limit(key, 3650, 3651))
    ),
    Limit("trackingPasswordSecret", SECRET, SECRET.replace("/1", "/0")),
    Limit(
        "trackingPasswordSecret",
        SECRET.replace("my-password", "s" * 255),
        SECRET.replace("my-password", "s" * 256),
    ),
    Limit("image", f"docker.io/p/s:{'t' * 128}", f"docker.io/p/s:{'t' * 129}"),
    Limit("image", f"docker.io/p/s@sha256:{DIGEST}", f"docker.io/p/s@sha256:{DIGEST[1:]}"),
    Limit("githubRepository", f"{'o' * 39}/r", f"{'o' * 40}/r", {"githubRepositoryId": 74}),
    Limit("githubRepository", f"o/{'r' * 100}", f"o/{'r' * 101}", {"githubRepositoryId": 74}),
    Limit("githubRepositoryId", 1, 0, REPOSITORY, says="my-org/mlflow-gcp"),
    Limit("githubRepositoryId", 2**53, 2**53 + 1, REPOSITORY),
    Limit("existingBucket", "b" * 3, "b" * 2),
    Limit("existingBucket", "b" * 63, "b" * 64),
    Limit("kmsKey", KEY.replace("/ring/", f"/{'r' * 63}/"), KEY.replace("/ring/", f"/{'r' * 64}/")),
    Limit("kmsKey", KEY.replace("mlflow_1", "k" * 63), KEY.replace("mlflow_1", "k" * 64)),
    Limit("existingNetwork", "nn", "n-", PRIVATE),
    Limit("existingNetwork", "n" * 63, "n" * 64, PRIVATE),
    Limit("existingSubnetwork", "s" * 63, "s" * 64, PRIVATE | {"existingNetwork": NETWORK}),
    Limit("existingDatabaseInstance", "my-project:us-central1:ii", "my-project:us-central1:i"),
    Limit("existingDatabaseInstance", f"my-project:europe-west1:{'i' * 98}", SHARED + "i" * 93),
    Limit("databaseVersion", 15, 14),
    Limit("databaseVersion", 18, 19),
    # One CPU has 3.75 to 6.5 GiB; more have 0.9 GiB each, which is a multiple of 256 MiB with 10.
    Limit("databaseTier", "db-custom-1-3840", "db-custom-1-3584", says="at least 3840"),
    Limit("databaseTier", "db-custom-1-6656", "db-custom-1-6912", says="6.5 GiB"),
    Limit("databaseTier", "db-custom-10-9216", "db-custom-10-8960", says="0.9"),
    Limit("databaseTier", "db-custom-96-638976", "db-custom-96-639232", says="6.5 GiB"),
    Limit("databaseTier", "db-custom-96-98304", "db-custom-98-98304", says="96"),
    Limit("databaseTier", "db-custom-2-7680", "db-custom-2-7681", says="a multiple of 256"),
    Limit("databaseDiskGb", 10, 9),
    Limit("databaseDiskGb", 65536, 65537, {"databaseDiskLimitGb": 65536}),
    Limit("databaseDiskLimitGb", 10, 9, says="10 to 65536"),
    Limit("databaseDiskLimitGb", 65536, 65537),
    Limit("databaseDiskLimitGb", 20, 19, {"databaseDiskGb": 20}),
    Limit("backupRetention", 1, 0),
    Limit("backupRetention", 365, 366),
    # The server's processes need four each.
    Limit("databaseConnections", 4, 3),
    Limit("databaseConnections", 8, 7, {"cpu": 2, **LARGE}),
    Limit("databaseConnections", 16, 15, {"cpu": 4, "memory": "4Gi", **LARGE}),
    Limit("databaseConnections", 24, 23, {"cpu": 6, "memory": "4Gi", **LARGE}),
    Limit("databaseConnections", 32, 31, {"cpu": 8, "memory": "4Gi", **LARGE}),
    Limit("databaseConnections", 200, 201, LARGE),
    # All instances together may have as many as the tier accepts, less 8.
    *(
        Limit(
            "databaseConnections",
            room // instances,
            room // instances + 1,
            beside,
            says=f"{room}",
            given="maxInstances",
        )
        for room, instances, beside in (
            (17, 1, ALONE),
            (17, 2, {}),
            (42, 1, {"databaseTier": "db-g1-small", **ALONE}),
            (92, 1, {"databaseTier": "db-custom-1-3840", **ALONE}),
            (192, 1, {"databaseTier": "db-custom-1-6144", **ALONE}),
            (992, 124, LARGE | {"maxInstances": 124}),
        )
    ),
    *(
        limit
        for cpu, low, high in (
            (1, 512, 4096),
            (2, 512, 8192),
            (4, 2048, 16384),
            (6, 4096, 24576),
            (8, 4096, 32768),
        )
        for beside in [{"cpu": cpu, "databaseConnections": 32, **LARGE}]
        for limit in (
            Limit("memory", f"{low}Mi", f"{low - 1}Mi", beside, says=f"{low}Mi to {high}Mi"),
            Limit("memory", f"{high // 1024}Gi", f"{high + 1}Mi", beside, says=f"cpu {cpu}"),
        )
    ),
    Limit("concurrency", 1, 0),
    Limit("concurrency", 1000, 1001),
    Limit("minInstances", 0, -1),
    Limit("minInstances", 2, 3),
    Limit("minInstances", 1, 2, ALONE, says="maxInstances"),
    Limit("maxInstances", 1, 0),
    Limit("requestTimeout", 1, 0),
    Limit("requestTimeout", 3600, 3601),
    Limit("customDomains", ["a.bc"], ["a.b"]),
    Limit("customDomains", [f"{'d' * 63}.example.com"], [f"{'d' * 64}.example.com"]),
    Limit("customDomains", ["a." * 125 + "com"], ["a." * 125 + "info"]),
    Limit("customDomains", names(15), names(16), BALANCER, says="1 to 15"),
    Limit("customDomains", names(1), [], BALANCER, says="1 to 15"),
    Limit("internalNetworks", ["0.0.0.0/8"], ["0.0.0.0/0"]),
    Limit("internalNetworks", ["10.0.0.0/8"], ["10.0.0.0/7"]),
    Limit("internalNetworks", ["172.16.0.0/12"], ["172.16.0.0/11"]),
    Limit("internalNetworks", ["192.168.0.0/16"], ["192.168.0.0/15"]),
    Limit("internalNetworks", ["fc00::/7"], ["fc00::/6"]),
    Limit("internalNetworks", ["10.8.0.7/32"], ["10.8.0.7"]),
    Limit("rateLimit", 0, -1, BALANCER),
    Limit("rateLimit", 0, 1, BALANCER, says="100"),
    Limit("rateLimit", 100, 99, BALANCER),
    Limit("rateLimit", 1_000_000, 1_000_001, BALANCER),
    Limit("monthlyBudget", 1, -1, BUDGET),
    Limit("monthlyBudget", 1, 0, BUDGET),
]

# Other settings at the edge of what is accepted.
ACCEPTED: list[Config] = [
    {"gcp:region": "europe-west1"},
    {"gcp:zone": "us-central1-a", "docker:host": "a key of another package"},
    {"gcp:project": "my-project-1", "name": "a"},
    {"name": "googly"},
    {"trackingUsername": "ada lovelace"},
    {"trackingPassword": ""},
    {**VIEWER, "viewerPassword": PHRASE},
    {**VIEWER, "previousViewerPassword": PREVIOUS, "viewerPasswordVersion": 2},
    {"previousTrackingPassword": PREVIOUS},
    {
        **VIEWER,
        "trackingPasswordSecret": SECRET,
        "viewerPasswordSecret": SECRET.replace("my-password", "viewers"),
    },
    {"image": f"europe-docker.pkg.dev/p/r/s:1@sha256:{DIGEST}"},
    {"image": "gcr.io/p/s:1", "builder": "docker"},
    {"image": "us-central1-docker.pkg.dev/my-project/mlflow-images/server:1"},
    {"builder": "cloud-build"},
    {**REPOSITORY, "githubReview": "true"},
    {"githubRepository": "a-b/...", "githubRepositoryId": 74},
    *({"bucketLocation": place} for place in ("eu", "NAM4", "europe-west1")),
    {"existingBucket": "my_artifacts.example.com", "bucketForceDestroy": "false"},
    {"kmsKey": KEY, "bucketLocation": "us-central1"},
    {**PRIVATE, "existingNetwork": NETWORK.replace("my-project", "host-project")},
    {**PRIVATE, "existingNetwork": NETWORK, "existingSubnetwork": SUBNETWORK},
    # Settings of an existing instance may be given if they are the default; its tier always may.
    {"existingDatabaseInstance": SHARED, "databaseVersion": 17, "databaseDiskGb": 10},
    {"existingDatabaseInstance": SHARED, "maxInstances": 20, "databaseTier": "db-custom-2-7680"},
    {"existingDatabaseInstance": SHARED, "databaseTier": "db-perf-optimized-N-2"},
    {"existingDatabaseInstance": SHARED, **PRIVATE, "existingNetwork": NETWORK},
    *(
        {**PLUS, "databaseTier": f"db-perf-optimized-N-{cpus}"}
        for cpus in (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)
    ),
    {**LARGE, "maxInstances": 248, "databaseConnections": 4},
    {"memory": "1024Mi", "cpu": "1", "maxInstances": " 2 "},
    {"customDomains": "[]", "internalNetworks": "[]", "invokers": "[]"},
    {"internalNetworks": ["10.8.0.0/24", "fd00::/8"]},
    {"deletionProtection": "FALSE", "mlflowTelemetry": True},
    {"access": "internal", "publicThrough": "allUsers"},
    {"publicThrough": "invokerIamDisabled"},
    IAM,
    {**IAP, **BALANCER},
    {
        **SIGNED_IN,
        "accountsAdministrators": ["Ada@Example.com"],
        "accountsDomains": ["example.com", "my-project.iam.gserviceaccount.com"],
    },
    {**WATCHED, **BUDGET, "monthlyBudget": 100_000_000},
    {**IAM, **BUDGET, "uptimeCheck": "false"},
]

# Settings without which the example of a refused value isn't enough.
NEEDED: Mapping[str, Config] = {
    "invokers": {"access": "iam"},
    "viewerPassword": VIEWER,
    "githubRepository": {"githubRepositoryId": 74},
    "githubRepositoryId": {"githubRepository": "my-org/mlflow-gcp"},
    "existingNetwork": PRIVATE,
    "existingSubnetwork": {**PRIVATE, "existingNetwork": "my-network"},
    "billingAccount": BUDGET,
    "monthlyBudget": BUDGET,
    "accountsAdministrators": SIGNED_IN,
    "accountsDomains": SIGNED_IN,
}

# Values that are refused whatever else is set.
VALUES: Mapping[str, Sequence[Any]] = {
    "gcp:project": ["", "My-Project", "1-project", "ends-with-", "123456789012"],
    "gcp:region": ["us-central1-a"],
    "name": ["MLflow", "1st", "ml-", "ml_flow"],
    "artifacts": ["both"],
    "access": ["private"],
    "publicThrough": ["everyone"],
    "trackingUsername": [" mlflow", "ml\nflow"],
    "trackingPassword": [CANARY, f"{PHRASE}\n", f" {PHRASE}"],
    "viewerPassword": [CANARY],
    "trackingPasswordSecret": [
        "projects/my-project/secrets/my-password",
        SECRET.replace("my-project", "123456789012"),
        SECRET.replace("/1", "/latest"),
    ],
    "previousTrackingPassword": [
        "1",
        "0 until 2026-12-01T12:00:00Z",
        "1 until 2026-13-01T12:00:00Z",
    ],
    "image": ["us-docker.pkg.dev/p/r/server", "ghcr.io/owner/server:1", "not an image:1"],
    "builder": ["podman"],
    "githubRepository": ["https://github.com/o/r", "o", "o/r/s", "o--o/r", "-o/r", "o/..", "o/."],
    "githubRepositoryId": [-1],
    "existingBucket": ["gs://my-artifacts", "My-Artifacts"],
    "bucketLocation": ["moon"],
    "kmsKey": [
        "mlflow",
        f"{KEY}/cryptoKeyVersions/1",
        f"//cloudkms.googleapis.com/{KEY}",
        f"{KEY}\n",
    ],
    "network": ["internal"],
    "invokers": [
        "user:ada@example.com",
        '["ada@example.com"]',
        '["user:ada"]',
        '["user:a@b@example.com"]',
        '["domain:ada@example.com"]',
        '["User:ada@example.com"]',
        '["principalSet://iam.googleapis.com/x"]',
        '["allUsers"]',
        '["allAuthenticatedUsers"]',
        '["user:ada@example.com", "allUsers"]',
        "[1]",
    ],
    "existingNetwork": ["My-Network", "projects/p/global/networks/n", f"{NETWORK}/"],
    "existingSubnetwork": ["My-Subnetwork", f"{SUBNETWORK}\n"],
    "existingDatabaseInstance": ["shared", "my-project:us-central1:Shared"],
    "databaseVersion": ["17.2"],
    "databaseTier": [
        "db-f1-mikro",
        "db-custom-3-7680",
        "db-custom-1-3840-HIGHMEM",
        "db-perf-optimized-N-1",
        "db-perf-optimized-N-129",
    ],
    "databaseEdition": ["PLUS"],
    "databaseAvailability": ["GLOBAL"],
    "memory": ["1G", "1.5Gi", "0Gi", "[]", []],
    "cpu": ["0", "3", "5", "7", "9", "0.5"],
    "maxInstances": ["many", "true", {"a": 1}, "9" * 5000],
    "customDomains": [
        "mlflow.example.com",
        '{"a": "b.com"}',
        '["https://a.example.com"]',
        '["a.example.com:8080"]',
        '["*.example.com"]',
        '["*"]',
        '["a.example.com,evil.com"]',
        "[1]",
    ],
    "internalNetworks": [
        "10.8.0.0/24",
        '["10.8.0.1/24"]',
        '["127.0.0.0/8"]',
        '["169.254.0.0/16"]',
        '["8.8.8.0/24"]',
        '["::1/128"]',
        '["llm.internal"]',
    ],
    "deletionProtection": ["yes"],
    "bucketForceDestroy": ["1"],
    "accounts": ["yes"],
    "accountsDefaultPermission": ["ADMIN", "read", "USE"],
    "accountsAdministrators": ["ada@example.com", '["ada"]', '["user:ada@example.com"]'],
    "accountsDomains": ["example.com", '["@example.com"]', '["GMail.com"]', '["*"]'],
    "mlflowTelemetry": ["off"],
    "loadBalancer": ["yes"],
    "uptimeCheck": ["yes"],
    "alertEmail": [
        "oncall",
        "on call@example.com",
        "a@example.com,b@example.com",
        "Ada <ada@example.com>",
        "ada@example.com\n",
        "ada@localhost",
    ],
    "monthlyBudget": ["49.90", 100_000_001],
    "billingAccount": ["012345-678901-cdef01", f"billingAccounts/{PAYER}"],
}


@dataclass(frozen=True)
class Refused:
    """A configuration with one problem. `says` are parts of what the refusal wants instead."""

    config: Config
    key: str
    says: tuple[str, ...] = ()
    # None: the key's value.
    given: str | None = None
    # Whether passwords were set with --secret.
    secret: bool = True
    # The key that is refused after what the example corrects, if there is one.
    then: str = ""


def row(config: Config, key: str, *says: str, **how: Any) -> Refused:
    return Refused(config, key, says, **how)


UNKNOWN = "an unknown setting"

REFUSED = [
    *(
        row({**NEEDED.get(key, {}), key: value}, key)
        for key, values in VALUES.items()
        for value in values
    ),
    *(
        row(
            {**limit.beside, limit.key: limit.refused},
            limit.key,
            limit.says or (str(limit.accepted) if isinstance(limit.accepted, int) else ""),
            given=limit.given,
        )
        for limit in LIMITS
    ),
    row({"gcp:region": "us-centrall1"}, "gcp:region", "us-central1"),
    row({"gcp:region": "mars"}, "gcp:region", "https://cloud.google.com/run/docs/locations"),
    row(
        {"gcp:region": "us-centrall1", "kmsKey": KEY.replace("central", "east")},
        "gcp:region",
        then="kmsKey",
    ),
    # The bucket's name starts with the project's, and mustn't start with goog.
    row({"gcp:project": "goog-project"}, "existingBucket", "goog-project-mlflow-artifacts"),
    row({"name": "my-google-ml"}, "name", "my-project-my-google-ml-artifacts"),
    row({"name": "g0og1e"}, "name", "my-project-g0og1e-artifacts"),
    # A password may follow the colon, or be in the place of the secret's name.
    row({"trackingUsername": f"ml:{CANARY}"}, "trackingUsername", "colon", given="ml:..."),
    row({"viewerUsername": f"view:{CANARY}"}, "viewerUsername", "colon", given="view:..."),
    row({"trackingPasswordSecret": PHRASE}, "trackingPasswordSecret", given="(hidden)"),
    row(
        {"trackingPassword": PHRASE},
        "trackingPassword",
        "--secret",
        given="(hidden), in plain text",
        secret=False,
    ),
    row(
        {"trackingPassword": PHRASE, "trackingPasswordVersion": "2"},
        "trackingPasswordVersion",
        "trackingPassword",
    ),
    *(
        row({"trackingPasswordSecret": SECRET, key: value}, "trackingPasswordSecret", key)
        for key, value in (("trackingPassword", PHRASE), ("trackingPasswordVersion", 2))
    ),
    row(
        {"trackingPasswordSecret": SECRET.replace("my-project", "other-project")},
        "trackingPasswordSecret",
        "my-project",
    ),
    *(
        row({key: value}, "viewerUsername", key, given="none")
        for key, value in (
            ("viewerPassword", PHRASE),
            ("viewerPasswordVersion", "2"),
            ("viewerPasswordSecret", SECRET),
        )
    ),
    row({"previousViewerPassword": PREVIOUS}, "previousViewerPassword"),
    row(
        {"previousTrackingPassword": PREVIOUS, "trackingPassword": PHRASE},
        "previousTrackingPassword",
    ),
    row(
        {"previousTrackingPassword": PREVIOUS, "trackingPasswordSecret": SECRET},
        "previousTrackingPassword",
        given=PREVIOUS,
    ),
    row({"viewerUsername": "mlflow"}, "viewerUsername", "trackingUsername"),
    row(
        {
            **VIEWER,
            "trackingPasswordSecret": SECRET,
            "viewerPasswordSecret": SECRET.replace("/1", "/2"),
        },
        "viewerPasswordSecret",
        "trackingPasswordSecret",
    ),
    *(
        row({**VIEWER, key: SECRET.replace("my-password", own)}, key, own)
        for key, own in (
            ("trackingPasswordSecret", "mlflow_tracking_password"),
            ("viewerPasswordSecret", "mlflow_tracking_password"),
            ("viewerPasswordSecret", "mlflow_kek_passphrase"),
        )
    ),
    row(
        {"image": "us-central1-docker.pkg.dev/my-project/mlflow/server:1"},
        "image",
        "my-project/mlflow/",
    ),
    row({"image": "gcr.io/p/s:1", "builder": "cloud-build"}, "builder", "image"),
    row({"githubRepository": "my-org/my-repo"}, "githubRepositoryId", "my-org/my-repo"),
    row({"githubRepositoryId": 74}, "githubRepositoryId", "githubRepository"),
    row({"githubReview": "true"}, "githubReview", "githubRepository"),
    row({"kmsKey": KEY.replace("us-central1", "us-east1")}, "kmsKey", "us-central1", "us-east1"),
    row({"kmsKey": KEY.replace("us-central1", "global")}, "kmsKey", "us-central1", "global"),
    row({"kmsKey": KEY, "bucketLocation": "US"}, "bucketLocation", "kmsKey", "us-central1"),
    row(
        {**PRIVATE, "existingSubnetwork": "my-subnetwork"}, "existingSubnetwork", "existingNetwork"
    ),
    row({"existingNetwork": NETWORK}, "existingNetwork", "network", "private"),
    *(
        row(
            {
                **PRIVATE,
                "existingNetwork": NETWORK,
                "existingSubnetwork": SUBNETWORK.replace(there, elsewhere),
            },
            "existingSubnetwork",
            there,
        )
        for there, elsewhere in (("us-central1", "us-east1"), ("my-project", "other-project"))
    ),
    row({"access": "iam"}, "invokers", "iam"),
    row({"access": "iap", "invokers": "[]"}, "invokers", "iap"),
    row({"invokers": ADA}, "invokers", "public", "internet"),
    row({"access": "internal", "invokers": ADA}, "invokers", "internal", "VPC"),
    *(
        row({**access, "publicThrough": "invokerIamDisabled"}, "publicThrough", access["access"])
        for access in (IAM, IAP, {"access": "internal"})
    ),
    *(
        row({**config, key: value}, key, says)
        for key, value in (
            ("accountsAdministrators", '["ada@example.com"]'),
            ("accountsDomains", '["example.com"]'),
        )
        for config, says in (
            (IAP, "accounts"),
            ({"accounts": "true"}, "access iap"),
            ({**IAM, "accounts": "true"}, "access iap"),
        )
    ),
    row(
        {"existingDatabaseInstance": "other-project:us-central1:shared"},
        "existingDatabaseInstance",
        "my-project",
    ),
    *(
        row({"existingDatabaseInstance": SHARED, key: value}, key, "existingDatabaseInstance")
        for key, value in (
            ("network", "private"),
            ("databaseVersion", 18),
            ("databaseEdition", "ENTERPRISE_PLUS"),
            ("databaseDiskGb", 20),
            ("databaseDiskLimitGb", 50),
            ("databaseAvailability", "REGIONAL"),
            ("backupRetention", 3),
        )
    ),
    *(
        row({"existingBucket": "my-artifacts", key: value}, key, "existingBucket")
        for key, value in (("bucketLocation", "EU"), ("bucketForceDestroy", "true"))
    ),
    row({"minInstances": 1000}, "minInstances", "maxInstances"),
    row({"minInstances": 1001}, "minInstances", "0 to 1000"),
    row({"maxInstances": 1001}, "maxInstances", "1 to 1000"),
    row(PLUS, "databaseEdition", "ENTERPRISE"),
    row({"databaseTier": "db-perf-optimized-N-2"}, "databaseEdition", "ENTERPRISE_PLUS"),
    row({"databaseDiskGb": 200}, "databaseDiskLimitGb", "200"),
    # Of these neither memory nor the connections of all instances are checked as well.
    row({"cpu": "3", "memory": "9Gi"}, "cpu", then="memory"),
    row(
        {"databaseTier": "db-huge", "maxInstances": 20}, "databaseTier", then="databaseConnections"
    ),
    row({"cpu": 4, "memory": "4Gi", **LARGE}, "databaseConnections", "16"),
    row(
        {"maxInstances": 3},
        "databaseConnections",
        *("17", "maxInstances 2", "databaseConnections 5", "db-g1-small"),
        given="maxInstances 3 x databaseConnections 8 = 24",
    ),
    row({"jobs": "true"}, "databaseConnections", "databaseConnections 5", given="max"),
    row({"jobs": "true", "accounts": "true"}, "jobs", "accounts"),
    # Each way out is named where it is just enough.
    row({**ALONE, "databaseConnections": 42}, "databaseConnections", "db-g1-small", given="max"),
    row({"databaseConnections": 17}, "databaseConnections", "maxInstances 1", given="max"),
    row(
        {"maxInstances": 23, "databaseTier": "db-custom-1-3840"},
        "databaseConnections",
        "databaseConnections 4",
        given="max",
    ),
    row(
        {"existingDatabaseInstance": SHARED, "maxInstances": 4},
        "databaseConnections",
        given="maxInstances 4 x databaseConnections 8 = 32",
    ),
    row({"loadBalancer": "true"}, "customDomains", "loadBalancer", "15"),
    row({**BALANCER, "access": "internal"}, "loadBalancer", "internal"),
    row({"rateLimit": 6000, "customDomains": DOMAINS}, "rateLimit", "loadBalancer"),
    row({"uptimeCheck": "true"}, "uptimeCheck", "alertEmail"),
    *(
        row({**access, **WATCHED}, "uptimeCheck", access["access"])
        for access in (IAM, IAP, {"access": "internal"})
    ),
    row(without(BUDGET, "alertEmail"), "monthlyBudget", "alertEmail"),
    row(without(BUDGET, "billingAccount"), "billingAccount", "monthlyBudget"),
    row(without(BUDGET, "monthlyBudget"), "monthlyBudget", "billingAccount", "1"),
    row({"maxInstance": 3}, "maxInstance", "maxInstances", "docs/settings.md", given=UNKNOWN),
    row({"colour": "blue"}, "colour", "docs/settings.md", given=UNKNOWN),
    row({"trakingPassword": CANARY}, "trakingPassword", "trackingPassword", given=UNKNOWN),
    row(
        {"readReplica": "true"}, "readReplica", "docs/traps.md", given="a setting that was removed"
    ),
]


def shown(row: Refused) -> str:
    """Returns how a refusal shows the value of the row's key; of a long one, its start."""
    if row.key in ("trackingPassword", "viewerPassword"):
        return "(hidden)"
    text = str(row.config.get(row.key, ""))
    return (text if text.isprintable() else repr(text))[:200] or "nothing"


def corrected(config: dict[str, Any], example: str) -> dict[str, Any]:
    """Returns the configuration after the command that a refusal shows as its example."""
    pulumi, config_, verb, *options = shlex.split(example.replace("sha256:...", f"sha256:{DIGEST}"))
    assert (pulumi, config_) == ("pulumi", "config")
    if verb == "rm":
        [key] = options
        return {name: value for name, value in config.items() if name != named(key)}
    *options, key, value = options
    assert verb == "set"
    if "--path" in options:
        return config | {named(key.removesuffix("[0]")): [value]}
    # The shell replaces $(gh ...) by what GitHub says.
    return config | {named(key): "74" if value.startswith("$(gh ") else value}


def identifier(case: Refused | Config) -> str:
    config = case.config if isinstance(case, Refused) else case
    return ", ".join(f"{key}={str(value)[:60]}" for key, value in config.items())


@pytest.mark.parametrize("row", REFUSED, ids=identifier)
def test_refused(row: Refused) -> None:
    [refusal] = refusals(full(row.config), secret=row.secret)
    assert refusal.key == named(row.key)
    assert refusal.given.startswith(row.given or shown(row))
    assert refusal.expected
    assert not [part for part in row.says if part not in refusal.expected]
    assert CANARY not in str(refusal)
    # The example is a command after which the configuration is accepted.
    left = refusals(corrected(full(row.config), command_line(refusal.remedy)))
    assert [other.key for other in left] == ([named(row.then)] if row.then else []), left


@pytest.mark.parametrize(
    "config",
    [*ACCEPTED, *({**limit.beside, limit.key: limit.accepted} for limit in LIMITS)],
    ids=identifier,
)
def test_accepted(config: Config) -> None:
    assert not refusals(full(config))


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (
            {"access": "internal", "publicThrough": "invokerIamDisabled", "invokers": ADA},
            ["publicThrough", "invokers"],
        ),
        # With an unknown access, the settings that depend on it aren't judged.
        ({"access": "all", "publicThrough": "invokerIamDisabled", "invokers": ADA}, ["access"]),
        (
            {"access": "iam", "publicThrough": "invokerIamDisabled", "invokers": "ada"},
            ["invokers", "publicThrough"],
        ),
        (
            {"uptimeCheck": "true", "monthlyBudget": 50},
            ["uptimeCheck", "monthlyBudget", "billingAccount"],
        ),
        # An address that is refused isn't missed as well.
        (
            {"uptimeCheck": "true", "monthlyBudget": 50, "alertEmail": "oncall"},
            ["alertEmail", "billingAccount"],
        ),
        ({"minInstances": 1001, "maxInstances": 0}, ["minInstances", "maxInstances"]),
        # One instance less is accepted; no tier accepts more.
        ({**LARGE, "maxInstances": 249, "databaseConnections": 4}, ["databaseConnections"]),
        ({**LARGE, "maxInstances": 1000, "databaseConnections": 4}, ["databaseConnections"]),
    ],
    ids=str,
)
def test_everything_is_refused_at_once_and_once(config: Config, keys: list[str]) -> None:
    assert [refusal.key for refusal in refusals(full(config))] == [named(key) for key in keys]


def test_all_refusals_are_one_error_without_a_secret() -> None:
    config = {
        "gcp:project": "",
        "memory": "tiny",
        "trackingPassword": CANARY,
        "trackingUsername": f"mlflow:{CANARY}",
        "trakingPassword": CANARY,
    }
    with pytest.raises(pulumi.RunError) as error:
        load(full(config))
    first, *lines = str(error.value).splitlines()
    assert first.startswith("5 settings")
    assert [line.strip() for line in lines[::4]] == [
        "gcp:project",
        "mlflow-gcp:trackingUsername",
        "mlflow-gcp:trackingPassword",
        "mlflow-gcp:memory",
        "mlflow-gcp:trakingPassword",
    ]
    assert [line.split()[0] for line in lines[1:4]] == ["given:", "expected:", "example:"]
    assert CANARY not in str(error.value)


def test_an_invoker_is_one_however_it_is_written() -> None:
    given = [
        "user:Ada@Example.com",
        "user:ada@example.com",
        "serviceAccount:ci@my-project.iam.gserviceaccount.com",
        "group:ml@example.com",
        "domain:Example.com",
    ]
    assert loaded(access="iam", invokers=given).access.invokers == (
        "user:ada@example.com",
        "serviceAccount:ci@my-project.iam.gserviceaccount.com",
        "group:ml@example.com",
        "domain:example.com",
    )


def test_the_password_is_not_shown_by_settings() -> None:
    settings = loaded(trackingPassword=PHRASE)
    assert settings.tracking.password == PHRASE
    assert PHRASE not in repr(settings)


def test_an_existing_network_is_one_however_it_is_named() -> None:
    def found(**settings: Any) -> Any:
        return loaded(**PRIVATE, **settings).existing_network

    in_full = found(existingNetwork=NETWORK, existingSubnetwork=SUBNETWORK)
    assert (in_full.project, in_full.name) == ("my-project", "my-network")
    assert in_full.subnetwork == "my-subnetwork"
    assert found(existingNetwork="my-network", existingSubnetwork="my-subnetwork") == in_full
    # As in a network of auto mode.
    assert found(existingNetwork="default").subnetwork == "default"
    shared = found(existingNetwork=NETWORK.replace("my-project", "host-project"))
    assert (shared.project, shared.subnetwork) == ("host-project", "my-network")
    assert found() is None


def test_there_is_a_viewer_where_it_has_a_name() -> None:
    assert loaded().viewer is None
    viewer = loaded(**VIEWER).viewer
    assert (viewer.username, viewer.password) == ("viewer", None)


@pytest.mark.parametrize(
    ("tier", "edition", "connections"),
    [
        ("db-f1-micro", "ENTERPRISE", 25),
        ("db-g1-small", "ENTERPRISE", 50),
        ("db-custom-1-3840", "ENTERPRISE", 100),
        ("db-custom-1-5888", "ENTERPRISE", 100),
        ("db-custom-1-6144", "ENTERPRISE", 200),
        ("db-custom-2-7424", "ENTERPRISE", 200),
        ("db-custom-2-7680", "ENTERPRISE", 400),
        ("db-custom-4-15104", "ENTERPRISE", 400),
        ("db-custom-4-15360", "ENTERPRISE", 500),
        ("db-custom-8-30464", "ENTERPRISE", 500),
        ("db-custom-8-30720", "ENTERPRISE", 600),
        ("db-custom-10-61184", "ENTERPRISE", 600),
        ("db-custom-10-61440", "ENTERPRISE", 800),
        ("db-custom-20-122624", "ENTERPRISE", 800),
        ("db-custom-20-122880", "ENTERPRISE", 1000),
        ("db-perf-optimized-N-2", "ENTERPRISE_PLUS", 500),
        ("db-perf-optimized-N-128", "ENTERPRISE_PLUS", 1000),
    ],
)
def test_tiers(tier: str, edition: str, connections: int) -> None:
    found = tiers.require(tier)
    assert (found.edition, found.max_connections) == (edition, connections)


def test_memory() -> None:
    assert (mebibytes("512Mi"), mebibytes("2Gi")) == (512, 2048)


def test_the_engine_hands_over_the_defaults_as_strings_and_json() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    defaults = {
        key: str(entry["default"]).lower()
        if isinstance(entry["default"], bool)
        else str(entry["default"])
        for key, entry in config.items()
        if ":" not in key
    }
    assert loaded(**defaults) == loaded()


def test_the_dev_stack_is_valid_and_can_be_destroyed() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())["config"]
    settings = load({**NAMED, **{key: str(value) for key, value in config.items()}})
    assert settings.deletion_protection is False
    assert settings.bucket_force_destroy is True


def test_the_server_refuses_what_the_program_refuses() -> None:
    theirs = (ROOT / "image" / "tracking_server" / "boot" / "settings.py").read_text()
    assert f"\nCONNECTIONS_PER_PROCESS = {CONNECTIONS_PER_PROCESS}\n" in theirs
