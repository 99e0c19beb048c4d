"""Checks the settings of a server in another program, and reports refusals in its language."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pulumi

from .settings.kinds import Password
from .settings.reader import load
from .settings.refusals import (
    Command,
    Refusal,
    Remedy,
    Remove,
    Set,
    SettingsError,
    command_line,
    full,
    short,
)
from .settings.schema import Settings, listed

# The project's own settings; the name is a separate argument, and the provider has the others.
_SETTINGS = {setting.argument: setting for setting in listed() if setting.is_argument}
_ARGUMENTS = {setting.key: argument for argument, setting in _SETTINGS.items()}


@dataclass(frozen=True, kw_only=True)
class Language:
    """How programs in a language write a setting.

    `name` turns a setting's key into its name there, and `assign` is between name and value. The
    last two are the value of a password and of another setting in the program's configuration.
    """

    name: Callable[[str], str]
    assign: str
    literal: Callable[[str | int | bool], str]
    hidden: str
    configured: str


def _in_python(value: str | int | bool) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


PYTHON = Language(
    name=lambda key: _ARGUMENTS.get(key, key),
    assign="=",
    literal=_in_python,
    hidden='pulumi.Config().require_secret("{name}")',
    configured='pulumi.Config().require("{name}")',
)
# What YAML and TypeScript have in common.
PROPERTIES = Language(
    name=lambda key: key,
    assign=": ",
    literal=json.dumps,
    hidden="... (a secret in the program's configuration)",
    configured="... (a plain value in the program's configuration)",
)


def checked(name: str, arguments: Mapping[str, Any], language: Language) -> Settings:
    """Returns the settings of the server with this name.

    Raises:
        SettingsError: with all refused settings, in the language's names.
    """
    later = [
        _key(argument)
        for argument, value in arguments.items()
        if isinstance(value, pulumi.Output) and not _is_password(_key(argument))
    ]
    if later:
        raise SettingsError(
            [
                Refusal(
                    key=language.name(key),
                    given="an Output, which is known later",
                    expected="a plain value: it decides what is declared",
                    remedy=Set(key, ""),
                )
                for key in later
            ],
            lambda remedy: _assigned(remedy.key, language.configured, language),
        )
    provider = pulumi.Config("gcp")
    config: dict[str, Any] = {
        "gcp:project": provider.get("project"),
        "gcp:region": provider.get("region"),
        full("name"): name,
        **{full(_key(argument)): value for argument, value in arguments.items()},
    }
    try:
        # A plain password would be in the program's text, for everyone to read.
        return load(config, is_secret=lambda _: False)
    except SettingsError as error:
        raise SettingsError(
            [_translated(each, language) for each in error.refusals],
            lambda remedy: _rendered(remedy, language),
        ) from None


def _key(argument: str) -> str:
    return _SETTINGS[argument].key if argument in _SETTINGS else argument


def _is_password(key: str) -> bool:
    return key in _ARGUMENTS and isinstance(_SETTINGS[_ARGUMENTS[key]].kind, Password)


def _translated(refusal: Refusal, language: Language) -> Refusal:
    key = short(refusal.key)
    if _is_password(key):
        return replace(
            refusal,
            key=language.name(key),
            given="(hidden), in plain text",
            expected="a secret from the program's configuration, not in the program's text",
        )
    expected = re.sub(r"\b\w+\b", lambda word: language.name(word[0]), refusal.expected)
    return replace(refusal, key=language.name(key), expected=expected)


def _rendered(remedy: Remedy, language: Language) -> str:
    """`Set("memory", "1Gi")` -> `memory="1Gi"` in Python"""
    key = remedy.key
    if isinstance(remedy, Remove):
        return f"without {language.name(key)}"
    if key.startswith("gcp:"):
        return command_line(remedy)
    if remedy.secret:
        return _assigned(key, language.hidden, language)
    if isinstance(remedy.value, Command):
        return _assigned(key, f"... (the output of `{remedy.value.text}`)", language)
    if isinstance(remedy.value, tuple):
        return _assigned(key, f"[{language.literal(remedy.value[0])}]", language)
    return _assigned(key, language.literal(remedy.value), language)


def _assigned(key: str, value: str, language: Language) -> str:
    name = language.name(key)
    return f"{name}{language.assign}{value.replace('{name}', name)}"
