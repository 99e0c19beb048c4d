"""The Google APIs that the stack requires, and the project's number."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi
import pulumi_gcp as gcp

from ..component import Component

# serviceusage isn't listed: switching on an API requires it, and every project starts with it.


class Apis(Component):
    """Switches on the APIs that the stack calls; all other resources wait for them."""

    APIS = ("cloudresourcemanager",)  # the project's number, and grants on the project

    project_number: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        project: str,
        required: Iterable[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        services = {
            api: gcp.projects.Service(
                self.named(api),
                service=f"{api}.googleapis.com",
                # Something else in the project may use the API.
                disable_on_destroy=False,
                opts=self.child(),
            )
            for api in sorted({*self.APIS, *required})
        }
        self.project_number = gcp.organizations.get_project_output(
            project_id=project,
            opts=pulumi.InvokeOutputOptions(
                parent=self, depends_on=services["cloudresourcemanager"]
            ),
        ).number
        self.register_outputs({"project_number": self.project_number})
