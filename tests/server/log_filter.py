"""Converts a log line as Cloud Logging does, and matches it against filters.

Only the parts of the query language that infra/google/log_metrics.py uses are known. Any other part
raises, so that an unknown filter isn't mistaken for one without matches. The line:
https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields
The language: https://cloud.google.com/logging/docs/view/logging-query-language
"""

import json
import re
from typing import Any

Entry = dict[str, Any]

# Fields of the line that become fields of the entry; all others are the payload.
SPECIAL = {"severity": "severity", "httpRequest": "httpRequest"}
SPECIAL["logging.googleapis.com/trace"] = "trace"

COMPARISON = re.compile(r'([A-Za-z_.]+)(!~|>=|=|>)("[^"]*"|true|[0-9]+)')


def entry_of(line: Entry, *, service: str) -> Entry:
    payload = {key: value for key, value in line.items() if key not in SPECIAL}
    return {
        "resource": {"type": "cloud_run_revision", "labels": {"service_name": service}},
        **{SPECIAL[key]: value for key, value in line.items() if key in SPECIAL},
        "jsonPayload": payload,
    }


def matches(filter_: str, entry: Entry) -> bool:
    return all(_holds(comparison, entry) for comparison in filter_.split(" AND "))


def value(entry: Entry, path: str) -> Any:
    """Returns the value of a field, None if the entry doesn't have it."""
    found: Any = entry
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def number(entry: Entry, path: str) -> float:
    """Returns the value that a distribution records for a field; durations are in seconds."""
    found = value(entry, path)
    if isinstance(found, str) and re.fullmatch(r"[0-9]+\.[0-9]+s", found):
        return float(found[:-1])
    if type(found) not in (int, float):
        raise ValueError(f"{path} is not a number: {found!r}")
    return float(found)


def _holds(comparison: str, entry: Entry) -> bool:
    parsed = COMPARISON.fullmatch(comparison)
    if not parsed:
        raise ValueError(f"unknown comparison: {comparison}")
    path, operator, text = parsed.groups()
    found, wanted = value(entry, path), json.loads(text)
    if found is None:
        return False
    if operator == "=":
        return bool(found == wanted)
    if operator == "!~":
        return re.search(wanted, found) is None
    return bool(found >= wanted if operator == ">=" else found > wanted)
