"""The whole deployment as one component, which other Pulumi programs can import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import pulumi

from .arguments import Arguments
from .component import Component
from .deployment import declare
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


class TrackingServer(Component):
    """A tracking server in the program's project and region (`gcp:project`, `gcp:region`).

        server = TrackingServer("ml", max_instances=4, database_tier="db-custom-1-3840")
        pulumi.export("tracking_uri", server.tracking_uri)

    The component's name is also the setting `name`, the prefix of all resource names. Pass
    passwords from the program's configuration: `pulumi.Config().require_secret("password")`.
    `outputs` holds all outputs: the attributes, and those that only exist with some settings.
    """

    tracking_uri: pulumi.Output[str]
    tracking_username: pulumi.Output[str]
    # None with tracking_password_secret, which names the secret that holds it.
    tracking_password: pulumi.Output[str] | None
    artifact_bucket: pulumi.Output[str]
    service_account_email: pulumi.Output[str]
    database_connection_name: pulumi.Output[str]
    image: pulumi.Output[str]
    version: pulumi.Output[str]
    outputs: Mapping[str, Any]

    def __init__(
        self,
        name: str,
        *,
        opts: pulumi.ResourceOptions | None = None,
        **arguments: Unpack[Arguments],
    ) -> None:
        settings = _checked(name, arguments)
        super().__init__(name, opts)
        self._start = f"{self.named(name)}-"
        self.outputs = declare(settings, parent=self)
        self.tracking_password = None
        for attribute in self.__annotations__.keys() & self.outputs.keys():
            setattr(self, attribute, pulumi.Output.from_input(self.outputs[attribute]))
        self.register_outputs({**self.outputs})


# The project's own settings; the name is a separate argument, and the provider has the others.
_ARGUMENTS = {setting.argument: setting for setting in listed() if setting.is_argument}
_OF_KEY = {setting.key: argument for argument, setting in _ARGUMENTS.items()}


def _checked(name: str, arguments: Mapping[str, Any]) -> Settings:
    later = [
        argument
        for argument, value in arguments.items()
        if isinstance(value, pulumi.Output) and not _is_password(argument)
    ]
    if later:
        raise SettingsError(
            [
                Refusal(
                    key=argument,
                    given="an Output, which is known later",
                    expected="a plain value: it decides what is declared",
                    remedy=Set(argument, ""),
                )
                for argument in later
            ],
            lambda remedy: f'{remedy.key}=pulumi.Config().require("{remedy.key}")',
        )
    provider = pulumi.Config("gcp")
    config: dict[str, Any] = {
        "gcp:project": provider.get("project"),
        "gcp:region": provider.get("region"),
        full("name"): name,
        **{
            full(_ARGUMENTS[argument].key if argument in _ARGUMENTS else argument): value
            for argument, value in arguments.items()
        },
    }
    try:
        # A plain password would be in the program's text, for everyone to read.
        return load(config, is_secret=lambda _: False)
    except SettingsError as error:
        raise SettingsError([_in_python(each) for each in error.refusals], _argument) from None


def _is_password(argument: str) -> bool:
    return argument in _ARGUMENTS and isinstance(_ARGUMENTS[argument].kind, Password)


def _in_python(refusal: Refusal) -> Refusal:
    """Rewrites a refusal for a Python program, where settings are arguments."""
    argument = _OF_KEY.get(short(refusal.key), short(refusal.key))
    if _is_password(argument):
        return replace(
            refusal,
            key=argument,
            given="(hidden), in plain text",
            expected="a secret from the program's configuration, not in the program's text",
        )
    expected = re.sub(r"\b\w+\b", lambda word: _OF_KEY.get(word[0], word[0]), refusal.expected)
    return replace(refusal, key=argument, expected=expected)


def _argument(remedy: Remedy) -> str:
    """`Set("memory", "1Gi")` -> `memory="1Gi"`"""
    argument = _OF_KEY.get(remedy.key, remedy.key)
    if isinstance(remedy, Remove):
        return f"without {argument}"
    if remedy.key.startswith("gcp:"):
        return command_line(remedy)
    if remedy.secret:
        return f'{argument}=pulumi.Config().require_secret("{argument}")'
    if isinstance(remedy.value, Command):
        return f"{argument}=... (the output of `{remedy.value.text}`)"
    if isinstance(remedy.value, tuple):
        return f'{argument}=["{remedy.value[0]}"]'
    return f"{argument}={_literal(remedy.value)}"


def _literal(value: str | int | bool) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
