"""The previous password during a rotation: its setting, and the clients that still use it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from infra.facts.limits import previous_password_until
from operations import cli_tools
from operations.errors import OperationError
from operations.logs import Entry, parsed
from operations.stack import LocalStack, Stack

HOURS = 24
MAX_HOURS = 30 * 24
# How long ago a client may have used the password to count, and how many log entries are read.
RECENT_HOURS = 24
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
    until = previous_password_until(value, version=version)
    return until if until and datetime.fromisoformat(until) > now else ""


def usage(stack: Stack, user: str) -> str:
    """Returns a sentence that says how many clients still use the previous password.

    A log that can't be read must not keep anyone from changing a password that has leaked.
    """
    try:
        count = len(_clients(stack, user))
    except OperationError as error:
        return f"How many clients still use the previous password isn't known: {error}"
    clients = "1 address has" if count == 1 else f"{count or 'no'} addresses have"
    return f"In the last {RECENT_HOURS} hours {clients} used the previous password."


def _clients(stack: Stack, user: str) -> set[str]:
    if isinstance(stack, LocalStack):
        since = datetime.now(UTC) - timedelta(hours=RECENT_HOURS)
        return _addresses(_local_entries(stack), user, since=since)
    entries = cli_tools.gcloud_json(
        *("logging", "read", f'{stack.log_filter} AND jsonPayload.previous_password="{user}"'),
        *(f"--freshness={RECENT_HOURS}h", f"--limit={_MOST}", f"--project={stack.project}"),
    )
    return {entry["jsonPayload"]["client"] for entry in entries}


def _local_entries(stack: LocalStack) -> Iterable[Entry]:
    if not stack.log.exists():
        return
    with stack.log.open(errors="replace") as file:
        yield from filter(None, map(parsed, file))


def _addresses(entries: Iterable[Entry], user: str, *, since: datetime) -> set[str]:
    return {
        str(entry["client"])
        for entry in entries
        if entry.get("previous_password") == user
        and datetime.fromisoformat(str(entry["timestamp"])) >= since
    }
