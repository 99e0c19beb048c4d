"""One request of the sequence, with values from earlier responses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template
from typing import Any

Names = dict[str, str]
"""The values of `$name` in a call: ids from the server, and `$mark`, which marks one pass."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """`expected` is stock's status; `keep` names values of the response by their dotted paths."""

    method: str
    path: str
    expected: int = 200
    params: Mapping[str, Any] | None = None
    json: Any = None
    content: bytes | str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)

    def filled(self, names: Names) -> "Call":
        return Call(
            method=self.method,
            path=_filled(self.path, names),
            expected=self.expected,
            params=_filled(self.params, names),
            json=_filled(self.json, names),
            content=_filled(self.content, names),
            headers=_filled(dict(self.headers), names),
            keep=self.keep,
        )

    def options(self) -> dict[str, Any]:
        """Returns the arguments for `httpx.Client.request`."""
        given = {
            "params": self.params,
            "json": self.json,
            "content": self.content,
            "headers": self.headers,
        }
        return {name: value for name, value in given.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def get(path: str, expected: int = 200, /, *, keep: Mapping[str, str] = {}, **params: Any) -> Call:
    return Call(method="GET", path=path, expected=expected, params=params or None, keep=keep)


def _sending(method: str) -> Any:
    def sending(
        path: str,
        body: Any = None,
        expected: int = 200,
        *,
        keep: Mapping[str, str] = {},
        headers: Mapping[str, str] = {},
    ) -> Call:
        return Call(
            method=method, path=path, json=body, expected=expected, keep=keep, headers=headers
        )

    return sending


post, patch, put, delete = map(_sending, ("POST", "PATCH", "PUT", "DELETE"))


def found(body: Any, place: str) -> str:
    """Returns the value at a path such as `run.info.run_id` or `versions.0.name`."""
    for step in place.split("."):
        body = body[int(step)] if isinstance(body, list) else body[step]
    return str(body)


def keys(**values: str) -> list[dict[str, str]]:
    """Returns a map in MLflow's form: `[{"key": …, "value": …}]`."""
    return [{"key": key, "value": value} for key, value in values.items()]


def text(value: Any) -> str:
    """Returns JSON as a string inside JSON."""
    return json.dumps(value)


def _filled(value: Any, names: Names) -> Any:
    if isinstance(value, str):
        return Template(value).safe_substitute(names)
    if isinstance(value, Mapping):
        return {_filled(key, names): _filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    return value
