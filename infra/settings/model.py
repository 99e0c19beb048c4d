"""The types of the stack's settings. `loader.load` makes them from Pulumi's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

import pulumi


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    # The connection name of an existing instance; None: the stack creates one.
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
    # Private address ranges that users may have the server connect to.
    internal_networks: tuple[str, ...]
    telemetry: bool


@dataclass(frozen=True, kw_only=True)
class LoadBalancerSettings:
    # Each has a certificate; the first is the server's address.
    domains: tuple[str, ...]
    # Requests a minute from one address; 0: no limit.
    rate_limit: int


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    # Empty: no alerts are created.
    email: str
    uptime_check: bool
    # In the billing account's currency; 0: no budget.
    monthly_budget: int
    billing_account: str


@dataclass(frozen=True, kw_only=True)
class Login:
    username: str
    # None: the stack generates one.
    password: pulumi.Input[str] | None = field(repr=False)
    password_version: int
    # The full name of an existing secret version that holds the password; None: the stack
    # creates a secret.
    password_secret: str | None


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
class Settings:
    project: str
    region: str
    name: str
    tracking: Login
    # The user who can only read; None: there is none.
    viewer: Login | None
    encryption_key_version: int
    # None: the image is built from image/.
    image: str | None
    builder: str
    # The repository whose workflow may deploy; None: no repository may.
    github: GitHubRepository | None
    # The name of an existing bucket; None: the stack creates one.
    existing_bucket: str | None
    bucket_location: str
    bucket_force_destroy: bool
    deletion_protection: bool
    # Whether the database has an address in a network and no public address.
    private_network: bool
    # None: the stack creates the network, if it needs one.
    existing_network: ExistingNetwork | None
    # None: Google's own keys.
    kms_key: str | None
    access: AccessSettings
    database: DatabaseSettings
    service: ServiceSettings
    # None: callers use Cloud Run's own address.
    load_balancer: LoadBalancerSettings | None
    alerts: AlertSettings
