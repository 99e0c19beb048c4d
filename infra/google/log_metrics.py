"""The log-based metrics: filters on the server's log, and the fields that they count.

tests/server/test_log_metrics.py applies the filters to a real server's log. Their language:
https://cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# The server's own line for each request. Cloud Run also writes one, which must not count twice.
ANSWERED = 'jsonPayload.logger="tracking_server.access"'
# Their duration depends on the size of the file, or on another server.
TAKES_ITS_TIME = "artifact|gateway"


@dataclass(frozen=True, kw_only=True)
class LogMetric:
    """Counts log entries, or with `value` records the distribution of that field."""

    name: str
    description: str
    filter: str
    value: str | None = None
    unit: str = "1"
    # The upper bounds of the histogram's buckets.
    bounds: tuple[float, ...] = ()

    def filter_for(self, service: str) -> str:
        return (
            'resource.type="cloud_run_revision" AND '
            f'resource.labels.service_name="{service}" AND {self.filter}'
        )

    def metric_id(self, service: str) -> str:
        return f"{service}/{self.name}"

    def promql_name(self, service: str) -> str:
        """Returns the metric's name in PromQL.

        https://cloud.google.com/monitoring/promql/promql-mapping
        """
        return f"logging_googleapis_com:user_{re.sub('[^a-z0-9]', '_', self.metric_id(service))}"


FAILED_LOGINS = LogMetric(
    name="failed_logins",
    description="Requests that got 401 because of a wrong username or password.",
    filter=f"{ANSWERED} AND jsonPayload.wrong_credentials=true",
)
REFUSED_LOGINS = LogMetric(
    name="refused_logins",
    description="Requests with wrong credentials that got 429: the client was told to wait.",
    filter='jsonPayload.logger="tracking_server.gate.gate" AND jsonPayload.refused>0',
    value="jsonPayload.refused",
    bounds=(1, 10, 100, 1_000, 10_000, 100_000),
)
SERVER_ERRORS = LogMetric(
    name="server_errors",
    description="Requests to which the server itself responded with 500 or above; Cloud Run also "
    "counts requests that never reached the server.",
    filter=f"{ANSWERED} AND httpRequest.status>=500",
)
LATENCY = LogMetric(
    name="latency",
    description="Seconds until a request got its response, without artifact and gateway requests.",
    filter=f'{ANSWERED} AND httpRequest.requestUrl!~"{TAKES_ITS_TIME}"',
    value="httpRequest.latency",
    unit="s",
    bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100),
)
POOL_IN_USE = LogMetric(
    name="pool_in_use",
    description="The most database connections that one server process had in use at once.",
    filter=f"{ANSWERED} AND jsonPayload.pool.in_use>=0",
    value="jsonPayload.pool.in_use",
    bounds=(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64, 128, 200),
)

DENIED = LogMetric(
    name="denied",
    description="Requests of people's accounts that got 403: they lack the permission.",
    filter=f"{ANSWERED} AND jsonPayload.denied=true",
)
"""Only with accounts."""

LOG_METRICS = (FAILED_LOGINS, REFUSED_LOGINS, SERVER_ERRORS, LATENCY, POOL_IN_USE)
