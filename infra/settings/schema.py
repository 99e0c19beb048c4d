"""The table of all settings: each one's key, kind, default, description, limits and group.

`reader.py` makes a `Settings` from Pulumi's configuration. `make docs` writes Pulumi.yaml, the
arguments of `TrackingServer` and the table of docs/settings.md from this table.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

import pulumi

from ..facts import tiers
from ..facts.limits import (
    BILLING_ACCOUNT,
    BUCKET,
    CONNECTIONS_PER_PROCESS,
    EMAIL,
    GITHUB_REPOSITORY,
    HOSTNAME,
    IMAGE,
    INSTANCE,
    KMS_KEY,
    MAX_DAYS,
    MAX_GITHUB_ID,
    MAX_VERSION,
    MEMBER,
    MEMORY,
    MEMORY_OF_CPU,
    NAME,
    NETWORK,
    PASSWORD_MIN,
    PROJECT,
    RATE_LIMITS,
    SECRET_VERSION,
    SUBNETWORK,
    is_own_domain,
    is_previous_password,
    is_private_network,
    previous_password_until,
)
from ..facts.regions import MULTI_REGIONS, REGIONS
from .kinds import Boolean, Choice, Integer, IntegerChoice, Kind, Password, Text, Texts
from .refusals import Command

FIRST_RELEASE = "1"


class Group(Enum):
    """The groups of settings in docs/settings.md and Pulumi.yaml."""

    PROJECT = "Project"
    ACCESS = "Access"
    LOGIN = "Login"
    DATABASE = "Database"
    NETWORK = "Network"
    SERVER = "Server"
    ARTIFACTS = "Artifacts"
    ALERTS = "Alerts"
    IMAGE = "Image"
    DEPLOYMENT = "Deployment"


class Change(Enum):
    """The effect of a changed setting on a deployed stack, apart from creating and deleting."""

    NOTHING = ""
    REVISION = "new revision"
    # https://cloud.google.com/sql/docs/postgres/instance-settings
    DATABASE = "the database may restart"
    DATA = "replaces what holds data"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting. `key` has its namespace only if it isn't the project's own."""

    key: str
    kind: Kind
    description: str
    group: Group
    change: Change
    # One of the few that most people change.
    common: bool
    required: bool
    # The release that introduced it.
    since: str

    @property
    def is_argument(self) -> bool:
        """Whether `TrackingServer` takes it by its name; the component's own name is `name`."""
        return ":" not in self.key and self.key != "name"

    @property
    def argument(self) -> str:
        """`maxInstances` -> `max_instances`, the argument of `TrackingServer`."""
        return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", self.key)


def _setting(
    key: str,
    kind: Kind,
    description: str,
    *,
    group: Group,
    change: Change = Change.NOTHING,
    common: bool = False,
    required: bool = False,
    since: str = FIRST_RELEASE,
) -> Any:
    setting = Setting(
        key=key,
        kind=kind,
        description=description,
        group=group,
        change=change,
        common=common,
        required=required,
        since=since,
    )
    shown = not isinstance(kind, Password)
    return field(default=kind.default, repr=shown, metadata={"setting": setting})


def _is_password(word: str) -> bool:
    return len(word) >= PASSWORD_MIN and word.isprintable() and word == word.strip()


def _closest_regions(region: str) -> tuple[str, str]:
    close = difflib.get_close_matches(region, REGIONS, n=3)
    if close:
        return f"a region of Cloud Run; did you mean {', '.join(close)}?", close[0]
    return "a region of Cloud Run: https://cloud.google.com/run/docs/locations", "us-central1"


def _lower_name(member: str) -> str:
    """`user:Ada@Example.com` -> `user:ada@example.com`"""
    kind, _, name = member.partition(":")
    return f"{kind}:{name.lower()}"


def _username(default: str | None, example: str) -> Text:
    return Text(
        default=default,
        valid=lambda name: name.isprintable() and name == name.strip() and ":" not in name,
        expected="printable characters without spaces around them and without a colon, which "
        "HTTP Basic reads as the end of the name",
        example=example,
        # The text after a colon may be a password.
        show=lambda name: f"{name.partition(':')[0]}:..." if ":" in name else name,
    )


