"""The server's secrets: each with its version and the right to read it."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.names import secret_id
from ..settings.model import Login


def generated_password(
    name: str, *, length: int, version: int, opts: pulumi.ResourceOptions
) -> pulumi.Output[str]:
    """Letters and digits only: it is pasted into shells, URLs and `.envrc` files.

    Another version is another password.
    """
    # The first has none, so that one from before there were versions stays.
    keepers = {"version": str(version)} if version > 1 else None
    password = random.RandomPassword(name, length=length, special=False, keepers=keepers, opts=opts)
    return pulumi.Output.secret(password.result)


def replication(*, region: str, kms_key: str | None) -> gcp.secretmanager.SecretReplicationArgs:
    """Everywhere, unless a key encrypts it: a region's key does that in its region alone.

    https://cloud.google.com/secret-manager/docs/cmek
    """
    google = gcp.secretmanager
    if kms_key is None:
        return google.SecretReplicationArgs(auto=google.SecretReplicationAutoArgs())
    return google.SecretReplicationArgs(
        user_managed=google.SecretReplicationUserManagedArgs(
            replicas=[
                google.SecretReplicationUserManagedReplicaArgs(
                    location=region,
                    customer_managed_encryption=google.SecretReplicationUserManagedReplicaCustomerManagedEncryptionArgs(
                        kms_key_name=kms_key
                    ),
                )
            ]
        )
    )


class Secrets(Component):
    """`references` says where the server finds each: `<secret id>/versions/<number>`.

    The number is a real one, never `latest`: a changed value is a new version, so a new
    reference, so a new revision of the service, and rolling back a revision takes its
    secrets back with it.
    """

    references: Mapping[str, pulumi.Output[str]]
    ids: dict[str, pulumi.Output[str]]
    # By whose it is, where it is known here: one that was there before, the server alone reads.
    passwords: dict[str, pulumi.Output[str]]

    def __init__(
        self,
        name: str,
        *,
        prefix: str,
        region: str,
        kms_key: str | None,
        artifact_url: pulumi.Output[str],
        database_url: pulumi.Output[str],
        tracking: Login,
        viewer: Login | None,
        encryption_key_version: int,
        server: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        self.ids, self.passwords = {}, {}
        self._prefix, self._server = prefix, server
        self._replication = replication(region=region, kms_key=kms_key)
        # Encrypts the API keys that MLflow's gateway stores, and the secrets of webhooks. The
        # server re-encrypts them when it boots with another version.
        kek_passphrase = generated_password(
            self.named("kek-passphrase"),
            length=48,
            version=encryption_key_version,
            opts=self.child(),
        )
        self.references = {
            "artifact_url": self._secret("artifact_url", artifact_url),
            "database_url": self._secret("database_url", database_url),
            **self._login("tracking", tracking),
            "kek_passphrase": self._secret("kek_passphrase", kek_passphrase),
            **(self._login("viewer", viewer) if viewer else {}),
        }
        self.register_outputs({"references": self.references})

    def _login(self, who: str, login: Login) -> dict[str, pulumi.Output[str]]:
        username, password = f"{who}_username", f"{who}_password"
        references = {username: self._secret(username, pulumi.Output.from_input(login.username))}
        if login.password_secret:
            references[password] = self._existing(password, login.password_secret)
        else:
            self.passwords[who] = self._password(who, login)
            references[password] = self._secret(password, self.passwords[who])
        return references

    def _password(self, who: str, login: Login) -> pulumi.Output[str]:
        if login.password is not None:
            return pulumi.Output.secret(login.password)
        return generated_password(
            self.named(f"{who}-password"),
            length=32,
            version=login.password_version,
            opts=self.child(),
        )

    def _existing(self, key: str, version: str) -> pulumi.Output[str]:
        """What is in it never comes here, nor into Pulumi's state."""
        secret, _, number = version.partition("/versions/")
        self._server_reads(key, secret)
        return pulumi.Output.from_input(f"{secret.rpartition('/')[2]}/versions/{number}")

    def _secret(self, key: str, value: pulumi.Output[str]) -> pulumi.Output[str]:
        secret = gcp.secretmanager.Secret(
            self.named(key),
            secret_id=secret_id(self._prefix, key),
            replication=self._replication,
            opts=self.child(),
        )
        secret_data: pulumi.Output[str] = pulumi.Output.secret(value)
        version = gcp.secretmanager.SecretVersion(
            self.named(key),
            secret=secret.id,
            secret_data=secret_data,
            # A changed value replaces this resource, and by default that destroys the version
            # which the revision to roll back to reads. Deleting the secret deletes them all.
            deletion_policy="ABANDON",
            opts=self.child(),
        )
        self._server_reads(key, secret.id)
        self.ids[key] = secret.secret_id
        return pulumi.Output.concat(secret.secret_id, "/versions/", version.version)

    def _server_reads(self, key: str, secret: pulumi.Input[str]) -> None:
        gcp.secretmanager.SecretIamMember(
            self.named(f"server-reads-{key}"),
            secret_id=secret,
            role="roles/secretmanager.secretAccessor",
            member=self._server,
            opts=self.child(),
        )
