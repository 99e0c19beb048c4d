"""`make logs`: prints the server's log, one readable line for each entry.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fake_google.run.container import described
from operations import cli_tools
from operations.errors import OperationError
from operations.stack import CloudStack, LocalStack, Stack

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MOST = 1000
# A project may read 60 times a minute: https://cloud.google.com/logging/quotas.
_POLL_SECONDS = 5
# How late an entry may become readable, after newer entries.
_LATE = timedelta(seconds=30)

Entry = Mapping[str, Any]


def duration(since: str) -> timedelta:
    """Parses `30m`, as gcloud does: https://cloud.google.com/sdk/gcloud/reference/topic/datetimes"""
    found = re.fullmatch(r"([0-9]{1,5})([smhd])", since)
    if not found:
        raise OperationError(
            f"SINCE={since!r} isn't known: a number with s, m, h or d, for example SINCE=30m."
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def line(entry: Entry) -> str:
    """Formats an entry of Cloud Logging: time, severity, and the message or the request."""
    payload = entry.get("jsonPayload") or {}
    message = payload.get("message") or entry.get("textPayload") or ""
    severity, text = described({**entry, "message": message})
    return f"{moment(entry.get('timestamp', ''))}  {severity:8}  {text}"


def moment(timestamp: str) -> str:
    """Formats a timestamp to the second, in UTC."""
    return f"{timestamp[:19].replace('T', ' ')}Z" if timestamp else " " * 20


def local_line(text: str) -> str:
    """Formats a line of the server's log, which Cloud Logging would parse into an entry."""
    entry = parsed(text)
    if entry is None:
        return line({"textPayload": text})
    return line({**entry, "jsonPayload": entry})


def parsed(text: str) -> Entry | None:
    """Returns the entry in a line of the server's log; None for other text."""
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def logs(stack: Stack, *, since: str, follow: bool) -> None:
    start = datetime.now(UTC) - duration(since)
    if isinstance(stack, LocalStack):
        _local(stack.log, start=start, since=since, follow=follow)
        return
    _ = stack.outputs
    newest_first = _read(stack, "", f"--freshness={since}", f"--limit={_MOST}", "--order=desc")
    entries = newest_first[::-1]
    if not entries:
        _nothing(since)
    if len(entries) == _MOST:
        _say(f"the last {_MOST} entries; for fewer, for example SINCE=5m")
        start = _when(entries[0])
    for entry in entries:
        print(line(entry), flush=follow)
    if follow:

        def read(begin: datetime) -> Sequence[Entry]:
            time.sleep(_POLL_SECONDS)
            return _read(stack, f' AND timestamp>="{begin:%Y-%m-%dT%H:%M:%S.%fZ}"', "--order=asc")

        for entry in following(entries, read, start=start):
            print(line(entry), flush=True)


def _read(stack: CloudStack, more: str, *options: str) -> list[Entry]:
    chosen = (
        f"{stack.log_filter}"
        # The server logs each request itself. Requests that Google's front end refuses are only in
        # Cloud Run's own log.
        ' AND (NOT log_id("run.googleapis.com/requests") OR severity>=WARNING)'
    )
    found: list[Entry] = cli_tools.gcloud_json(
        *("logging", "read", chosen + more, *options), f"--project={stack.project}"
    )
    return found


def following(
    entries: Sequence[Entry], read: Callable[[datetime], Sequence[Entry]], *, start: datetime
) -> Iterator[Entry]:
    """Yields each entry after `entries` once; `read` returns the entries since a given time.

    `gcloud beta run services logs tail` would need an extra component, and has no SINCE.
    """
    seen = {entry["insertId"]: _when(entry) for entry in entries}
    while True:
        begin = max(start, max(seen.values(), default=start) - _LATE)
        seen = {name: when for name, when in seen.items() if when >= begin}
        for entry in read(begin):
            if entry["insertId"] not in seen:
                seen[entry["insertId"]] = _when(entry)
                yield entry


def _when(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry["timestamp"])


def _local(log: Path, *, start: datetime, since: str, follow: bool) -> None:
    if not log.exists():
        raise OperationError(
            "The server has not run on this computer yet: `make local-up` starts it."
        )
    first = start.strftime("%Y-%m-%d %H:%M:%SZ")
    shown = anything = False
    for text in _lines(log, follow=follow):
        readable = local_line(text)
        # A line without a time belongs to the one before it.
        shown = shown if readable.startswith(" ") else readable[: len(first)] >= first
        if shown:
            anything = True
            print(readable, flush=follow)
    if not anything:
        _nothing(since)


def _lines(log: Path, *, follow: bool) -> Iterator[str]:
    with log.open(errors="replace") as file:
        part = ""
        while True:
            part += file.readline()
            if part.endswith("\n"):
                yield part.rstrip("\n")
                part = ""
            elif not follow:
                return
            else:
                time.sleep(0.2)


def _nothing(since: str) -> None:
    _say(f"nothing was logged in the last {since} (SINCE=1d goes further back)")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
