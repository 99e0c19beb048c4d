"""The previous password during a rotation: its setting, and the clients that still use it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.facts.limits import PREVIOUS_PASSWORD
from operations import cli_tools
from operations.errors import OperationError
from operations.stack import LocalStack, Stack

HOURS = 24
MAX_HOURS = 30 * 24
# How long ago a client may have used the password to count, and how many log entries are read.
RECENT = "24h"
_MOST = 1000


def hours(given: str) -> int:
    """Returns the hours for which a previous password is accepted too."""
    if not given:
        return HOURS
    if not (given.isascii() and given.isdigit() and len(given) < 5 and int(given) <= MAX_HOURS):
        raise OperationError(
            f"HOURS={given!r} isn't known: a whole number from 0, for none, to {MAX_HOURS}, for "
            "example HOURS=24."
        )
    return int(given)


def setting(*, version: int, accepted_for: int, now: datetime) -> str:
    """Returns the setting's value: `1 until 2026-12-01T12:00:00Z`."""
    return f"{version} until {now + timedelta(hours=accepted_for):%Y-%m-%dT%H:%M:%SZ}"


def accepted_until(value: str, *, version: int, now: datetime) -> str:
    """Returns the time until which the version before is accepted; empty if it isn't any more."""
    match = PREVIOUS_PASSWORD.fullmatch(value)
    if not match or int(match["version"]) != version - 1:
        return ""
    return match["time"] if datetime.fromisoformat(match["time"]) > now else ""


def usage(stack: Stack, user: str) -> str:
    """Returns a sentence that says how many clients still use the previous password.

    A log that can't be read must not keep anyone from changing a password that has leaked.
    """
    try:
        count = len(_clients(stack, user))
    except OperationError as error:
        return f"How many clients still use the previous password isn't known: {error}"
    clients = "1 address has" if count == 1 else f"{count or 'no'} addresses have"
    return f"In the last 24 hours {clients} used the previous password."


def _clients(stack: Stack, user: str) -> set[str]:
    if isinstance(stack, LocalStack):
        since = datetime.now(UTC) - timedelta(hours=24)
        return _addresses(_local_entries(stack), user, since=since)
    entries = cli_tools.gcloud_json(
        *("logging", "read"),
        'resource.type="cloud_run_revision"'
        f' AND resource.labels.service_name="{stack.service}"'
        f' AND resource.labels.location="{stack.region}"'
        f' AND jsonPayload.previous_password="{user}"',
        *(f"--freshness={RECENT}", f"--limit={_MOST}", f"--project={stack.project}"),
    )
    return {entry["jsonPayload"]["client"] for entry in entries}


def _local_entries(stack: LocalStack) -> Iterable[Mapping[str, Any]]:
    if not stack.log.exists():
        return
    with stack.log.open(errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


def _addresses(entries: Iterable[Mapping[str, Any]], user: str, *, since: datetime) -> set[str]:
    return {
        str(entry["client"])
        for entry in entries
        if entry.get("previous_password") == user
        and datetime.fromisoformat(str(entry["timestamp"])) >= since
    }
