"""Alert thresholds, and the first steps to take when an alert fires.

The conditions are PromQL, which can combine a ratio with a minimum number of requests. The metrics:
https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-run and
https://cloud.google.com/sql/docs/postgres/admin-api/metrics; their names in PromQL:
https://cloud.google.com/monitoring/promql/promql-mapping
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from ..facts import tiers
from ..facts.limits import RESERVED_CONNECTIONS
from ..facts.names import upkeep_job
from ..settings.schema import DatabaseSettings
from . import log_metrics
from .console import Console
from .log_metrics import LogMetric
from .service import HEALTH

# The thresholds.
ERRORS, ERROR_SHARE = 10, 0.05
SLOW_SECONDS, SLOW_CALLS = 5, 20
FAILED_LOGINS = 50
DENIED = 50
CONNECTIONS_SHARE = 0.9
DISK_SHARE = 0.85
# The share of the uptime check's requests that must succeed.
UP_SHARE = 0.5

WINDOW = "10m"

IN_SERVICE = 'monitored_resource="cloud_run_revision"'


@dataclass(frozen=True, kw_only=True)
class Alert:
    name: str
    title: str
    severity: str
    query: pulumi.Input[str]
    # How long the condition must hold.
    seconds: int
    meaning: str
    # The first steps to take, in this order.
    steps: tuple[str, str]

    @property
    def documentation(self) -> str:
        first, second = self.steps
        return f"{self.meaning}\n\n1. {first}\n2. {second}\n"


def connections_limit(database: DatabaseSettings, *, max_instances: int) -> int:
    """Returns the number of connections above which the alert fires.

    That is nine tenths of the usable connections, but at least as many as exist when every pool is
    full. Connections that PostgreSQL reserves for superusers aren't usable.
    """
    accepted = tiers.require(database.tier).max_connections
    usable = accepted - RESERVED_CONNECTIONS["superuser_reserved_connections"]
    agents = RESERVED_CONNECTIONS["Cloud SQL's agents"]
    return max(int(CONNECTIONS_SHARE * usable), max_instances * database.connections + agents)


def error_query(service: str) -> str:
    every = f'{IN_SERVICE},service_name="{service}"'
    failed = _requests(f'{every},response_code_class="5xx"')
    return f"{failed} > {ERRORS} and {failed} / {_requests(every)} > {ERROR_SHARE}"


def latency_query(service: str) -> str:
    buckets = f"sum by (le) ({_increase(log_metrics.LATENCY, service, '_bucket')})"
    calls = f"sum({_increase(log_metrics.LATENCY, service, '_count')})"
    return f"histogram_quantile(0.99, {buckets}) > {SLOW_SECONDS} and {calls} > {SLOW_CALLS}"


def failed_logins_query(service: str) -> str:
    # A metric without any entries has no value, and a sum with it would have none either.
    counted = " + ".join(
        f"(sum({_increase(metric, service, part)}) or vector(0))"
        for metric, part in (
            (log_metrics.FAILED_LOGINS, ""),
            (log_metrics.REFUSED_LOGINS, "_sum"),
        )
    )
    return f"{counted} > {FAILED_LOGINS}"


def denied_query(service: str) -> str:
    return f"sum({_increase(log_metrics.DENIED, service, '')}) > {DENIED}"


def upkeep_query(job: str) -> str:
    failed = f'monitored_resource="cloud_run_job",job_name="{job}",result="failed"'
    return (
        f"sum(increase(run_googleapis_com:job_completed_execution_count{{{failed}}}[{WINDOW}])) > 0"
    )


def connections_query(database_id: str, *, limit: int) -> str:
    # There is one series for each database of the instance.
    return f"sum({_of_database('postgresql_num_backends', database_id)}) > {limit}"


def disk_query(database_id: str, *, limit_gb: int) -> str:
    # Not the used share of the disk: a disk that grows automatically is always nearly full.
    return (
        f"max({_of_database('disk_bytes_used', database_id)}) > "
        f"{int(DISK_SHARE * limit_gb * 1_000_000_000)}"
    )


def uptime_query(check_id: str) -> str:
    return (
        "avg(avg_over_time(monitoring_googleapis_com:uptime_check_check_passed"
        f'{{monitored_resource="uptime_url",check_id="{check_id}"}}[{WINDOW}])) < {UP_SHARE}'
    )


def _requests(labels: str) -> str:
    return f"sum(increase(run_googleapis_com:request_count{{{labels}}}[{WINDOW}]))"


def _increase(metric: LogMetric, service: str, part: str) -> str:
    return f"increase({metric.promql_name(service)}{part}{{{IN_SERVICE}}}[{WINDOW}])"


def _of_database(metric: str, database_id: str) -> str:
    return (
        f"cloudsql_googleapis_com:database_{metric}"
        f'{{monitored_resource="cloudsql_database",database_id="{database_id}"}}'
    )


def service_alerts(console: Console) -> list[Alert]:
    prefix, log = console.scope.prefix, console.log
    return [
        Alert(
            name="errors",
            title="requests fail",
            severity="CRITICAL",
            query=error_query(prefix),
            seconds=0,
            meaning=f"More than {ERRORS} requests, and more than {ERROR_SHARE:.0%} of all, got a "
            f"5xx response within {WINDOW}. MLflow's client retries such requests for a while; "
            "then runs fail.",
            steps=(
                f"Read {log} with `severity>=WARNING`: a traceback of the server names the cause. "
                "Without a traceback, Cloud Run itself responded: either no instance boots (a "
                "CRITICAL line says what is missing), or all are busy (raise `maxInstances`).",
                f"If it began with a new {console.revision}, send the traffic to the previous one. "
                f"Otherwise check that {console.database} runs.",
            ),
        ),
        Alert(
            name="latency",
            title="requests are slow",
            severity="WARNING",
            query=latency_query(prefix),
            seconds=300,
            meaning="For five minutes, one call in a hundred has taken more than "
            f"{SLOW_SECONDS} s. Artifact transfers and gateway calls don't count.",
            steps=(
                f"Chart the metric `{log_metrics.POOL_IN_USE.metric_id(prefix)}` and read "
                f"`jsonPayload.pool.waiting` in {log}: if requests wait for a connection, raise "
                "`databaseConnections`.",
                f"Check the CPU of {console.database}: if it is at its limit, set a larger "
                "`databaseTier`, or have the busiest clients send fewer requests.",
            ),
        ),
        Alert(
            name="failed-logins",
            title="many wrong passwords",
            severity="WARNING",
            query=failed_logins_query(prefix),
            seconds=0,
            meaning=f"More than {FAILED_LOGINS} requests had a wrong username or password within "
            f"{WINDOW}: someone is guessing, or jobs still use an old password.",
            steps=(
                f"Read {log} with `httpRequest.status=(401 OR 429)`: Cloud Run's lines have the "
                "address in `httpRequest.remoteIp`. If it is one of your clients, give it the "
                "current password: `pulumi stack output tracking_password --show-secrets`.",
                "A stranger can't guess a generated password. If the password may have leaked, "
                "replace it: increment `trackingPasswordVersion`, or set a new `trackingPassword`, "
                "and run `pulumi up`.",
            ),
        ),
    ]


def denied_alert(console: Console) -> Alert:
    return Alert(
        name="denied",
        title="many denied permissions",
        severity="WARNING",
        query=denied_query(console.scope.prefix),
        seconds=0,
        meaning=f"More than {DENIED} requests of people's accounts were denied within {WINDOW}: "
        "someone looks for what others have, or a job lacks a permission.",
        steps=(
            f"Read {console.log} with `jsonPayload.denied=true`: `jsonPayload.user` is the "
            "account, and `jsonPayload.change` what it tried to change.",
            "Grant the account what its owner needs (docs/accounts.md). If its owner didn't send "
            "these requests, give the account a new password.",
        ),
    )


def upkeep_alert(console: Console) -> Alert:
    job = upkeep_job(console.scope.prefix)
    return Alert(
        name="upkeep-failed",
        title="the upkeep job has failed",
        severity="WARNING",
        query=upkeep_query(job),
        seconds=0,
        meaning="The daily job that deletes permanently or archives traces didn't finish its work. "
        "The next day's run tries again.",
        steps=(
            f"Read the log of the last execution in {console.jobs}: each thing that failed has a "
            "line with the reason.",
            "If it lacks a permission or the database, run `pulumi up`, and then `make upkeep`.",
        ),
    )


def database_alerts(
    console: Console,
    *,
    database: DatabaseSettings,
    max_instances: int,
    database_id: pulumi.Output[str],
) -> list[Alert]:
    limit = connections_limit(database, max_instances=max_instances)
    limit_gb = database.disk_limit_gb
    return [
        Alert(
            name="connections",
            title="database connections run out",
            severity="ERROR",
            query=database_id.apply(lambda id_: connections_query(id_, limit=limit)),
            seconds=300,
            meaning=f"The database has more than {limit} connections: more than the server's "
            "pools hold, or nearly as many as it accepts. When no connections are left, instances "
            "don't boot and requests get 5xx responses.",
            steps=(
                f"Find out who uses them: in Cloud SQL Studio of {console.database}, "
                "`pg_stat_activity` has a line for each. End those that aren't the server's.",
                "If all are the server's, old revisions still serve: lower `maxInstances`, or set "
                "a larger `databaseTier`.",
            ),
        ),
        Alert(
            name="disk",
            title="the database's disk fills",
            severity="ERROR",
            query=database_id.apply(lambda id_: disk_query(id_, limit_gb=limit_gb)),
            seconds=0,
            meaning=f"The database uses {DISK_SHARE:.0%} of the {limit_gb} GB up to which its disk "
            "grows automatically. A full disk stops the database.",
            steps=(
                "Raise `databaseDiskLimitGb` and run `pulumi up`: it applies at once and costs "
                "nothing until the disk grows.",
                f"Check in {console.database} since when it has grown, and delete runs and traces "
                "that nobody needs: `cleanupAfterDays` has deleted ones removed permanently.",
            ),
        ),
    ]


def uptime_alert(console: Console, *, check_id: pulumi.Output[str]) -> Alert:
    return Alert(
        name="uptime",
        title="the server does not answer",
        severity="CRITICAL",
        query=check_id.apply(uptime_query),
        seconds=0,
        meaning=f"More than half of the requests to {HEALTH} from around the world failed within "
        f"{WINDOW}.",
        steps=(
            "Open the server's address. If it responds, a cold start or the network was the cause: "
            "`minInstances` 1 keeps an instance warm.",
            f"Read {console.log} with `severity=CRITICAL`: a boot that fails says what is missing. "
            f"If it began with a new {console.revision}, send the traffic to the previous one.",
        ),
    )