_PASSWORD = Password(
    default=None,
    valid=_is_password,
    expected=f"at least {PASSWORD_MIN} printable characters without spaces or a line end around "
    "them, or none to generate one",
    example="a phrase that nobody guesses",
)
_PASSWORD_SECRET = Text(
    default=None,
    valid=SECRET_VERSION.fullmatch,
    expected="the full name of a secret version, with the project's id and the version's "
    "number, or none to create a secret",
    example="projects/my-project/secrets/my-password/versions/1",
    # A user may have set the password itself here.
    show=lambda name: name if name.startswith("projects/") else "(hidden)",
)
_PREVIOUS_PASSWORD = Text(
    default=None,
    valid=is_previous_password,
    expected="the version of the previous password and the time until which it is accepted too, "
    "or none",
    example="1 until 2026-12-01T12:00:00Z",
)
# A higher version generates a new value.
_VERSION = Integer(default=1, low=1, high=MAX_VERSION)


@dataclass(frozen=True, kw_only=True)
class Login:
    """A user's login."""

    username: str
    # None: the stack generates one.
    password: pulumi.Input[str] | None = field(repr=False)
    password_version: int
    # The full name of an existing secret version that holds the password; None: the stack
    # creates a secret.
    password_secret: str | None
    # The time until which the previous password is accepted too; None: it isn't.
    previous_until: str | None


@dataclass(frozen=True, kw_only=True)
class ExistingNetwork:
    """An existing VPC network; another project's network is a Shared VPC."""

    project: str
    name: str
    subnetwork: str


@dataclass(frozen=True, kw_only=True)
class GitHubRepository:
    """A repository by its name, owner/name, and its number.

    The name may belong to someone else one day; the number never does.
    """

    name: str
    number: int
    # Whether its pull requests are previewed.
    review: bool


