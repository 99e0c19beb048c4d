"""Estimates a stack's monthly cost from its settings and Google's list prices.

In US dollars, for us-central1, without tax and discounts; other regions cost up to half as much
again.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..settings.schema import Settings
from . import tiers
from .limits import WORKER_CPU, WORKER_GIBIBYTES, mebibytes

# The date of the price lists that the sections below name.
AS_OF = "2026-05"
REGION = "us-central1"

HOURS = 730  # Google's month
SECONDS = HOURS * 3600
DAYS = 365 / 12

# https://cloud.google.com/sql/pricing, Cloud SQL for PostgreSQL. High availability doubles machine
# and disk.
SHARED_CORE_HOUR = {"db-f1-micro": 0.0105, "db-g1-small": 0.035}
VCPU_HOUR = {"ENTERPRISE": 0.0413, "ENTERPRISE_PLUS": 0.0537}
GB_HOUR = {"ENTERPRISE": 0.007, "ENTERPRISE_PLUS": 0.0091}
DISK_GB = 0.17
BACKUP_GB = 0.08

# https://cloud.google.com/run/pricing, services with request-based billing. All projects of a
# billing account share the free amounts.
VCPU_SECOND, GIB_SECOND, REQUEST = 0.000024, 0.0000025, 0.40 / 1_000_000
IDLE_VCPU_SECOND, IDLE_GIB_SECOND = 0.0000025, 0.0000025
FREE_VCPU_SECONDS, FREE_GIB_SECONDS, FREE_REQUESTS = 180_000, 360_000, 2_000_000

# The same page, jobs: https://cloud.google.com/run/pricing
JOB_VCPU_SECOND, JOB_GIB_SECOND = 0.000018, 0.000002
FREE_JOB_VCPU_SECONDS, FREE_JOB_GIB_SECONDS = 240_000, 450_000

# Worker pools are estimated at the same prices.

# https://cloud.google.com/scheduler/pricing
SCHEDULE, FREE_SCHEDULES = 0.10, 3

# https://cloud.google.com/secret-manager/pricing
SECRET_VERSION, FREE_SECRET_VERSIONS = 0.06, 6

# https://cloud.google.com/artifact-registry/pricing
IMAGE_GB, FREE_IMAGE_GB = 0.10, 0.5

# https://cloud.google.com/storage/pricing, Standard storage in a region
ARTIFACT_GB = 0.020
# To write an object, a class A operation
OBJECT = 0.005 / 1000

# https://cloud.google.com/vpc/network-pricing: to the internet, Premium Tier, the first TiB. For
# clients in the stack's own region it's free.
EGRESS_GB = 0.12

# https://cloud.google.com/products/observability/pricing: each condition of an alert policy, and
# each value that it evaluates.
ALERT, ALERT_VALUE = 0.10, 0.35 / 1_000_000

# https://cloud.google.com/load-balancing/pricing: the price covers up to five forwarding rules, and
# the stack creates two. https://cloud.google.com/armor/pricing, Standard: policy, rules, requests.
FORWARDING_HOUR = 0.025
POLICY, RULE, RULES, POLICY_REQUEST = 5.0, 1.0, 2, 0.75 / 1_000_000

# Our assumptions where no setting says more.
RUNS_PER_GB = 100_000  # in the database
STORED_IMAGES_GB = 1  # ten of them, which share most layers
SERVICE_ALERTS, DATABASE_ALERTS = 3, 2
EVALUATIONS = 60 * HOURS  # one a minute
UPKEEP_SECONDS = 120  # each day; the job has one CPU and one GiB
USUAL_RUNS = 100
# The spans of a trace in kilobytes: the mean of the 42 traces that MLflow's own demo makes
# (`mlflow demo`), as measured in PostgreSQL 17, which compresses them, and in the bucket; and a
# trace of an agent that reads long documents, which is an assumption.
TRACE_KILOBYTES = (3.7, 50.0)
TRACES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of an experiment as the server sees it: a training that logs for half an hour."""

    # Metrics every ten seconds, and about 20 requests for the run itself, its parameters, tags,
    # artifacts and model.
    requests: int = 200
    # Cloud Run's minimum charge for a request, and longer than most take. Cloud Run charges
    # overlapping requests once, so this is an upper bound.
    seconds: float = 0.1
    # Checkpoints, plots and a model.
    artifacts_gb: float = 0.1
    # The part of them that clients outside Google Cloud download.
    downloaded_gb: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Line:
    what: str
    dollars: float


def database(settings: Settings, *, runs: float) -> list[Line]:
    """Returns the cost of the instance, its disk and its backups after so many runs.

    An existing instance costs nothing extra.
    """
    wanted = settings.database
    if wanted.existing_instance:
        return []
    tier = tiers.require(wanted.tier)
    if wanted.tier in SHARED_CORE_HOUR:
        hour = SHARED_CORE_HOUR[wanted.tier]
    else:
        hour = tier.cpus * VCPU_HOUR[tier.edition] + tier.gigabytes * GB_HOUR[tier.edition]
    machines = 2 if wanted.availability == "REGIONAL" else 1
    twice = ", with its standby" if machines == 2 else ""
    stored = max(1.0, runs / RUNS_PER_GB)
    disk = max(wanted.disk_gb, stored)
    return [
        Line(what=f"Cloud SQL {wanted.tier}{twice}", dollars=machines * hour * HOURS),
        Line(what=f"SSD, {wanted.disk_gb} GB at first{twice}", dollars=machines * disk * DISK_GB),
        Line(what="backups", dollars=stored * BACKUP_GB),
    ]


