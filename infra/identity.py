"""The service account that the server runs as."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from .component import Component
from .names import account_id


class Identity(Component):
    """A service account that can do nothing but sign as itself.

    What it may read and write is granted beside each thing: the secret, bucket and database.
    """

    email: pulumi.Output[str]
    member: pulumi.Output[str]

    def __init__(
        self, name: str, *, prefix: str, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        account = gcp.serviceaccount.Account(
            self.named("server"),
            account_id=account_id(prefix),
            display_name=f"MLflow server of {prefix}",
            opts=self.child(),
        )
        self.email = account.email
        self.member = account.email.apply(lambda email: f"serviceAccount:{email}")
        # Cloud Run has no private key: artifact URLs are signed by the signBlob API, which
        # takes this right even for one's own account.
        gcp.serviceaccount.IAMMember(
            self.named("server-signs-as-itself"),
            service_account_id=account.name,
            role="roles/iam.serviceAccountTokenCreator",
            member=self.member,
            opts=self.child(),
        )
        self.register_outputs({"email": self.email})
