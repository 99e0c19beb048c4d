"""The stack's settings, typed and frozen. `config` makes them from Pulumi's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

import pulumi


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
    # Private ranges that users may have the server connect to.
    internal_networks: tuple[str, ...]
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
class GitHubRepository:
    """Its name, owner/name, may be somebody else's one day; its number never is."""

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
    # Who may only look, if anybody.
    viewer: Login | None
    encryption_key_version: int
    # None: it is built.
    image: str | None
    builder: str
    # Whose workflow may deploy, if anybody's.
    github: GitHubRepository | None
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
