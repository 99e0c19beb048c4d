"""The whole deployment as one component, which other Pulumi programs can import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import pulumi

from .arguments import Arguments
from .component import Component
from .deployment import declare
from .program_settings import PYTHON, checked


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
        settings = checked(name, arguments, PYTHON)
        super().__init__(name, opts)
        self._start = f"{self.named(name)}-"
        self.outputs = declare(settings, parent=self)
        self.tracking_password = None
        for attribute in self.__annotations__.keys() & self.outputs.keys():
            setattr(self, attribute, pulumi.Output.from_input(self.outputs[attribute]))
        self.register_outputs({**self.outputs})
