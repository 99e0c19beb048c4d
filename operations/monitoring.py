"""Reads the newest values from Cloud Monitoring, for which gcloud has no command.

https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from operations.errors import OperationError

# gcloud's variable for another address of an API: `gcloud topic configurations`.
_ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING"
_SECONDS = 20

INSTANCES = "run.googleapis.com/container/instance_count"
CONNECTIONS = "cloudsql.googleapis.com/database/postgresql/num_backends"
DISK = "cloudsql.googleapis.com/database/disk/bytes_used"
# Measured once a day: https://cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-storage
STORED = "storage.googleapis.com/storage/v2/total_bytes"
OBJECTS = "storage.googleapis.com/storage/v2/total_count"
_WINDOWS = {STORED: timedelta(days=2), OBJECTS: timedelta(days=2)}
_RECENT = timedelta(minutes=10)


class Monitoring:
    """Reads a project's metrics, with gcloud's login."""

    def __init__(self, *, project: str, token: Callable[[], str]) -> None:
        self._project, self._token = project, token

    def newest(self, metric: str, **labels: str) -> float | None:
        """Returns the sum of all series' newest points, or None without a measurement."""
        now = datetime.now(UTC)
        chosen = [f'metric.type="{metric}"']
        chosen += [f'resource.labels.{name}="{value}"' for name, value in labels.items()]
        query = urllib.parse.urlencode(
            {
                "filter": " AND ".join(chosen),
                "interval.startTime": (now - _WINDOWS.get(metric, _RECENT)).isoformat(),
                "interval.endTime": now.isoformat(),
            }
        )
        root = os.environ.get(_ENDPOINT) or "https://monitoring.googleapis.com/"
        request = urllib.request.Request(  # noqa: S310 Google's, or where gcloud is told it is
            f"{root.rstrip('/')}/v3/projects/{self._project}/timeSeries?{query}",
            headers={"Authorization": f"Bearer {self._token()}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return total(json.load(answer).get("timeSeries", ()))
        except urllib.error.HTTPError as error:
            raise OperationError(f"Cloud Monitoring answers {error.code}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise OperationError(f"Cloud Monitoring doesn't answer ({error})") from None


def total(series: Iterable[Mapping[str, Any]]) -> float | None:
    """Returns the sum of the newest points; a series that ended earlier doesn't count."""
    points = [one["points"][0] for one in series if one.get("points")]
    if not points:
        return None
    last = max(_end(point) for point in points)
    return sum(_value(point) for point in points if last - _end(point) < timedelta(minutes=2))


def _end(point: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(point["interval"]["endTime"])


def _value(point: Mapping[str, Any]) -> float:
    value = point["value"]
    return float(value.get("int64Value", value.get("doubleValue", 0)))
