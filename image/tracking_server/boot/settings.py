"""The settings that the server reads from its environment variables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal, cast, get_args

from tracking_server.errors import BootError

Artifacts = Literal["proxied", "direct"]
Permission = Literal["NO_PERMISSIONS", "READ", "EDIT", "MANAGE"]
Network = IPv4Network | IPv6Network

_SECRET_VERSION = re.compile(r"[A-Za-z0-9_-]{1,255}/versions/[1-9][0-9]*")
# A domain-scoped project's accounts have its domain too: name@project.example.com.iam...
_SERVICE_ACCOUNT = re.compile(
    r"[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9][a-z0-9.-]*\.iam\.gserviceaccount\.com"
)
_IAP_AUDIENCE = re.compile(r"/projects/[0-9]+/locations/[a-z0-9-]+/services/[a-z0-9-]+")
_ADDRESS = re.compile(r"[^\s@:,]+@[^\s@:,]+")
_DOMAIN = re.compile(r"[a-z0-9.-]+")
_HOST_PATTERN = re.compile(r"[a-z0-9*]([a-z0-9.*-]*[a-z0-9])?")

MAX_PROCESSES = 8
"""Cloud Run's most CPUs: https://cloud.google.com/run/docs/configuring/services/cpu"""

CONNECTIONS_PER_PROCESS = 4
"""The connections that one request may hold at once: a log-batch that renames its run uses four."""

MAX_CONCURRENCY = 1000
"""Cloud Run's own limit: https://cloud.google.com/run/docs/about-concurrency"""

MAX_TRUSTED_PROXIES = 1
"""One, for the load balancer if there is one."""

MIN_MEMORY, MAX_MEMORY = 512, 32 * 1024
"""Mebibytes: https://cloud.google.com/run/docs/configuring/services/memory-limits"""

MAX_POOL_SIZE = 1000
"""Cloud SQL's own highest default of max_connections, on its largest machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersions:
    """The version of each secret as `<secret id>/versions/<number>`, never a value."""

    artifact_url: str
    database_url: str
    tracking_username: str
    tracking_password: str
    kek_passphrase: str
    viewer_username: str | None = None
    viewer_password: str | None = None

    def previous(self, name: str) -> str | None:
        """Returns the version before a secret's version, if there is one."""
        secret, _, number = (getattr(self, name) or "").rpartition("/")
        return f"{secret}/{int(number) - 1}" if number.isdigit() and int(number) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The server's settings, checked.

    - `bind_address`: where to listen; `make local` sets it.
    - `artifact_signer`: the service account that artifact URLs are signed as.
    - `pool_size`: the database connections of all `processes` together.
    - `max_concurrency`: the requests that each process handles at a time.
    - `memory`: the instance's memory in bytes.
    - `trusted_proxies`: how many addresses of our own proxies follow the client's in
      X-Forwarded-For.
    - `internal_networks`: the ranges, in addition to the internet, that callers may make the server
      connect to.
    - `cloudsql_root`: where Cloud Run mounts the connector's sockets.
    - `secret_manager_endpoint`: set for a private or regional endpoint, and by `make local`.
    - `previous_until`: until when the previous password of a user is accepted too, in seconds since
      1970; the keys are `tracking` and `viewer`.
    - `default_permission`: what a person may do without a grant; None: there are no accounts.
    - `iap_audience`: this service, as the assertions of Identity-Aware Proxy name it; empty: the
      server isn't behind it, or has no accounts. `make local` sets `iap_keys`, the address of the
      keys that verify them.
    - `administrators`: the addresses of administrators, and `domains`: those of people who get an
      account at their first visit.
    - `jobs`: whether a worker runs MLflow's background jobs.
    - `boot_patience`: the seconds that a boot waits for the database, and for a grant that isn't
      effective yet.
    """

    project: str
    bind_address: str
    port: int
    artifacts: Artifacts
    artifact_signer: str
    allowed_hosts: tuple[str, ...]
    pool_size: int
    processes: int
    max_concurrency: int
    memory: int
    secrets: SecretVersions
    trusted_proxies: int
    internal_networks: tuple[Network, ...]
    cloudsql_root: str
    secret_manager_endpoint: str
    boot_patience: int
    previous_until: Mapping[str, float] = field(default_factory=dict)
    default_permission: Permission | None = None
    iap_audience: str = ""
    iap_keys: str = ""
    administrators: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    jobs: bool = False

    @property
    def pool_share(self) -> int:
        """Returns the database connections of one process."""
        return self.pool_size // self.processes

    @property
    def hot_connections(self) -> int:
        """Returns how many of them the hot routes have; MLflow keeps what one request may need."""
        return max(0, min(self.pool_share // 3, self.pool_share - CONNECTIONS_PER_PROCESS))

    @property
    def on_this_computer(self) -> bool:
        """Whether only programs on the same computer can connect, as with `make local`."""
        try:
            return ip_address(self.bind_address).is_loopback
        except ValueError:
            return False

    @property
    def kek_version(self) -> int:
        """Returns the passphrase's version, which is the same for MLflow and Secret Manager."""
        return int(self.secrets.kek_passphrase.rpartition("/")[2])


