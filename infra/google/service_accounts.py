"""The service accounts: the server's own, and the signer, which signs artifact URLs."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.names import SUFFIX_BYTES, account_id, role_id_prefix
from .scope import Scope

SIGN_BLOB = "iam.serviceAccounts.signBlob"


class Identity(Component):
    """The server's account, and the signer, an account that nothing runs as.

    Their grants are declared with the secret, bucket and database that they are for.

    Cloud Run has no private key, so artifact URLs are signed with IAM's signBlob. The account that
    signs isn't the server's: signBlob on oneself is as good as a token that renews itself, because
    a signed JWT can be exchanged for an access token. Anyone who stole the server's token would
    keep it for longer than its hour. Through the signer they reach only the bucket's objects.
    https://cloud.google.com/iam/docs/best-practices-service-accounts
    """

    # The accounts, and signing artifact URLs without a key.
    APIS = ("iam", "iamcredentials")

    email: pulumi.Output[str]
    member: pulumi.Output[str]
    signer_email: pulumi.Output[str]
    signer_member: pulumi.Output[str]

    def __init__(
        self, name: str, *, scope: Scope, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        prefix = scope.prefix
        server = gcp.serviceaccount.Account(
            self.named("server"),
            account_id=account_id(prefix),
            display_name=f"MLflow server of {prefix}",
            opts=self.child(),
        )
        signer = gcp.serviceaccount.Account(
            self.named("signer"),
            account_id=account_id(prefix, "signer"),
            display_name=f"Signer of artifact URLs of {prefix}",
            opts=self.child(),
        )
        self.email, self.member = server.email, member_of(server)
        self.signer_email, self.signer_member = signer.email, member_of(signer)
        # The id of a deleted role stays taken for up to 37 days.
        # https://cloud.google.com/iam/docs/creating-custom-roles#deleting-custom-role
        suffix = random.RandomId(
            self.named("signer-role-suffix"), byte_length=SUFFIX_BYTES, opts=self.child()
        )
        # Google's own roles with signBlob also let their holder create access tokens.
        role = gcp.projects.IAMCustomRole(
            self.named("signer"),
            role_id=pulumi.Output.concat(role_id_prefix(prefix), "_", suffix.hex),
            title=f"Artifact URL signing of {prefix}",
            description=f"Lets the MLflow server {prefix} sign artifact URLs as its signer",
            permissions=[SIGN_BLOB],
            opts=self.child(),
        )
        gcp.serviceaccount.IAMMember(
            self.named("server-signs-as-signer"),
            service_account_id=signer.name,
            role=role.name,
            member=self.member,
            opts=self.child(),
        )
        self.register_outputs({"email": self.email, "signer_email": self.signer_email})


def member_of(account: gcp.serviceaccount.Account) -> pulumi.Output[str]:
    return account.email.apply(lambda email: f"serviceAccount:{email}")
