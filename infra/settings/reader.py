"""Reads single settings as typed values, and collects every problem with them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, TypeVar

import pulumi

NAMESPACE = "mlflow-gcp"

# How many characters of a refused value a message shows.
SHOWN = 200

# Settings of former releases, with what to do instead.
REMOVED = {
    "readReplica": "no such key: viewers read from the database itself, and the next `pulumi up` "
    "deletes the read replica; see docs/traps.md",
}

T = TypeVar("T")

HOSTNAME = re.compile(
    r"(?=.{4,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9]"
)
# The kinds of principals that can log in: https://cloud.google.com/iam/docs/principal-identifiers
MEMBER = re.compile(rf"(?:(?:user|group|serviceAccount):[^\s@:]+@|domain:)(?:{HOSTNAME.pattern})")


@dataclass(frozen=True, kw_only=True)
class Problem:
    key: str
    given: str
    wanted: str
    example: str

    def __str__(self) -> str:
        return (
            f"  {self.key}\n"
            f"    given:   {self.given}\n"
            f"    wanted:  {self.wanted}\n"
            f"    example: {self.example}"
        )


class SettingsError(pulumi.RunError):
    """Every problem with the settings; Pulumi prints it without a traceback."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} setting{'s' if len(problems) > 1 else ''}"
        listed = "\n".join(str(problem) for problem in problems)
        super().__init__(f"{count} to correct, nothing was changed:\n{listed}")


class Reader:
    """Reads typed values and collects all problems instead of stopping at the first.

    A refused value reads as its default, so that checks between settings still run and don't
    report the same problem again.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._read: set[str] = set()
        self._own: set[str] = set()
        self.problems: list[Problem] = []

    def problem(self, key: str, *, wanted: str, example: str, given: str | None = None) -> None:
        """Adds a problem. `example` is a value, or a whole command if a value isn't enough."""
        if given is None:
            value = self._value(key)
            given = "nothing" if value == "" else _shown(value)
        if not example.startswith("pulumi "):
            example = f"pulumi config set {key.removeprefix(f'{NAMESPACE}:')} {example}"
        self.problems.append(Problem(key=key, given=given, wanted=wanted, example=example))

    def ok(self, *keys: str) -> bool:
        """Returns whether none of these keys was refused, so that they can be checked together."""
        return not {full(key) for key in keys} & {problem.key for problem in self.problems}

    def own(self, key: str) -> bool:
        """Returns whether the key is set to something other than its default."""
        return full(key) in self._own

    def output(self, key: str) -> pulumi.Output[str] | None:
        """Returns the value if it is an Output, which another Pulumi program may pass."""
        value = self._value(full(key))
        return value if isinstance(value, pulumi.Output) else None

    def text(
        self,
        key: str,
        default: str,
        *,
        valid: Callable[[str], object] = lambda _: True,
        wanted: str = "",
        example: str = "",
        show: Callable[[str], str] = str,
    ) -> str:
        key = full(key)
        value = str(self._value(key)) or default
        if value and not valid(value):
            self.problem(key, wanted=wanted, example=example, given=_shown(show(value)))
            return default
        return self._noted(key, value, default)

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """Reads one of `choices`; the first is the default."""
        return self.text(
            key,
            choices[0],
            valid=choices.__contains__,
            wanted=f"one of {', '.join(choices)}",
            example=choices[0],
        )

    def integer(
        self, key: str, default: int, *, low: int, high: int, unit: str = "", example: str = ""
    ) -> int:
        key = full(key)
        value = self._value(key)
        if value == "":
            return default
        text = str(value).strip()
        if re.fullmatch(r"-?[0-9]{1,16}", text) and low <= int(text) <= high:
            return self._noted(key, int(text), default)
        wanted = f"a whole number from {low} to {high}{unit}"
        self.problem(key, wanted=wanted, example=example or str(default))
        return default

    def boolean(self, key: str, default: bool) -> bool:
        key = full(key)
        text = str(self._value(key)).lower()
        if text not in {"", "true", "false"}:
            self.problem(key, wanted="true or false", example=str(default).lower())
            return default
        return self._noted(key, default if text == "" else text == "true", default)

    def hostnames(self, key: str) -> tuple[str, ...]:
        hosts = self._list(
            key,
            HOSTNAME.fullmatch,
            wanted="a list of host names, each without scheme, port, path or *",
            example="mlflow.example.com",
        )
        return tuple(host.lower() for host in hosts)

    def members(self, key: str) -> tuple[str, ...]:
        """Reads principals, without duplicates and in lower case, as Google stores them."""
        members = self._list(
            key,
            MEMBER.fullmatch,
            wanted="a list of user:, group: or serviceAccount: with an e-mail address, or domain: "
            "with a domain; allUsers and allAuthenticatedUsers, which let in everyone, are refused",
            example="user:ada@example.com",
        )
        parts = (member.partition(":") for member in members)
        return tuple(dict.fromkeys(f"{kind}:{name.lower()}" for kind, _, name in parts))

    def private_networks(self, key: str) -> tuple[str, ...]:
        return self._list(
            key,
            _is_private_network,
            wanted="a list of private address ranges, each with its length in bits; loopback and "
            "link-local ranges, where the metadata server is, are refused",
            example="10.8.0.0/24",
        )

    def _list(
        self, key: str, valid: Callable[[str], object], *, wanted: str, example: str
    ) -> tuple[str, ...]:
        key = full(key)
        value = self._value(key)
        try:
            items = json.loads(value or "[]") if isinstance(value, str) else value
        except json.JSONDecodeError:
            items = None
        if not (
            isinstance(items, list) and all(isinstance(each, str) and valid(each) for each in items)
        ):
            short = key.removeprefix(f"{NAMESPACE}:")
            example = f"pulumi config set --path '{short}[0]' {example}"
            self.problem(key, wanted=wanted, example=example)
            return ()
        return tuple(items)

    def refuse_unknown(self) -> None:
        known = sorted(key.removeprefix(f"{NAMESPACE}:") for key in self._read)
        for key in self._config:
            if not key.startswith(f"{NAMESPACE}:") or key in self._read:
                continue
            short = key.removeprefix(f"{NAMESPACE}:")
            given = "a key that nothing reads"
            close = difflib.get_close_matches(short, known, n=1)
            wanted = "a key that Pulumi.yaml lists"
            if short in REMOVED:
                given, wanted = "a setting that was removed", REMOVED[short]
            elif close:
                wanted += f"; did you mean {close[0]}?"
            self.problems.append(
                Problem(key=key, given=given, wanted=wanted, example=f"pulumi config rm {key}")
            )

    def _noted(self, key: str, value: T, default: T) -> T:
        if value != default:
            self._own.add(key)
        return value

    def _value(self, key: str) -> Any:
        self._read.add(key)
        value = self._config.get(key)
        return "" if value is None else value


def _is_private_network(text: str) -> bool:
    try:
        network = ip_network(text)
    except ValueError:
        return False
    closed = network.is_loopback or network.is_link_local or network.is_unspecified
    return "/" in text and network.is_private and not closed and network.prefixlen > 0


def _shown(value: Any) -> str:
    """Returns the value on one line, shortened to `SHOWN` characters."""
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def full(key: str) -> str:
    """`maxInstances` -> `mlflow-gcp:maxInstances`"""
    return key if ":" in key else f"{NAMESPACE}:{key}"
