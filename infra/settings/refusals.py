"""Refused settings as values, and the error that reports all of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pulumi

NAMESPACE = "mlflow-gcp"


@dataclass(frozen=True)
class Command:
    """A shell command that prints a setting's value."""

    text: str


Value = str | int | bool | tuple[str, ...] | Command


@dataclass(frozen=True)
class Set:
    """The remedy that sets a key, without its namespace, to another value."""

    key: str
    value: Value
    secret: bool = False


@dataclass(frozen=True)
class Remove:
    """The remedy that removes a key from the configuration."""

    key: str


Remedy = Set | Remove


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A refused setting: its full key, the given value, what is expected, and what to do."""

    key: str
    given: str
    expected: str
    remedy: Remedy


def command_line(remedy: Remedy) -> str:
    """`Set("memory", "1Gi")` -> `pulumi config set memory 1Gi`"""
    if isinstance(remedy, Remove):
        return f"pulumi config rm {remedy.key}"
    secret = "--secret " if remedy.secret else ""
    if isinstance(remedy.value, tuple):
        [item] = remedy.value
        return f"pulumi config set --path '{remedy.key}[0]' {shlex.quote(item)}"
    if isinstance(remedy.value, Command):
        return f'pulumi config set {remedy.key} "$({remedy.value.text})"'
    return f"pulumi config set {secret}{remedy.key} {shlex.quote(plain(remedy.value))}"


class SettingsError(pulumi.RunError):
    """Every refused setting; Pulumi prints it without a traceback.

    `render` turns a remedy into what users of this front end type.
    """

    def __init__(
        self, refusals: Sequence[Refusal], render: Callable[[Remedy], str] = command_line
    ) -> None:
        self.refusals = tuple(refusals)
        self.render = render
        count = f"{len(refusals)} setting{'s' if len(refusals) > 1 else ''}"
        listed = "\n".join(
            f"  {refusal.key}\n"
            f"    given:    {refusal.given}\n"
            f"    expected: {refusal.expected}\n"
            f"    example:  {render(refusal.remedy)}"
            for refusal in refusals
        )
        super().__init__(f"{count} to correct, nothing was changed:\n{listed}")


def plain(value: str | int | bool) -> str:
    """Returns a value as Pulumi's configuration stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def full(key: str) -> str:
    """`maxInstances` -> `mlflow-gcp:maxInstances`"""
    return key if ":" in key else f"{NAMESPACE}:{key}"


def short(key: str) -> str:
    """`mlflow-gcp:maxInstances` -> `maxInstances`"""
    return key.removeprefix(f"{NAMESPACE}:")