@dataclass(frozen=True, kw_only=True)
class LoadBalancerSettings:
    """A load balancer in front of the server."""

    # Each has a certificate; the first is the server's address.
    domains: tuple[str, ...]
    # Requests a minute from one address; 0: no limit.
    rate_limit: int


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    mode: str = _setting(
        "access",
        Choice(choices=("public", "internal", "iam", "iap")),
        "The callers that reach the server, which then asks them for the password. `public`: "
        "anyone on the internet. `internal`: anyone in the project's VPC networks. `iam`: the "
        "invokers, with an ID token. `iap`: the invokers, through Identity-Aware Proxy, with a "
        "Google login.",
        group=Group.ACCESS,
        change=Change.REVISION,
        common=True,
    )
    invokers: tuple[str, ...] = _setting(
        "invokers",
        Texts(
            valid=MEMBER.fullmatch,
            expected="a list of user:, group: or serviceAccount: with an e-mail address, or "
            "domain: with a domain; allUsers and allAuthenticatedUsers, which let in everyone, "
            "are refused",
            example="user:ada@example.com",
            # Google stores names in lower case.
            normal=_lower_name,
        ),
        "The callers that access `iam` or `iap` lets in, at least one: user:, group: or "
        "serviceAccount: with an e-mail address, or domain: with a domain.",
        group=Group.ACCESS,
    )
    public_through: str = _setting(
        "publicThrough",
        Choice(choices=("allUsers", "invokerIamDisabled")),
        "How public access is granted. `allUsers`: by a grant to everyone. `invokerIamDisabled`: "
        "by switching off Cloud Run's check of callers, for organisations that forbid such grants.",
        group=Group.ACCESS,
        change=Change.REVISION,
    )


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    # The connection name of an existing instance; None: the stack creates one.
    existing_instance: str | None = _setting(
        "existingDatabaseInstance",
        Text(
            default=None,
            valid=INSTANCE.fullmatch,
            expected="the connection name of a Cloud SQL instance, as `gcloud sql instances "
            "describe NAME --format 'value(connectionName)'` shows it, or none to create one",
            example="my-project:us-central1:my-instance",
        ),
        "The connection name of a Cloud SQL for PostgreSQL instance in the project, to use instead "
        "of an instance that the stack creates. It needs a public address, or a private one in "
        "existingNetwork. The stack creates only a database and a user in it, named after `name`. "
        "Empty: the stack creates an instance.",
        group=Group.DATABASE,
        change=Change.DATA,
    )
    version: int = _setting(
        "databaseVersion",
        Integer(default=17, low=15, high=18, unit=", PostgreSQL's major version"),
        "PostgreSQL's major version, 15 to 18.",
        group=Group.DATABASE,
        change=Change.DATABASE,
    )
    tier: str = _setting(
        "databaseTier",
        Text(
            default="db-f1-micro",
            valid=tiers.parse,
            expected=tiers.WANTED,
            example="db-custom-1-3840",
        ),
        "Cloud SQL's machine type. It determines how many connections the database accepts, which "
        "limits maxInstances times databaseConnections. With existingDatabaseInstance, set that "
        "instance's tier.",
        group=Group.DATABASE,
        change=Change.DATABASE,
        common=True,
    )
    edition: str = _setting(
        "databaseEdition",
        Choice(choices=("ENTERPRISE", "ENTERPRISE_PLUS")),
        "Cloud SQL's edition, ENTERPRISE or ENTERPRISE_PLUS. It must be the edition of the tier.",
        group=Group.DATABASE,
        change=Change.DATABASE,
    )
    disk_gb: int = _setting(
        "databaseDiskGb",
        Integer(default=10, low=10, high=65536, unit=" GB"),
        "The initial size of the database's disk, in GB. The disk grows automatically and never "
        "shrinks.",
        group=Group.DATABASE,
    )
    disk_limit_gb: int = _setting(
        "databaseDiskLimitGb",
        Integer(default=100, low=10, high=65536, unit=" GB"),
        "The size up to which the disk may grow, in GB.",
        group=Group.DATABASE,
    )
    availability: str = _setting(
        "databaseAvailability",
        Choice(choices=("ZONAL", "REGIONAL")),
        "ZONAL, or REGIONAL for a standby in another zone, at twice the price.",
        group=Group.DATABASE,
        change=Change.DATABASE,
    )
    connections: int = _setting(
        "databaseConnections",
        Integer(default=8, low=CONNECTIONS_PER_PROCESS, high=200),
        "How many database connections each server instance may hold, all its processes together.",
        group=Group.DATABASE,
        change=Change.REVISION,
    )
    password_version: int = _setting(
        "databasePasswordVersion",
        _VERSION,
        "Version of the generated database password. Increment it to give the server another "
        "database user with a new password; the previous user is kept, for rolling back.",
        group=Group.DATABASE,
        change=Change.REVISION,
    )
    backup_retention: int = _setting(
        "backupRetention",
        Integer(default=7, low=1, high=365, unit=" backups"),
        "How many daily backups are kept. Point-in-time recovery reaches back as many days, 7 at "
        "most.",
        group=Group.DATABASE,
    )


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    memory: str = _setting(
        "memory",
        Text(
            default="1Gi",
            valid=MEMORY.fullmatch,
            expected="a whole number of Mi or Gi",
            example="1Gi",
        ),
        "Memory of a server instance, 512Mi at least. The number of CPUs limits it.",
        group=Group.SERVER,
        change=Change.REVISION,
    )
    cpu: int = _setting(
        "cpu",
        IntegerChoice(choices=tuple(MEMORY_OF_CPU)),
        "CPUs of a server instance: 1, 2, 4, 6 or 8. Each CPU has a server process, and each "
        "process gets an equal share of databaseConnections.",
        group=Group.SERVER,
        change=Change.REVISION,
    )
    concurrency: int = _setting(
        "concurrency",
        Integer(default=80, low=1, high=1000, unit=" requests"),
        "Requests that one server instance handles at a time, 1000 at most.",
        group=Group.SERVER,
        change=Change.REVISION,
    )
    min_instances: int = _setting(
        "minInstances",
        Integer(default=0, low=0, high=1000),
        "Server instances kept warm. With 0, an idle server costs nothing and starts cold.",
        group=Group.SERVER,
        change=Change.REVISION,
        common=True,
    )
    max_instances: int = _setting(
        "maxInstances",
        Integer(default=2, low=1, high=1000),
        "The maximum number of server instances, over all revisions.",
        group=Group.SERVER,
        change=Change.REVISION,
        common=True,
    )
    request_timeout: int = _setting(
        "requestTimeout",
        Integer(default=3600, low=1, high=3600, unit=" seconds"),
        "Seconds that a request may take, including uploads and downloads; 3600 at most.",
        group=Group.SERVER,
        change=Change.REVISION,
    )
    custom_domains: tuple[str, ...] = _setting(
        "customDomains",
        Texts(
            valid=HOSTNAME.fullmatch,
            expected="a list of host names, each without scheme, port, path or *",
            example="mlflow.example.com",
            normal=str.lower,
        ),
        "Host names that the server accepts in addition to Cloud Run's own.",
        group=Group.ACCESS,
        change=Change.REVISION,
    )
    internal_networks: tuple[str, ...] = _setting(
        "internalNetworks",
        Texts(
            valid=is_private_network,
            expected="a list of private address ranges, each with its length in bits; loopback "
            "and link-local ranges, where the metadata server is, are refused",
            example="10.8.0.0/24",
        ),
        "Private address ranges, for example 10.8.0.0/24, that users may have the server connect "
        "to for the gateway and for webhooks. Empty: the server connects for them to the internet "
        "only.",
        group=Group.NETWORK,
        change=Change.REVISION,
    )
    artifacts: str = _setting(
        "artifacts",
        Choice(choices=("proxied", "direct")),
        "How clients transfer artifacts. `proxied`: through the server, with the password alone. "
        "`direct`: from and to the bucket itself, with their own Google credentials.",
        group=Group.ARTIFACTS,
        change=Change.REVISION,
    )
    jobs: bool = _setting(
        "jobs",
        Boolean(default=False),
        "Run MLflow's background jobs: judges and evaluations that are started in MLflow's page, "
        "automatic evaluation of new traces, and the detection of issues. A second container runs "
        "them, all the time, for about 47 US dollars a month, and holds 7 database connections.",
        group=Group.SERVER,
        change=Change.REVISION,
    )
    accounts: bool = _setting(
        "accounts",
        Boolean(default=False),
        "Give each person an account with a password and MLflow's own permissions. "
        "trackingUsername is their administrator.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    default_permission: str = _setting(
        "accountsDefaultPermission",
        Choice(choices=("READ", "NO_PERMISSIONS", "EDIT", "MANAGE")),
        "With accounts, what each person may do with what others have created, unless they have "
        "been granted more. `READ`: see it. `NO_PERMISSIONS`: nothing. `EDIT`: change it. "
        "`MANAGE`: delete it and grant permissions as well.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    administrators: tuple[str, ...] = _setting(
        "accountsAdministrators",
        Texts(
            valid=EMAIL.fullmatch,
            expected="a list of e-mail addresses",
            example="ada@example.com",
            normal=str.lower,
        ),
        "With accounts and access `iap`, the e-mail addresses of administrators. They get their "
        "accounts at their first visit.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    domains: tuple[str, ...] = _setting(
        "accountsDomains",
        Texts(
            valid=is_own_domain,
            expected="a list of your organisation's domains; domains of public mail, where anyone "
            "can have an address, are refused",
            example="example.com",
            normal=str.lower,
        ),
        "With accounts and access `iap`, the domains of the e-mail addresses whose owners get an "
        "account at their first visit. Empty: administrators add everyone's account.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    telemetry: bool = _setting(
        "mlflowTelemetry",
        Boolean(default=False),
        "Let MLflow send usage statistics to its makers.",
        group=Group.SERVER,
        change=Change.REVISION,
    )


