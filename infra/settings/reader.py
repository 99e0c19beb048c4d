"""Reads and checks the whole configuration before the first resource is created."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import pulumi
from pulumi.runtime import config as pulumi_config

from .kinds import InvalidError, Password, shown
from .refusals import NAMESPACE, Refusal, Remove, Set, SettingsError, full, short
from .rules import check_together
from .schema import Setting, Settings, listed

# Settings of former releases, with what to do instead.
REMOVED = {
    "readReplica": "no setting: viewers read from the database itself, and the next `pulumi up` "
    "deletes the read replica; see docs/traps.md",
}

T = TypeVar("T")


def stack_config() -> dict[str, str]:
    """Returns the whole configuration from Pulumi's engine; each key has its namespace.

    Raises:
        pulumi.RunError: if the project has another name, which its settings' keys would begin with.
    """
    if (project := pulumi.get_project()) != NAMESPACE:
        raise pulumi.RunError(
            f"Pulumi.yaml has the name {project!r}, and must have the name {NAMESPACE}, because "
            f"all settings begin with {NAMESPACE}: (for example {NAMESPACE}:memory). Write "
            f"`name: {NAMESPACE}` into Pulumi.yaml; a project's stacks may have any names"
        )
    return {**pulumi_config.get_config_env(), **pulumi_config.CONFIG.get()}


def load(
    config: Mapping[str, Any], *, is_secret: Callable[[str], bool] = pulumi_config.is_config_secret
) -> Settings:
    """Returns the settings of a configuration, whose keys have their namespace.

    A refused value reads as its default, so that rules between settings are still checked and
    don't report the same problem again.

    Raises:
        SettingsError: if any is refused; it lists every refused setting.
    """
    refusals: list[Refusal] = []
    settings = _read(Settings(), config, is_secret, refusals)
    refusals += check_together(settings, config, refused={refusal.key for refusal in refusals})
    refusals += _unknown(config)
    if refusals:
        raise SettingsError(refusals)
    return settings


def _read(
    defaults: T,
    config: Mapping[str, Any],
    is_secret: Callable[[str], bool],
    refusals: list[Refusal],
) -> T:
    """Returns the settings with the values of the configuration."""
    given: dict[str, Any] = {}
    for each in fields(defaults):  # type: ignore[arg-type]
        setting: Setting | None = each.metadata.get("setting")
        if not setting:
            given[each.name] = _read(getattr(defaults, each.name), config, is_secret, refusals)
            continue
        try:
            given[each.name] = _value(setting, config.get(full(setting.key)), is_secret)
        except SettingsError as error:
            refusals += error.refusals
    return replace(defaults, **given)  # type: ignore[type-var]


def _value(setting: Setting, given: Any, is_secret: Callable[[str], bool]) -> Any:
    key, kind = full(setting.key), setting.kind
    if isinstance(kind, Password) and isinstance(given, pulumi.Output):
        # Known later, but before any resource uses it.
        return pulumi.Output.secret(given).apply(lambda word: _parsed(setting, word))
    if given is None or given == "":
        if not setting.required:
            return kind.default
        given = ""
    value = _parsed(setting, given)
    # Pulumi.yaml can't require a secret: `secret: true` there would refuse the empty default.
    if isinstance(kind, Password) and not is_secret(key):
        raise SettingsError(
            [
                Refusal(
                    key=key,
                    given="(hidden), in plain text in the stack's file",
                    expected="a new password, set with --secret: the stack's file gets committed",
                    remedy=Set(setting.key, kind.example, secret=True),
                )
            ]
        )
    return value


def _parsed(setting: Setting, given: Any) -> Any:
    try:
        return setting.kind.parse(given)
    except InvalidError as invalid:
        refusal = Refusal(
            key=full(setting.key),
            given=(shown(given) if invalid.given is None else invalid.given) or "nothing",
            expected=invalid.expected,
            remedy=Set(setting.key, invalid.example, secret=isinstance(setting.kind, Password)),
        )
    raise SettingsError([refusal])


def _unknown(config: Mapping[str, Any]) -> list[Refusal]:
    known = [setting.key for setting in listed()]
    refusals = []
    for key in config:
        if not key.startswith(f"{NAMESPACE}:") or short(key) in known:
            continue
        given = "an unknown setting"
        expected = "a setting that docs/settings.md lists"
        if short(key) in REMOVED:
            given, expected = "a setting that was removed", REMOVED[short(key)]
        elif close := difflib.get_close_matches(short(key), known, n=1):
            expected += f"; did you mean {close[0]}?"
        refusals.append(Refusal(key=key, given=given, expected=expected, remedy=Remove(short(key))))
    return refusals
