"""Cloud SQL's machine types for PostgreSQL: edition, memory and connections of each.

Types: https://cloud.google.com/sql/docs/postgres/machine-series-overview; `max_connections`
by memory: https://cloud.google.com/sql/docs/postgres/flags (2026-11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# The number of connections, and GB of memory.
SHARED_CORE = {"db-f1-micro": (25, 0.6), "db-g1-small": (50, 1.7)}

# The minimum GB of memory for which Cloud SQL sets this `max_connections`.
CONNECTIONS_FROM_GB = (
    (120.0, 1000),
    (60.0, 800),
    (30.0, 600),
    (15.0, 500),
    (7.5, 400),
    (6.0, 200),
    (3.75, 100),
)

PERFORMANCE_GB = {
    2: 16,
    4: 32,
    8: 64,
    16: 128,
    32: 256,
    48: 384,
    64: 512,
    80: 640,
    96: 768,
    128: 864,
}

WANTED = (
    "db-f1-micro, db-g1-small, db-custom-<CPUs>-<MiB> (1 CPU or an even number up to 96; memory "
    "a multiple of 256, at least 3840, 0.9 to 6.5 GiB for each CPU), or with ENTERPRISE_PLUS "
    f"db-perf-optimized-N-<{'|'.join(str(cpus) for cpus in PERFORMANCE_GB)}>"
)

CUSTOM = re.compile(r"db-custom-([1-9][0-9]?)-([1-9][0-9]{3,5})")
PERFORMANCE = re.compile(r"db-perf-optimized-N-([1-9][0-9]{0,2})")


@dataclass(frozen=True, kw_only=True)
class Tier:
    edition: str
    cpus: int
    gigabytes: float
    max_connections: int


def parse(name: str) -> Tier | None:
    """Returns the tier with that name, or None if there is none."""
    if name in SHARED_CORE:
        connections, memory = SHARED_CORE[name]
        return Tier(edition="ENTERPRISE", cpus=1, gigabytes=memory, max_connections=connections)
    if match := CUSTOM.fullmatch(name):
        cpus, mebibytes = int(match[1]), int(match[2])
        if (
            (cpus == 1 or (cpus % 2 == 0 and cpus <= 96))
            and mebibytes >= 3840
            and mebibytes % 256 == 0
            and 0.9 <= mebibytes / 1024 / cpus <= 6.5
        ):
            return _dedicated("ENTERPRISE", cpus, mebibytes / 1024)
        return None
    match = PERFORMANCE.fullmatch(name)
    if match and int(match[1]) in PERFORMANCE_GB:
        cpus = int(match[1])
        return _dedicated("ENTERPRISE_PLUS", cpus, PERFORMANCE_GB[cpus])
    return None


def require(name: str) -> Tier:
    tier = parse(name)
    if tier is None:
        raise ValueError(f"no tier of Cloud SQL for PostgreSQL: {name}")
    return tier


def smallest_for(connections: int) -> str | None:
    """Returns the smallest ENTERPRISE tier that accepts so many connections, if there is one."""
    for name in (
        *SHARED_CORE,
        "db-custom-1-3840",
        "db-custom-1-6144",
        "db-custom-2-7680",
        "db-custom-4-15360",
        "db-custom-8-30720",
        "db-custom-10-61440",
        "db-custom-20-122880",
    ):
        if require(name).max_connections >= connections:
            return name
    return None


def _dedicated(edition: str, cpus: int, gigabytes: float) -> Tier:
    return Tier(
        edition=edition,
        cpus=cpus,
        gigabytes=gigabytes,
        max_connections=next(c for floor, c in CONNECTIONS_FROM_GB if gigabytes >= floor),
    )
