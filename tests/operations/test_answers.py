"""Converting responses of Google and Pulumi to tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from operations import cli_tools
from operations.database import DatabaseLogin
from operations.errors import OperationError
from operations.logs import duration, local_line
from operations.monitoring import Monitoring, total
from operations.stack import CloudStack
from operations.status import cloud_parts, instance_line, revision_line, size, table
from tests.operations.machine import OUTPUTS, SETTINGS


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            '{"timestamp": "2026-11-23T18:00:00.123Z", "severity": "INFO", "message": "booted"}',
            "2026-11-23 18:00:00Z  INFO      booted",
        ),
        (
            '{"timestamp": "2026-11-23T18:00:00.123Z", "severity": "WARNING", "httpRequest": '
            '{"requestMethod": "GET", "requestUrl": "/x", "status": 401, "latency": "0.1s"}}',
            "2026-11-23 18:00:00Z  WARNING   GET /x 401 0.1s",
        ),
        ("  File x, line 3", " " * 22 + "DEFAULT     File x, line 3"),
        ("[1, 2]", " " * 22 + "DEFAULT   [1, 2]"),
    ],
    ids=["message", "request", "no JSON", "no entry"],
)
def test_a_line_of_the_log(line: str, wanted: str) -> None:
    assert local_line(line) == wanted


def test_how_far_back() -> None:
    assert [duration(text) for text in ("30s", "5m", "2h", "7d")] == [
        timedelta(seconds=30),
        timedelta(minutes=5),
        timedelta(hours=2),
        timedelta(days=7),
    ]


def series(*values: tuple[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "points": [
                {"interval": {"endTime": f"2026-11-23T{end}Z"}, "value": {"doubleValue": value}},
                {"interval": {"endTime": "2026-11-23T01:00:00Z"}, "value": {"doubleValue": 99}},
            ]
        }
        for end, value in values
    ]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([], None),
        ([{"points": []}], None),
        (series(("18:00:00", 1.5)), 1.5),
        (series(("18:00:00", 1), ("17:59:00", 2)), 3),
        # A revision that no longer exists.
        (series(("18:00:00", 1), ("17:55:00", 2)), 1),
    ],
    ids=["none", "empty", "one", "two", "one that ended"],
)
def test_the_newest_values_together(found: list[dict[str, Any]], wanted: float | None) -> None:
    assert total(found) == wanted


def service(*traffic: tuple[str, int], ready: str, created: str, why: str = "") -> dict[str, Any]:
    return {
        "status": {
            "latestReadyRevisionName": ready,
            "latestCreatedRevisionName": created,
            "traffic": [{"revisionName": name, "percent": share} for name, share in traffic],
            "conditions": [{"type": "Ready", "status": "False", "message": why}] if why else [],
        }
    }


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (service(("m-2", 100), ready="m-2", created="m-2"), "100 % m-2"),
        (service(("m-2", 90), ("m-1", 10), ready="m-2", created="m-2"), "90 % m-2, 10 % m-1"),
        (
            service(("m-1", 100), ready="m-1", created="m-2", why="did not listen"),
            "100 % m-1; the newest, m-2, isn't ready. did not listen",
        ),
        ({}, "none has traffic"),
    ],
    ids=["one", "two", "a failed one", "none"],
)
def test_revisions(told: dict[str, Any], wanted: str) -> None:
    assert revision_line(told) == wanted


def test_a_stopped_instance() -> None:
    told = {
        "name": "m-1",
        "state": "PENDING_CREATE",
        "databaseVersion": "POSTGRES_17",
        "settings": {"tier": "db-f1-micro", "dataDiskSizeGb": "10", "availabilityType": "ZONAL"},
    }
    assert instance_line(told) == (
        "m-1 is PENDING_CREATE, PostgreSQL 17, db-f1-micro, 10 GB of disk"
    )


def test_sizes() -> None:
    assert [size(count) for count in (0, 999, 1000, 12.3e6, 4e9, 5e12, 7e15)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "12.3 MB",
        "4 GB",
        "5 TB",
        "7e+03 TB",
    ]


def test_an_invalid_address_is_refused() -> None:
    with pytest.raises(OperationError, match="`pulumi up` writes it again") as refused:
        DatabaseLogin.of("postgresql://canary-password@host/db")
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("name", ["dev", "my-org/dev", "my-org/mlflow-gcp/dev"])
def test_the_file_of_a_stack(name: str) -> None:
    assert CloudStack(name).file == "Pulumi.dev.yaml"


def test_a_database_without_measurements_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_tools, "gcloud", lambda *_: "token")
    monkeypatch.setattr(Monitoring, "newest", lambda *_, **__: None)
    stack = CloudStack("dev")
    stack.outputs, stack.config = OUTPUTS, SETTINGS
    rows = [part for part in cloud_parts(stack) if part[0] == "in use"]
    assert table(rows) == "in use  not known: nothing was measured in the last minutes"