class Variables:
    """Reads environment variables; `problems` says which are missing or malformed."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problems: list[str] = []

    def text(self, key: str, example: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self._env.get(key, "")
        if not value:
            self.problems.append(f"{key} is not set (example: {example})")
        elif pattern and not pattern.fullmatch(value):
            # Someone may have set the secret's value by mistake; keep it out of the log.
            given = "not a secret's version" if key.endswith("_SECRET") else repr(value)
            self.problems.append(f"{key} is {given}, wanted something like {example}")
        return value

    def number(self, key: str, default: str, lowest: int, highest: int) -> int:
        value = self._env.get(key, default)
        if not (value.isascii() and value.isdigit() and lowest <= int(value) <= highest):
            self.problems.append(f"{key} is {value!r}, wanted a number from {lowest} to {highest}")
            return lowest
        return int(value)

    def networks(self, key: str) -> tuple[Network, ...]:
        """Returns address ranges that are separated by commas."""
        found: list[Network] = []
        for part in filter(None, self._env.get(key, "").split(",")):
            try:
                found.append(ip_network(part.strip()))
            except ValueError:
                self.problems.append(
                    f"{key} has {part!r}, wanted address ranges such as 10.8.0.0/24, separated by "
                    "commas"
                )
        return tuple(found)

    def cloudsql_root(self) -> str:
        """Returns the folder of the connector's sockets."""
        return self._env.get("CLOUDSQL_ROOT", "/cloudsql")

    def secret_manager_endpoint(self) -> str:
        return self._env.get("SECRET_MANAGER_ENDPOINT", "https://secretmanager.googleapis.com")

    def boot_patience(self) -> int:
        """Returns seconds."""
        return self.number("BOOT_PATIENCE", "100", 0, 100)

    def secret(self, name: str) -> str:
        """Returns the version of a secret."""
        return self.text(f"{name.upper()}_SECRET", f"mlflow_{name}/versions/1", _SECRET_VERSION)

    def check(self) -> None:
        """Raises a BootError with all problems, if there are any."""
        if self.problems:
            raise BootError("The environment is not complete: " + "; ".join(self.problems))


