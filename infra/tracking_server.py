"""The whole deployment as one component, which other Pulumi programs can import."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import pulumi

from .component import Component
from .deployment import declare
from .settings.loader import load
from .settings.model import Settings
from .settings.reader import NAMESPACE, Problem, SettingsError


class Arguments(TypedDict, total=False):
    """The settings of `Pulumi.yaml`, in snake case and with the same defaults."""

    artifacts: str
    access: str
    invokers: Sequence[str]
    public_through: str
    tracking_username: str
    tracking_password: pulumi.Output[str]
    tracking_password_version: int
    tracking_password_secret: str
    viewer_username: str
    viewer_password: pulumi.Output[str]
    viewer_password_version: int
    viewer_password_secret: str
    encryption_key_version: int
    image: str
    builder: str
    github_repository: str
    github_repository_id: int
    github_review: bool
    network: str
    existing_network: str
    existing_subnetwork: str
    kms_key: str
    existing_database_instance: str
    database_version: int
    database_tier: str
    database_edition: str
    database_disk_gb: int
    database_disk_limit_gb: int
    database_availability: str
    database_connections: int
    database_password_version: int
    backup_retention: int
    memory: str
    cpu: int
    concurrency: int
    min_instances: int
    max_instances: int
    request_timeout: int
    custom_domains: Sequence[str]
    internal_networks: Sequence[str]
    load_balancer: bool
    rate_limit: int
    deletion_protection: bool
    bucket_force_destroy: bool
    existing_bucket: str
    bucket_location: str
    mlflow_telemetry: bool
    alert_email: str
    uptime_check: bool
    monthly_budget: int
    billing_account: str


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


def _checked(name: str, arguments: Mapping[str, Any]) -> Settings:
    later = [
        argument
        for argument, value in arguments.items()
        if isinstance(value, pulumi.Output) and not argument.endswith("_password")
    ]
    if later:
        raise SettingsError(
            [
                Problem(
                    key=argument,
                    given="an Output, which is known later",
                    wanted="a plain value: it decides what is declared",
                    example=f'{argument}=pulumi.Config().require("{argument}")',
                )
                for argument in later
            ]
        )
    provider = pulumi.Config("gcp")
    config: dict[str, Any] = {
        "gcp:project": provider.get("project"),
        "gcp:region": provider.get("region"),
        f"{NAMESPACE}:name": name,
        **{
            f"{NAMESPACE}:{_setting(argument)}": [*value] if isinstance(value, tuple) else value
            for argument, value in arguments.items()
        },
    }
    try:
        # A plain password would be in the program's text, for everyone to read.
        return load(config, is_secret=lambda _: False)
    except SettingsError as error:
        raise SettingsError([_in_python(problem) for problem in error.problems]) from None


def _setting(argument: str) -> str:
    """`max_instances` -> `maxInstances`"""
    return re.sub(r"_(\w)", lambda letter: letter[1].upper(), argument)


def _argument(setting: str) -> str:
    """`maxInstances` -> `max_instances`"""
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", setting)


_WORDS = {_setting(argument): argument for argument in Arguments.__annotations__}


def _in_python(problem: Problem) -> Problem:
    """Rewrites a problem for a Python program, where `pulumi config set` doesn't apply."""
    if problem.key.startswith("gcp:"):
        return problem
    argument = _argument(problem.key.removeprefix(f"{NAMESPACE}:"))
    wanted = re.sub(r"\b\w+\b", lambda word: _WORDS.get(word[0], word[0]), problem.wanted)
    if argument.endswith("_password"):
        return replace(
            problem,
            key=argument,
            given="(hidden), in plain text",
            wanted="a secret from the program's configuration, not in the program's text",
            example=f'{argument}=pulumi.Config().require_secret("{argument}")',
        )
    return replace(problem, key=argument, wanted=wanted, example=_example(problem.example))


def _example(command: str) -> str:
    """`pulumi config set memory 1Gi` -> `memory="1Gi"`"""
    if found := re.fullmatch(r"pulumi config set (?:--path ')?(\w+)((?:\[0\]')?) (.+)", command):
        setting, listed, value = found.groups()
        plain = value.title() if value in {"true", "false"} else value
        quoted = plain if re.fullmatch(r"\d+|True|False", plain) else f'"{value}"'
        return f"{_argument(setting)}={f'[{quoted}]' if listed else quoted}"
    return f"without {_argument(command.rpartition(' ')[2].rpartition(':')[2])}"
