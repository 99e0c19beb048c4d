"""`make logs`: the server's log, one readable line for each entry.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from local.run import described
from operations import commands
from operations.errors import OperationError
from operations.stack import LocalStack, Stack

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MOST = 1000


def duration(since: str) -> timedelta:
    """`30m` as gcloud understands it: https://cloud.google.com/sdk/gcloud/reference/topic/datetimes"""
    found = re.fullmatch(r"(\d{1,5})([smhd])", since)
    if not found:
        raise OperationError(
            f"SINCE={since!r} isn't known: a number with s, m, h or d, for example SINCE=30m."
        )
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def line(entry: Mapping[str, Any]) -> str:
    """An entry of Cloud Logging: time, severity, and the message or the request."""
    payload = entry.get("jsonPayload") or {}
    message = payload.get("message") or entry.get("textPayload") or ""
    severity, text = described({**entry, "message": message})
    return f"{moment(entry.get('timestamp', ''))}  {severity:8}  {text}"


def moment(timestamp: str) -> str:
    """To the second, in UTC."""
    return f"{timestamp[:19].replace('T', ' ')}Z" if timestamp else " " * 20


def local_line(text: str) -> str:
    """A line of the server's own, which Cloud Logging would take apart into an entry."""
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        return line({"textPayload": text})
    return line({**entry, "jsonPayload": entry})


def logs(stack: Stack, *, since: str, follow: bool) -> None:
    start = datetime.now(UTC) - duration(since)
    if isinstance(stack, LocalStack):
        _local(stack.log, start=start, follow=follow)
        return
    _ = stack.outputs
    where = (f"--region={stack.region}", f"--project={stack.project}")
    if follow:
        # Google's own, which needs no asking again and again; it prints in its own way.
        command = ("beta", "run", "services", "logs", "tail", stack.service)
        if code := commands.attended("gcloud", *command, *where):
            raise OperationError(f"gcloud {' '.join(command[:-1])} ended with exit code {code}.")
        return
    chosen = (
        'resource.type="cloud_run_revision"'
        f' AND resource.labels.service_name="{stack.service}"'
        f' AND resource.labels.location="{stack.region}"'
        # The server logs each request itself; what Google's front turns away is only here.
        ' AND (NOT log_id("run.googleapis.com/requests") OR severity>=WARNING)'
    )
    entries = commands.gcloud_json(
        *("logging", "read", chosen, f"--freshness={since}", f"--limit={_MOST}", "--order=desc"),
        f"--project={stack.project}",
    )
    if not entries:
        _say(f"nothing was logged in the last {since} (SINCE=1d goes further back)")
    if len(entries) == _MOST:
        _say(f"the last {_MOST} entries; for fewer, for example SINCE=5m")
    for entry in reversed(entries):
        print(line(entry))


def _local(log: Path, *, start: datetime, follow: bool) -> None:
    if not log.exists():
        raise OperationError("No stack has run on this computer: `make local-up` starts it.")
    first = start.strftime("%Y-%m-%d %H:%M:%SZ")
    shown = False
    for text in _lines(log, follow=follow):
        readable = local_line(text)
        # A line without a time belongs to the one before it.
        shown = shown if readable.startswith(" ") else readable[: len(first)] >= first
        if shown:
            print(readable, flush=follow)


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


def _say(text: str) -> None:
    print(text, file=sys.stderr)