@dataclass(frozen=True, kw_only=True)
class UpkeepSettings:
    # 0: nothing is deleted.
    cleanup_after_days: int = _setting(
        "cleanupAfterDays",
        Integer(default=0, low=1, high=MAX_DAYS, unit=" days", off="no cleanup", example=30),
        "Delete runs, logged models and experiments permanently, with their artifacts, so many "
        "days after users have deleted them. A daily job runs MLflow's `gc`; it keeps what "
        "something else still needs. 0: they stay.",
        group=Group.DATABASE,
    )

    # 0: all spans stay in the database.
    archive_traces_after_days: int = _setting(
        "archiveTracesAfterDays",
        Integer(default=0, low=1, high=MAX_DAYS, unit=" days", off="no archival", example=30),
        "Move the spans of traces that are so many days old from the database to the bucket, with "
        "MLflow's own archival. The traces open as before. A daily job does it. 0: they stay.",
        group=Group.DATABASE,
    )

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do, and so a job and its schedule."""
        return self.cleanup_after_days > 0 or self.archive_traces_after_days > 0


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    # Empty: no alerts are created.
    email: str = _setting(
        "alertEmail",
        Text(
            default="",
            valid=EMAIL.fullmatch,
            expected="one e-mail address, or none for no alerts",
            example="oncall@example.com",
        ),
        "The address that receives alerts about errors, slow requests, a full disk, exhausted "
        "connections and many wrong passwords. Empty: no alerts are created.",
        group=Group.ALERTS,
        common=True,
    )
    uptime_check: bool = _setting(
        "uptimeCheck",
        Boolean(default=False),
        "Request /health from around the world every 5 minutes, and tell alertEmail when it fails. "
        "This keeps an instance awake. Requires access `public`.",
        group=Group.ALERTS,
    )
    monthly_budget: int = _setting(
        "monthlyBudget",
        Integer(default=0, low=1, high=100_000_000, off="no budget", example=50),
        "Tell alertEmail when the project's cost in a month reaches half, nine tenths and all of "
        "this amount, in the billing account's currency. 0: no budget.",
        group=Group.ALERTS,
    )
    billing_account: str = _setting(
        "billingAccount",
        Text(
            default="",
            valid=BILLING_ACCOUNT.fullmatch,
            expected="the id of a billing account, three groups of six hexadecimal digits in upper "
            "case, as `gcloud billing accounts list` shows it",
            example="012345-6789AB-CDEF01",
        ),
        "The billing account that monthlyBudget is set on, as `gcloud billing accounts list` shows "
        "it.",
        group=Group.ALERTS,
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a stack. Fields hold what is given; properties combine them."""

    project: str = _setting(
        "gcp:project",
        Text(
            default="",
            valid=PROJECT.fullmatch,
            expected="the id of a Google Cloud project: 6 to 30 lower-case letters, digits and "
            "hyphens, starting with a letter and not ending with a hyphen (the id, not the name "
            "or number)",
            example="my-project",
        ),
        "The id of the Google Cloud project.",
        group=Group.PROJECT,
        change=Change.DATA,
        common=True,
        required=True,
    )
    region: str = _setting(
        "gcp:region",
        Text(
            default="us-central1",
            valid=REGIONS.__contains__,
            expected=_closest_regions,
            example="us-central1",
        ),
        "The region that everything is in.",
        group=Group.PROJECT,
        change=Change.DATA,
        common=True,
    )
    access: AccessSettings = field(default_factory=AccessSettings)
    # Whether there is a load balancer; `load_balancer` has its settings.
    balanced: bool = _setting(
        "loadBalancer",
        Boolean(default=False),
        "Create a global load balancer for customDomains, with a dedicated IP address and a "
        "Google-managed certificate for each domain. It is then the only way in from the internet. "
        "About 18 US dollars a month.",
        group=Group.ACCESS,
        change=Change.REVISION,
    )
    rate_limit: int = _setting(
        "rateLimit",
        Integer(
            default=0,
            low=RATE_LIMITS[0],
            high=RATE_LIMITS[1],
            unit=" requests a minute",
            off="no limit",
            example=6000,
        ),
        "Requests a minute that one address may make, 100 at least; Cloud Armor refuses more. "
        "Requires loadBalancer. About 6 US dollars a month. 0: no limit.",
        group=Group.ACCESS,
    )
    tracking_username: str = _setting(
        "trackingUsername",
        _username("mlflow", "mlflow"),
        "The username that clients and browsers log in with.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    tracking_password: pulumi.Input[str] | None = _setting(  # noqa: RUF009
        "trackingPassword",
        _PASSWORD,
        "The password, at least 15 characters; set it with --secret. Empty: the stack generates "
        "one.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    tracking_password_version: int = _setting(
        "trackingPasswordVersion",
        _VERSION,
        "Version of the generated password. Increment it to generate a new password.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    previous_tracking_password: str | None = _setting(
        "previousTrackingPassword",
        _PREVIOUS_PASSWORD,
        "The version of the previous generated password, and the time until which it is accepted "
        "too, for example `1 until 2026-12-01T12:00:00Z`. `make rotate` sets it. It has no effect "
        "once trackingPasswordVersion is increased again. Empty: only the current password is "
        "accepted.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    tracking_password_secret: str | None = _setting(
        "trackingPasswordSecret",
        _PASSWORD_SECRET,
        "The full name of a secret version in the project, "
        "projects/PROJECT/secrets/NAME/versions/3, that holds the password. Only the server reads "
        "it; the password isn't in Pulumi's state. Empty: the stack creates a secret.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    viewer_username: str | None = _setting(
        "viewerUsername",
        _username(None, "viewer"),
        "The username of a second user, who can see and download everything but change nothing. "
        "Empty: none.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    viewer_password: pulumi.Input[str] | None = _setting(  # noqa: RUF009
        "viewerPassword",
        _PASSWORD,
        "The viewer's password, at least 15 characters; set it with --secret. Empty: the stack "
        "generates one.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    viewer_password_version: int = _setting(
        "viewerPasswordVersion",
        _VERSION,
        "Version of the viewer's generated password. Increment it to generate a new password.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    previous_viewer_password: str | None = _setting(
        "previousViewerPassword",
        _PREVIOUS_PASSWORD,
        "Like previousTrackingPassword, for the viewer.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    viewer_password_secret: str | None = _setting(
        "viewerPasswordSecret",
        _PASSWORD_SECRET,
        "Like trackingPasswordSecret, for the viewer's password. It must be a different secret.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    encryption_key_version: int = _setting(
        "encryptionKeyVersion",
        _VERSION,
        "Version of the key that encrypts the gateway's API keys and the webhooks' secrets in the "
        "database. Increment it to generate a new key; the server re-encrypts them.",
        group=Group.LOGIN,
        change=Change.REVISION,
    )
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    network: str = _setting(
        "network",
        Choice(choices=("public", "private")),
        "The place of the database's address. `public`: on the internet, where only Cloud SQL's "
        "connectors can use it. `private`: in a network of the stack, or in existingNetwork, which "
        "the server connects through. A change to `private` interrupts the server for some "
        "minutes, and you can't change back and keep the data.",
        group=Group.NETWORK,
        change=Change.DATABASE,
    )
    existing_network_name: str | None = _setting(
        "existingNetwork",
        Text(
            default=None,
            valid=NETWORK.fullmatch,
            expected="the name of a VPC network in the project, or the full name of one, which may "
            "be another project's Shared VPC, or none to create one",
            example="projects/my-project/global/networks/my-network",
        ),
        "The VPC network for network `private`, by its name or its full name, instead of a network "
        "that the stack creates. It must have private services access. A Shared VPC's full name "
        "begins with its host project. Empty: the stack creates a network.",
        group=Group.NETWORK,
        change=Change.DATABASE,
    )
    existing_subnetwork: str | None = _setting(
        "existingSubnetwork",
        Text(
            default=None,
            valid=SUBNETWORK.fullmatch,
            expected="the name or the full name of a subnetwork of existingNetwork, or none to use "
            "the subnetwork with the network's name",
            example="my-subnetwork",
        ),
        "The subnetwork of existingNetwork, in the stack's region, that the server gets its "
        "addresses from. Empty: the subnetwork with the network's name, as in an auto mode "
        "network.",
        group=Group.NETWORK,
        change=Change.REVISION,
    )
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    # The name of an existing bucket; None: the stack creates one.
    existing_bucket: str | None = _setting(
        "existingBucket",
        Text(
            default=None,
            valid=BUCKET.fullmatch,
            expected="the name of a bucket, without gs://, or none to create one",
            example="my-artifacts",
        ),
        "A bucket to keep artifacts in, instead of a bucket that the stack creates. Its settings "
        "stay as they are; the server may read and write all its objects. Empty: the stack creates "
        "a bucket.",
        group=Group.ARTIFACTS,
        change=Change.DATA,
    )
    # None: the stack's region.
    given_bucket_location: str | None = _setting(
        "bucketLocation",
        Text(
            default=None,
            valid=lambda place: place.upper() in MULTI_REGIONS or place.lower() in REGIONS,
            expected=f"a region, one of {', '.join(MULTI_REGIONS)}, or none to use the stack's "
            "region",
            example="EU",
        ),
        "The region of the artifacts, or a multi-region such as US or EU. Empty: the stack's "
        "region.",
        group=Group.ARTIFACTS,
        change=Change.DATA,
    )
    bucket_force_destroy: bool = _setting(
        "bucketForceDestroy",
        Boolean(default=False),
        "Let `pulumi destroy` delete the bucket with all artifacts in it. After changing it, run "
        "`pulumi up` before `pulumi destroy`.",
        group=Group.ARTIFACTS,
    )
    alerts: AlertSettings = field(default_factory=AlertSettings)
    # None: the image is built from image/.
    image: str | None = _setting(
        "image",
        Text(
            default=None,
            valid=lambda image: IMAGE.fullmatch(image) and re.search(r"[:@]", image),
            expected="an image with its digest or tag, in Artifact Registry, gcr.io or docker.io "
            "(the registries that Cloud Run pulls from), or none to build it from image/",
            example="us-central1-docker.pkg.dev/my-project/my-images/server@sha256:...",
        ),
        "A ready image to run, with its digest or tag. Empty: the image is built from image/.",
        group=Group.IMAGE,
        change=Change.REVISION,
    )
    builder: str = _setting(
        "builder",
        Choice(choices=("docker", "cloud-build")),
        "The builder of the image. `docker`: Docker on this machine. `cloud-build`: Google Cloud "
        "Build, for machines without Docker; it requires the gcloud CLI, logged in.",
        group=Group.IMAGE,
        change=Change.REVISION,
    )
    name: str = _setting(
        "name",
        Text(
            default="mlflow",
            valid=NAME.fullmatch,
            expected="lower-case letters, digits and hyphens, starting with a letter and not "
            "ending with a hyphen",
            example="mlflow",
        ),
        "Prefix of the names of all resources. Stacks with different prefixes can share a project.",
        group=Group.DEPLOYMENT,
        change=Change.DATA,
    )
    # None: Google's own keys.
    kms_key: str | None = _setting(
        "kmsKey",
        Text(
            default=None,
            valid=KMS_KEY.fullmatch,
            expected="the full name of a key in Cloud KMS, without a version, as `gcloud kms keys "
            "list` shows it, or none to use Google's own keys",
            example="projects/my-project/locations/us-central1/keyRings/my-ring/cryptoKeys/mlflow",
        ),
        "The full name of a Cloud KMS key in the stack's region that encrypts the database, "
        "bucket, secrets and image. Set it before the first `pulumi up`: changing it makes a new, "
        "empty database, which deletionProtection refuses. Empty: Google's own keys.",
        group=Group.DEPLOYMENT,
        change=Change.DATA,
    )
    deletion_protection: bool = _setting(
        "deletionProtection",
        Boolean(default=True),
        "Refuse to delete or replace the database, the bucket, the encryption key and the service. "
        "After changing it, run `pulumi up` before `pulumi destroy`.",
        group=Group.DEPLOYMENT,
        common=True,
    )
    github_repository: str | None = _setting(
        "githubRepository",
        Text(
            default=None,
            valid=GITHUB_REPOSITORY.fullmatch,
            expected="owner/name of a repository on GitHub, spelt as GitHub spells it, or none if "
            "GitHub doesn't deploy this stack",
            example="my-org/mlflow-gcp",
        ),
        "owner/name of the GitHub repository whose workflow deploys this stack, without a key. "
        "Requires githubRepositoryId. Empty: no repository deploys it.",
        group=Group.DEPLOYMENT,
    )
    github_repository_id: int = _setting(
        "githubRepositoryId",
        Integer(
            default=0,
            low=1,
            high=MAX_GITHUB_ID,
            unit=", as GitHub numbers the repository",
            off="none",
            example=Command("gh api repos/my-org/mlflow-gcp --jq .id"),
        ),
        "GitHub's number of githubRepository, as `gh api repos/{owner}/{repo} --jq .id` shows it. "
        "If someone else takes over the repository's name later, their number differs. 0: none.",
        group=Group.DEPLOYMENT,
    )
    github_review: bool = _setting(
        "githubReview",
        Boolean(default=False),
        "Whether the workflow of githubRepository also previews pull requests, with a separate "
        "account. Set it only if the repository's environment `review` has required reviewers.",
        group=Group.DEPLOYMENT,
    )

    @property
    def tracking(self) -> Login:
        return Login(
            username=self.tracking_username,
            password=self.tracking_password,
            password_version=self.tracking_password_version,
            password_secret=self.tracking_password_secret,
            previous_until=previous_password_until(
                self.previous_tracking_password or "", version=self.tracking_password_version
            ),
        )

    @property
    def viewer(self) -> Login | None:
        """The user who can only read; None: there is none."""
        if not self.viewer_username:
            return None
        return Login(
            username=self.viewer_username,
            password=self.viewer_password,
            password_version=self.viewer_password_version,
            password_secret=self.viewer_password_secret,
            previous_until=previous_password_until(
                self.previous_viewer_password or "", version=self.viewer_password_version
            ),
        )

    @property
    def logins(self) -> dict[str, Login]:
        """The logins by user: `tracking`, and `viewer` if there is one."""
        viewer = {"viewer": self.viewer} if self.viewer else {}
        return {"tracking": self.tracking, **viewer}

    @property
    def private_network(self) -> bool:
        """Whether the database has an address in a network and no public address."""
        return self.network == "private"

    @property
    def existing_network(self) -> ExistingNetwork | None:
        """The network that the database and the server use; None: the stack creates it."""
        network = NETWORK.fullmatch(self.existing_network_name or "")
        if not network:
            return None
        subnetwork = SUBNETWORK.fullmatch(self.existing_subnetwork or "")
        return ExistingNetwork(
            project=network["project"] or self.project,
            name=network["name"],
            subnetwork=(subnetwork or network)["name"],
        )

    @property
    def bucket_location(self) -> str:
        """The location in upper case, as Google returns it, so that Pulumi shows no change."""
        return (self.given_bucket_location or self.region).upper()

    @property
    def load_balancer(self) -> LoadBalancerSettings | None:
        """None: callers use Cloud Run's own address."""
        if not self.balanced:
            return None
        return LoadBalancerSettings(domains=self.service.custom_domains, rate_limit=self.rate_limit)

    @property
    def github(self) -> GitHubRepository | None:
        """The repository whose workflow may deploy; None: no repository may."""
        if not self.github_repository:
            return None
        return GitHubRepository(
            name=self.github_repository,
            number=self.github_repository_id,
            review=self.github_review,
        )


def listed(settings: type[Any] = Settings) -> Iterator[Setting]:
    """Yields all settings in the order of their definition."""
    for each in fields(settings):
        setting: Setting | None = each.metadata.get("setting")
        if setting:
            yield setting
        else:
            yield from listed(type(getattr(settings(), each.name)))


def values(settings: Any) -> dict[str, Any]:
    """Returns the value of each setting by its key."""
    found: dict[str, Any] = {}
    for each in fields(settings):
        value, setting = getattr(settings, each.name), each.metadata.get("setting")
        found |= {setting.key: value} if setting else values(value)
    return found
