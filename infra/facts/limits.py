"""Limits and name formats of Google, GitHub and the server.

Each limit names its source; Google's are as of 2026-11.
"""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import ip_network

# https://cloud.google.com/run/docs/configuring/services/memory-limits: MiB for each number of CPUs.
# With less than one CPU, Cloud Run allows only one request at a time; MLflow needs 512 MiB.
MEMORY_OF_CPU = {
    1: (512, 4096),
    2: (512, 8192),
    4: (2048, 16384),
    6: (4096, 24576),
    8: (4096, 32768),
}

# Connections that requests can't use: those that PostgreSQL reserves for superusers by default
# (https://www.postgresql.org/docs/17/runtime-config-connection.html), some for Cloud SQL's own
# agents (our estimate, as Google publishes no number), and those with which a new revision's first
# instance checks the schema while the old revision still serves.
RESERVED_CONNECTIONS = {
    "superuser_reserved_connections": 3,
    "Cloud SQL's agents": 3,
    "a new revision that boots": 2,
}

# Those of the upkeep job.
UPKEEP_CONNECTIONS = 1

# The worker that runs MLflow's jobs: three connections for itself, and two for each of two jobs.
WORKER_CPU, WORKER_GIBIBYTES = 1, 1
WORKER_CONNECTIONS = 3 + 2 * 2

# How many connections one MLflow request may hold at a time; the server refuses to start with
# fewer. Each CPU has one process.
CONNECTIONS_PER_PROCESS = 4

HOSTNAME = re.compile(
    r"(?=.{4,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]"
)
# The kinds of principals that can log in: https://cloud.google.com/iam/docs/principal-identifiers
MEMBER = re.compile(rf"(?:(?:user|group|serviceAccount):[^\s@:]+@|domain:)(?:{HOSTNAME.pattern})")
EMAIL = re.compile(rf"[\w.%+-]+@{HOSTNAME.pattern}", re.ASCII)
BILLING_ACCOUNT = re.compile(r"[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}")

# NIST's minimum for a password without a second factor:
# https://pages.nist.gov/800-63-4/sp800-63b.html#passwordver
PASSWORD_MIN = 15
MAX_VERSION = 10_000
# Ten years.
MAX_DAYS = 3650

# The version of a previous password, and the time until which it is accepted.
PREVIOUS_PASSWORD = re.compile(
    r"(?P<version>[1-9][0-9]*) until (?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z)"
)

PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
MEMORY = re.compile(r"([1-9][0-9]*)(Mi|Gi)")
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
# The limit of one HTTPS proxy: https://cloud.google.com/load-balancing/docs/quotas#ssl_certificates
MAX_CERTIFICATES = 15
# https://cloud.google.com/armor/docs/rate-limiting-overview#throttle-traffic. The minimum is ours:
# MLflow's page loads dozens of files at a time.
RATE_LIMITS = (100, 1_000_000)
# https://docs.github.com/en/rest/repos/repos: an owner's name has no two consecutive hyphens.
GITHUB_REPOSITORY = re.compile(
    r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}"
)
MAX_GITHUB_ID = 2**53
# The registries that Cloud Run pulls from; others require a remote repository.
IMAGE = re.compile(
    r"(?:[a-z0-9-]+-docker\.pkg\.dev|(?:[a-z]+\.)?gcr\.io|docker\.io)"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)+"
    r"(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def mebibytes(memory: str) -> int:
    """`1Gi` -> 1024."""
    match = MEMORY.fullmatch(memory)
    if not match:
        raise ValueError(f"not a memory size: {memory}")
    return int(match[1]) * (1024 if match[2] == "Gi" else 1)


def is_previous_password(text: str) -> bool:
    """Returns whether it is such as `1 until 2026-12-01T12:00:00Z`."""
    match = PREVIOUS_PASSWORD.fullmatch(text)
    try:
        return bool(match and datetime.strptime(match["time"], "%Y-%m-%dT%H:%M:%SZ"))  # noqa: DTZ007
    except ValueError:
        return False


def previous_password_until(text: str, *, version: int) -> str | None:
    """Returns the time in the text, if it is for the version before this one.

    After a further change, it must not extend the life of a password that has leaked meanwhile.
    """
    match = PREVIOUS_PASSWORD.fullmatch(text)
    return match["time"] if match and int(match["version"]) == version - 1 else None


def is_own_domain(text: str) -> bool:
    """Returns whether it is a domain that isn't Google's for anyone's mail."""
    public = text.lower() in ("gmail.com", "googlemail.com")
    return not public and HOSTNAME.fullmatch(text) is not None


def is_private_network(text: str) -> bool:
    """Returns whether it is a private address range, with its length, that users may be given.

    Loopback and link-local ranges, where the metadata server is, aren't.
    """
    try:
        network = ip_network(text)
    except ValueError:
        return False
    closed = network.is_loopback or network.is_link_local or network.is_unspecified
    return "/" in text and network.is_private and not closed and network.prefixlen > 0