def server(settings: Settings, *, runs_a_day: float, run: Run) -> list[Line]:
    """Returns the cost of Cloud Run, for requests and warm instances, and of the load balancer."""
    service = settings.service
    cpus, gibibytes = service.cpu, mebibytes(service.memory) / 1024
    requests = runs_a_day * DAYS * run.requests
    seconds = requests * run.seconds
    warm = service.min_instances * SECONDS
    lines = []
    if settings.load_balancer:
        lines.append(Line(what="load balancer", dollars=HOURS * FORWARDING_HOUR))
        if settings.load_balancer.rate_limit:
            lines.append(
                Line(
                    what="Cloud Armor",
                    dollars=POLICY + RULES * RULE + requests * POLICY_REQUEST,
                )
            )
    lines.append(
        Line(
            what=f"Cloud Run, {requests:,.0f} requests",
            dollars=_beyond(seconds * cpus, FREE_VCPU_SECONDS) * VCPU_SECOND
            + _beyond(seconds * gibibytes, FREE_GIB_SECONDS) * GIB_SECOND
            + _beyond(requests, FREE_REQUESTS) * REQUEST,
        )
    )
    if warm:
        lines.append(
            Line(
                what=f"Cloud Run, {service.min_instances} kept warm",
                dollars=warm * (cpus * IDLE_VCPU_SECOND + gibibytes * IDLE_GIB_SECOND),
            )
        )
    return lines


def rest(settings: Settings, *, runs_a_day: float, run: Run, months: int) -> list[Line]:
    """Returns the cost of secrets, images, alerts, artifacts and downloads."""
    logins = settings.logins.values()
    # Artifact address, database and key; for each login a name and, unless the password is in an
    # existing secret, a password.
    versions = 3 + sum(1 if login.password_secret else 2 for login in logins)
    lines = [
        Line(
            what=f"{versions} secrets",
            dollars=_beyond(versions, FREE_SECRET_VERSIONS) * SECRET_VERSION,
        )
    ]
    if settings.image is None:
        lines.append(
            Line(what="images", dollars=_beyond(STORED_IMAGES_GB, FREE_IMAGE_GB) * IMAGE_GB)
        )
    if settings.upkeep.wanted:
        seconds = DAYS * UPKEEP_SECONDS
        lines.append(
            Line(
                what="upkeep job and its schedule",
                dollars=_beyond(seconds, FREE_JOB_VCPU_SECONDS) * JOB_VCPU_SECOND
                + _beyond(seconds, FREE_JOB_GIB_SECONDS) * JOB_GIB_SECOND
                + _beyond(1, FREE_SCHEDULES) * SCHEDULE,
            )
        )
    if settings.service.jobs:
        lines.append(
            Line(
                what="worker of jobs",
                dollars=_beyond(WORKER_CPU * SECONDS, FREE_JOB_VCPU_SECONDS) * JOB_VCPU_SECOND
                + _beyond(WORKER_GIBIBYTES * SECONDS, FREE_JOB_GIB_SECONDS) * JOB_GIB_SECOND,
            )
        )
    if settings.alerts.email:
        alerts = SERVICE_ALERTS + settings.alerts.uptime_check
        alerts += settings.service.accounts + settings.upkeep.wanted
        if not settings.database.existing_instance:
            alerts += DATABASE_ALERTS
        lines.append(
            Line(what=f"{alerts} alerts", dollars=alerts * (ALERT + EVALUATIONS * ALERT_VALUE))
        )
    monthly = runs_a_day * DAYS
    lines += [
        Line(
            what=f"artifacts, {monthly * run.artifacts_gb:,.0f} GB more each month",
            dollars=months * monthly * run.artifacts_gb * ARTIFACT_GB,
        ),
        Line(
            what=f"{monthly * run.downloaded_gb:,.0f} GB downloaded to the internet",
            dollars=monthly * run.downloaded_gb * EGRESS_GB,
        ),
    ]
    return lines


def estimate(
    settings: Settings, *, runs_a_day: float = 0, run: Run | None = None, months: int = 1
) -> list[Line]:
    """Returns the stack's cost in a month, line by line, after it has been used for `months`."""
    run = run or Run()
    return [
        *database(settings, runs=months * DAYS * runs_a_day),
        *server(settings, runs_a_day=runs_a_day, run=run),
        *rest(settings, runs_a_day=runs_a_day, run=run, months=months),
    ]


def spans(
    settings: Settings, *, traces: float, kilobytes: float, months: int
) -> tuple[float, float]:
    """Returns the cost of a month's spans in the database, and archived in the bucket.

    So many traces come each month, for `months`. Each is written to the bucket once.
    """
    gigabytes = months * traces * kilobytes / 1_000_000
    machines = 2 if settings.database.availability == "REGIONAL" else 1
    stored = gigabytes * (machines * DISK_GB + BACKUP_GB)
    return stored, gigabytes * ARTIFACT_GB + traces * OBJECT


def total(lines: list[Line]) -> float:
    return sum(line.dollars for line in lines)


def summary(settings: Settings) -> str:
    """Returns the estimate in one line, for the outputs of `pulumi up`."""
    idle = total(estimate(settings))
    used = total(estimate(settings, runs_a_day=USUAL_RUNS))
    elsewhere = "" if settings.region == REGION else f", at {REGION}'s prices"
    return f"{idle:,.2f} USD idle, {used:,.2f} with {USUAL_RUNS} runs a day{elsewhere}"


def _beyond(amount: float, free: float) -> float:
    return max(0.0, amount - free)
