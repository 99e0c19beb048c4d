"""The grants on a customer-managed Cloud KMS key: which of Google's services may use it."""

from __future__ import annotations

from collections.abc import Iterator

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from .scope import Scope

ROLE = "roles/cloudkms.cryptoKeyEncrypterDecrypter"


class Encryption(Component):
    """Lets the service agents of Google's services encrypt and decrypt with this one key.

    The server itself doesn't use the key: the services that store its data encrypt it.
    https://cloud.google.com/kms/docs/cmek-integrations
    """

    APIS = ("cloudkms",)

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        project_number: pulumi.Input[str],
        key: str,
        builds_image: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        agents = self._agents(
            project=scope.project, project_number=project_number, builds_image=builds_image
        )
        for service, agent in agents:
            gcp.kms.CryptoKeyIAMMember(
                self.named(f"{service}-encrypts"),
                crypto_key_id=key,
                role=ROLE,
                member=agent,
                opts=self.child(),
            )
        self.register_outputs({})

    def _agents(
        self, *, project: str, project_number: pulumi.Input[str], builds_image: bool
    ) -> Iterator[tuple[str, pulumi.Input[str]]]:
        # Google would create these agents at a service's first use, too late for the grants.
        late = ["sqladmin", "secretmanager", *(["artifactregistry"] if builds_image else [])]
        for service in late:
            yield service, self._agent(service, project).member
        yield "run", self._run_agent(project, project_number)
        # Asking for Cloud Storage's agent creates it.
        yield (
            "storage",
            gcp.storage.get_project_service_account_output(
                project=project,
                opts=pulumi.InvokeOutputOptions(parent=self, depends_on=self._after),
            ).member,
        )

    def _run_agent(self, project: str, project_number: pulumi.Input[str]) -> pulumi.Output[str]:
        """Creates Cloud Run's agent, with the role that Google grants it if it creates it itself.

        https://cloud.google.com/iam/docs/create-service-agents
        """
        # Google's response may lack the address.
        member = pulumi.Output.all(project_number, self._agent("run", project).id).apply(
            lambda known: (
                f"serviceAccount:service-{known[0]}@serverless-robot-prod.iam.gserviceaccount.com"
            )
        )
        gcp.projects.IAMMember(
            self.named("run-agent-serves"),
            project=project,
            role="roles/run.serviceAgent",
            member=member,
            # The project's other services need the grant too.
            opts=self.child(retain_on_delete=True),
        )
        return member

    def _agent(self, service: str, project: str) -> gcp.projects.ServiceIdentity:
        """Creates the agent unless it exists."""
        return gcp.projects.ServiceIdentity(
            self.named(f"{service}-agent"),
            project=project,
            service=f"{service}.googleapis.com",
            opts=self.child(),
        )
