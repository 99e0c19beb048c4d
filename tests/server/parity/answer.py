"""Responses in a form that can be compared, with placeholders for times and random values."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

_HEADERS = (
    "content-type",
    "content-disposition",
    "allow",
    "location",
    "cache-control",
    "x-content-type-options",
    "x-frame-options",
    "content-security-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "strict-transport-security",
    "vary",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
)

# The order matters: the longer ones contain text that the shorter ones match.
_CHANCE = (
    # Stock includes the driver's message and the statement; ours refers to the log.
    (
        re.compile(r"\(psycopg2\..*|The database refused this: .*", re.DOTALL),
        "<the database's error>",
    ),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uuid>"),
    (re.compile(r"[0-9a-f]{32,64}|^[0-9a-f]{8}$"), "<hex>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b1[789]\d{8,17}\b"), "<timestamp>"),
)
_YEAR_2025 = 1.7e9
"""In seconds; MLflow uses seconds, milliseconds and nanoseconds."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any

    def differences(self, other: "Answer") -> list[str]:
        """Returns the differences, one line for each."""
        lines = []
        if self.status != other.status:
            lines.append(f"status: {self.status} != {other.status}")
        lines += [
            f"{name}: {self.headers.get(name)!r} != {other.headers.get(name)!r}"
            for name in _HEADERS
            if self.headers.get(name) != other.headers.get(name)
        ]
        return lines + _differences("body", self.body, other.body)


def comparable(answer: httpx.Response, names: Mapping[str, str]) -> Answer:
    """`names` are values that are known under a name, such as ids of created objects."""
    known = {value: f"${name}" for name, value in names.items() if len(value) > 5}
    headers = {
        name: _named(answer.headers[name], known) for name in _HEADERS if name in answer.headers
    }
    if "allow" in headers:  # a set, in any order
        headers["allow"] = ", ".join(sorted(headers["allow"].split(", ")))
    return Answer(answer.status_code, headers, _body(answer, known))


def shape(value: Any) -> Any:
    """Returns the JSON without its values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def _body(answer: httpx.Response, known: Mapping[str, str]) -> Any:
    if "json" in answer.headers.get("content-type", "") and answer.content:
        return _named(json.loads(answer.content), known)
    try:
        return _named(answer.content.decode(), known)
    except UnicodeDecodeError:
        return answer.content


def _named(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_named(key, known): _named(item, known) for key, item in value.items()}
    if isinstance(value, list):
        items = [_named(item, known) for item in value]
        # MLflow's format of a map, which the database returns in any order.
        if all(isinstance(item, dict) and item.keys() == {"key", "value"} for item in items):
            return sorted(items, key=lambda item: str(item["key"]))
        return items
    if isinstance(value, str):
        for found, name in known.items():
            value = value.replace(found, name)
        for pattern, name in _CHANCE:
            value = pattern.sub(name, value)
    elif isinstance(value, int | float) and value > _YEAR_2025:
        return "<timestamp>"
    return value


def _differences(place: str, one: Any, other: Any) -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted(one.keys() | other.keys())
            for line in _differences(f"{place}.{key}", one.get(key, "—"), other.get(key, "—"))
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for number, (left, right) in enumerate(zip(one, other, strict=True))
            for line in _differences(f"{place}[{number}]", left, right)
        ]
    return [] if one == other else [f"{place}: {_short(one)} != {_short(other)}"]


def _short(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= 300 else f"{written[:300]}… ({len(written)})"
