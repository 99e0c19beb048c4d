"""What is counted in the server's log: the filters, and the fields that they look at.

tests/server/test_log_metrics.py applies them to what a real server has logged. The language:
https://cloud.google.com/logging/docs/view/logging-query-language
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Our own line for each request. Cloud Run writes one too, which must not be counted again.
ANSWERED = 'jsonPayload.logger="tracking_server.access"'
# As long as the file is large, or as another server takes.
TAKES_ITS_TIME = "artifact|gateway"


@dataclass(frozen=True, kw_only=True)
class LogMetric:
    """A counter of entries, or with a `value` the distribution of that field of theirs."""

    name: str
    description: str
    filter: str
    value: str | None = None
    unit: str = "1"
    # Upper bounds of the histogram's buckets.
    bounds: tuple[float, ...] = ()

    def filter_for(self, service: str) -> str:
        return (
            'resource.type="cloud_run_revision" AND '
            f'resource.labels.service_name="{service}" AND {self.filter}'
        )

    def metric_id(self, service: str) -> str:
        return f"{service}/{self.name}"

    def promql_name(self, service: str) -> str:
        """https://cloud.google.com/monitoring/promql/promql-mapping"""
        return f"logging_googleapis_com:user_{re.sub('[^a-z0-9]', '_', self.metric_id(service))}"


FAILED_LOGINS = LogMetric(
    name="failed_logins",
    description="Requests that were answered 401 because of a wrong username or password.",
    filter=f"{ANSWERED} AND jsonPayload.wrong_credentials=true",
)
REFUSED_LOGINS = LogMetric(
    name="refused_logins",
    description="Requests with wrong credentials of clients that were told to wait, answered 429.",
    filter='jsonPayload.logger="tracking_server.gate.gate" AND jsonPayload.refused>0',
    value="jsonPayload.refused",
    bounds=(1, 10, 100, 1_000, 10_000, 100_000),
)
SERVER_ERRORS = LogMetric(
    name="server_errors",
    description="Requests that the server itself answered 500 or above; Cloud Run counts also "
    "those that never reached it.",
    filter=f"{ANSWERED} AND httpRequest.status>=500",
)
LATENCY = LogMetric(
    name="latency",
    description="Seconds until a request was answered, but for artifacts and the gateway's.",
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

LOG_METRICS = (FAILED_LOGINS, REFUSED_LOGINS, SERVER_ERRORS, LATENCY, POOL_IN_USE)
