"""The Google APIs that the stack requires, and the project's number."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from ..component import Component

# serviceusage isn't listed: switching on an API requires it, and every project starts with it.
ALWAYS = (
    "cloudresourcemanager",  # the project's number, and grants on the project
    "iam",  # the service account
    "iamcredentials",  # signing artifact URLs without a key
    "run",
    "secretmanager",
    "sqladmin",  # also what the /cloudsql socket calls
    "storage",
)


class Apis(Component):
    """Switches on the APIs that the stack calls; all other resources wait for them."""

    project_number: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        project: str,
        builds_image: bool,
        in_cloud_build: bool,
        behind_iap: bool,
        watched: bool,
        budgeted: bool,
        networked: bool,
        balanced: bool,
        encrypted: bool,
        federated: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        wanted = [*ALWAYS]
        if builds_image:
            wanted.append("artifactregistry")
        if builds_image and in_cloud_build:
            wanted.append("cloudbuild")
        if behind_iap:
            wanted.append("iap")
        if watched:
            wanted += ["logging", "monitoring"]
        if budgeted:
            wanted.append("billingbudgets")
        if networked or balanced:
            wanted.append("compute")
        if networked:
            wanted.append("servicenetworking")
        if encrypted:
            wanted.append("cloudkms")
        if federated:
            wanted.append("sts")
        services = {
            api: gcp.projects.Service(
                self.named(api),
                service=f"{api}.googleapis.com",
                # Something else in the project may use the API.
                disable_on_destroy=False,
                opts=self.child(),
            )
            for api in wanted
        }
        self.project_number = gcp.organizations.get_project_output(
            project_id=project,
            opts=pulumi.InvokeOutputOptions(
                parent=self, depends_on=services["cloudresourcemanager"]
            ),
        ).number
        self.register_outputs({"project_number": self.project_number})
