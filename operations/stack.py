"""Finds the stack that a command is for, and reads its settings and outputs.

`STACK=dev` is a Pulumi stack, `STACK=local` the stack on this computer. Without a name, it is the
stack that Pulumi has selected. Only if Pulumi has none selected or isn't installed, it is the stack
that runs here: any other failure must not redirect the command to a different stack.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from fake_google.state import LocalError, State
from infra.facts.connection_name import ConnectionName
from operations import cli_tools
from operations.errors import OperationError

LOCAL = "local"
# The formats are name, my-org/name and my-org/my-project/name.
NAME = re.compile(r"(?:[\w.-]+/){0,2}[A-Za-z0-9_][\w.-]{0,99}", re.ASCII)
NAMESPACE = "mlflow-gcp"


def settings_file(name: str) -> str:
    """Returns the name of a stack's settings file, without the organisation in the stack's name."""
    return f"Pulumi.{name.rpartition('/')[2]}.yaml"


def with_settings(folder: Path) -> str:
    """Returns the stacks with a settings file in the folder, separated by commas."""
    return ", ".join(sorted(path.suffixes[0][1:] for path in folder.glob("Pulumi.*.yaml")))


class CloudStack:
    """A Pulumi stack on Google Cloud."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"stack {self.name}"

    @property
    def file(self) -> str:
        return settings_file(self.name)

    def pulumi(self, *arguments: str) -> str:
        try:
            return cli_tools.pulumi(*arguments, "--stack", self.name)
        except OperationError as error:
            if "no stack named" not in str(error) and "fully qualified" not in str(error):
                raise
            raise OperationError(
                f"Pulumi has no stack {self.name!r} where it is logged in. `pulumi stack ls` lists "
                "what there is, for example STACK=dev; STACK=local is the one on this computer."
            ) from None

    @cached_property
    def outputs(self) -> Mapping[str, Any]:
        """Returns all outputs, with secrets hidden."""
        outputs: dict[str, Any] = json.loads(self.pulumi("stack", "output", "--json"))
        if "tracking_uri" not in outputs:
            raise OperationError(
                f"The stack {self.name!r} isn't up yet, so it has no outputs: "
                f"`pulumi up --stack {self.name}`."
            )
        return outputs

    def password(self) -> str:
        if version := self.password_secret:
            return cli_tools.gcloud("secrets", "versions", "access", version)
        return self.pulumi("stack", "output", "tracking_password", "--show-secrets").rstrip("\n")

    @property
    def password_secret(self) -> str:
        """Returns the secret version of trackingPasswordSecret, whose value Pulumi doesn't know."""
        return str(self.outputs.get("tracking_password_secret", ""))

    @cached_property
    def config(self) -> Mapping[str, str]:
        """Returns every setting or its default; a secret setting is "(hidden)"."""
        entries = json.loads(self.pulumi("config", "--json"))
        return {key: entry.get("value", "(hidden)") for key, entry in entries.items()}

    def setting(self, key: str) -> str:
        return self.config.get(f"{NAMESPACE}:{key}", "")

    @property
    def project(self) -> str:
        return self.config["gcp:project"]

    @property
    def region(self) -> str:
        return self.config["gcp:region"]

    @property
    def service(self) -> str:
        return self.setting("name")

    @property
    def connection_name(self) -> ConnectionName:
        return ConnectionName.parse(self.outputs["database_connection_name"])

    @property
    def log_filter(self) -> str:
        """Returns the filter for the service's entries in Cloud Logging."""
        return (
            'resource.type="cloud_run_revision"'
            f' AND resource.labels.service_name="{self.service}"'
            f' AND resource.labels.location="{self.region}"'
        )

    def database_url(self) -> str:
        return cli_tools.gcloud(
            *("secrets", "versions", "access", "latest"),
            *(f"--secret={self.service}_database_url", f"--project={self.project}"),
        )


class LocalStack:
    """The stack on this computer."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __str__(self) -> str:
        return "the server on this computer"

    @cached_property
    def entry(self) -> Mapping[str, Any]:
        """Returns the entry that the stack's supervisor has written."""
        try:
            entry = self.state.supervisor() if self.state.running() else {}
        except LocalError as error:
            raise OperationError(str(error)) from None
        if not entry.get("ready"):
            raise OperationError(
                "The server does not run on this computer: `make local-up` starts it."
            )
        return entry

    @property
    def outputs(self) -> Mapping[str, Any]:
        outputs: dict[str, Any] = self.entry["outputs"]
        return outputs

    def password(self) -> str:
        return str(self.outputs["tracking_password"])

    def setting(self, key: str) -> str:
        return str(self.entry["config"].get(f"{NAMESPACE}:{key}", ""))

    @property
    def service(self) -> str:
        return self.setting("name") or "mlflow"

    @property
    def log(self) -> Path:
        return self.state.path("log", "server.log")

    def database_url(self) -> str:
        # This module's server library takes longer to import than everything else.
        from fake_google.secret_manager import newest

        return newest(self.state, f"{self.service}_database_url")

    def sockets(self) -> Path:
        """Returns the directory of the database's socket."""
        return self.state.cloudsql_root() / str(self.outputs["database_connection_name"])


Stack = CloudStack | LocalStack


def find(name: str, *, state: State, say: Callable[[str], None]) -> Stack:
    if name == LOCAL:
        return LocalStack(state)
    if name:
        if not NAME.fullmatch(name):
            raise OperationError(
                f"STACK={name!r} isn't a stack's name: letters, digits, hyphens, dots and "
                "underscores, for example STACK=dev. `pulumi stack ls` lists the stacks; "
                "STACK=local is the one on this computer."
            )
        return CloudStack(name)
    selected, why_none = _selected()
    if selected:
        say(
            f"stack {selected}, which Pulumi has selected (STACK=local is the one on this computer)"
        )
        return CloudStack(selected)
    if not state.running():
        raise OperationError(
            f"No stack was named, {why_none}, and none runs on this computer. Name one, for "
            "example STACK=dev, or start one: `make local-up`."
        )
    say(f"the server on this computer: {why_none} (STACK=dev names another)")
    return LocalStack(state)


def _selected() -> tuple[str, str]:
    """Returns the selected stack's name, or an empty name with the reason."""
    if shutil.which("pulumi") is None:
        return "", "Pulumi isn't installed"
    none = "Pulumi has none selected"
    try:
        return cli_tools.pulumi("stack", "--show-name").strip(), none
    except OperationError as error:
        if "no stack selected" in str(error):
            return "", none
        raise OperationError(
            "No stack was named, and Pulumi doesn't say which is selected: "
            f"{str(error).rstrip('.')}. STACK=local is the one on this computer."
        ) from None
