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
            yield (
                service,
                gcp.projects.ServiceIdentity(
                    self.named(f"{service}-agent"),
                    project=project,
                    service=f"{service}.googleapis.com",
                    opts=self.child(),
                ).member,
            )
        # Asking for Cloud Storage's agent creates it. Cloud Run's agent exists once its API is on:
        # https://cloud.google.com/run/docs/securing/using-cmek
        yield (
            "storage",
            gcp.storage.get_project_service_account_output(
                project=project,
                opts=pulumi.InvokeOutputOptions(parent=self, depends_on=self._after),
            ).member,
        )
        yield (
            "run",
            pulumi.Output.concat(
                "serviceAccount:service-",
                project_number,
                "@serverless-robot-prod.iam.gserviceaccount.com",
            ),
        )