def load(env: Mapping[str, str]) -> ServerSettings:
    """Read the settings from the environment and check all of them.

    Raises:
        BootError: naming every variable that is missing or malformed, with an example.
    """
    given = Variables(env)
    text, number, secret, problems = given.text, given.number, given.secret, given.problems

    def time(key: str) -> float | None:
        if not (value := env.get(key, "")):
            return None
        try:
            found = datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%z")
        except ValueError:
            problems.append(f"{key} is {value!r}, wanted a time such as 2026-12-01T12:00:00Z")
            return None
        return found.timestamp()

    def permission(key: str) -> Permission | None:
        if not (value := env.get(key, "")):
            return None
        if value not in get_args(Permission):
            problems.append(f"{key} is {value!r}, wanted one of {', '.join(get_args(Permission))}")
        return cast(Permission, value)

    def listed(key: str, pattern: re.Pattern[str], example: str) -> tuple[str, ...]:
        found = tuple(part.strip().lower() for part in env.get(key, "").split(",") if part.strip())
        for part in found:
            if not pattern.fullmatch(part):
                problems.append(f"{key} has {part!r}, wanted such as {example}")
        return found

    iap_audience = env.get("IAP_AUDIENCE", "")
    if iap_audience and not _IAP_AUDIENCE.fullmatch(iap_audience):
        problems.append(
            f"IAP_AUDIENCE is {iap_audience!r}, wanted something like "
            "/projects/123456789012/locations/us-central1/services/mlflow"
        )
    # Both or neither: if only one is set, the other is reported as missing.
    has_viewer = any(env.get(f"VIEWER_{part}_SECRET") for part in ("USERNAME", "PASSWORD"))
    artifacts = text("ARTIFACTS", "proxied", re.compile("proxied|direct"))
    hosts = text("MLFLOW_SERVER_ALLOWED_HOSTS", "mlflow-123456789012.us-central1.run.app")
    allowed_hosts = tuple(part.strip().lower() for part in hosts.split(",") if part.strip())
    for host in allowed_hosts:
        # A pattern that matches every host would disable the check.
        if not _HOST_PATTERN.fullmatch(host) or not re.search("[a-z0-9]", host):
            problems.append(
                f"MLFLOW_SERVER_ALLOWED_HOSTS has {host!r}, wanted host names without scheme "
                "or port, separated by commas"
            )
    pool_size = number("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "8", 1, MAX_POOL_SIZE)
    processes = number("WEB_CONCURRENCY", "1", 1, MAX_PROCESSES)
    if pool_size < (least := CONNECTIONS_PER_PROCESS * processes):
        problems.append(
            f"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE is {pool_size}, wanted at least {least}: "
            f"{CONNECTIONS_PER_PROCESS}, which one request may use, for each of the {processes} "
            "processes in WEB_CONCURRENCY"
        )
    settings = ServerSettings(
        project=text("GCP_PROJECT", "my-project"),
        bind_address=env.get("BIND_ADDRESS", "0.0.0.0"),
        port=number("PORT", "8080", 1, 65535),
        artifacts="direct" if artifacts == "direct" else "proxied",
        artifact_signer=text(
            "ARTIFACT_SIGNER",
            "mlflow-signer@my-project.iam.gserviceaccount.com",
            _SERVICE_ACCOUNT,
        ),
        allowed_hosts=allowed_hosts,
        pool_size=pool_size,
        processes=processes,
        # For each process, not divided: the kernel spreads connections, not requests. With a
        # share of the limit, a busy process would refuse requests while another is idle.
        max_concurrency=number("MAX_CONCURRENCY", "80", 1, MAX_CONCURRENCY),
        memory=number("MEMORY_MIB", "512", MIN_MEMORY, MAX_MEMORY) * 1024 * 1024,
        secrets=SecretVersions(
            artifact_url=secret("artifact_url"),
            database_url=secret("database_url"),
            tracking_username=secret("tracking_username"),
            tracking_password=secret("tracking_password"),
            kek_passphrase=secret("kek_passphrase"),
            viewer_username=secret("viewer_username") if has_viewer else None,
            viewer_password=secret("viewer_password") if has_viewer else None,
        ),
        previous_until={
            user: until
            for user in ("tracking", "viewer")
            if (until := time(f"{user.upper()}_PREVIOUS_PASSWORD_UNTIL")) is not None
        },
        default_permission=permission("ACCOUNTS_DEFAULT_PERMISSION"),
        iap_audience=iap_audience,
        iap_keys=env.get("IAP_KEYS", "https://www.gstatic.com/iap/verify/public_key"),
        administrators=listed("ACCOUNTS_ADMINISTRATORS", _ADDRESS, "ada@example.com"),
        domains=listed("ACCOUNTS_DOMAINS", _DOMAIN, "example.com"),
        jobs=number("JOBS", "0", 0, 1) == 1,
        trusted_proxies=number("TRUSTED_PROXIES", "0", 0, MAX_TRUSTED_PROXIES),
        internal_networks=given.networks("INTERNAL_NETWORKS"),
        cloudsql_root=given.cloudsql_root(),
        boot_patience=given.boot_patience(),
        secret_manager_endpoint=given.secret_manager_endpoint(),
    )
    given.check()
    return settings
