"""The server's secrets: each with its version and the grant to read it."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.names import secret_id
from ..settings.schema import Login
from .scope import Scope


def generated_password(
    name: str, *, length: int, version: int, opts: pulumi.ResourceOptions
) -> pulumi.Output[str]:
    """Returns a random password; a different version generates a different password.

    It has letters and digits only, because users paste it into shells, URLs and `.envrc` files.
    """
    # Version 1 has no keepers, so that passwords of releases without versions stay the same.
    keepers = {"version": str(version)} if version > 1 else None
    password = random.RandomPassword(name, length=length, special=False, keepers=keepers, opts=opts)
    return pulumi.Output.secret(password.result)


def replication(scope: Scope) -> gcp.secretmanager.SecretReplicationArgs:
    """Returns automatic replication, or with a key only the region: the key only works there.

    https://cloud.google.com/secret-manager/docs/cmek
    """
    google = gcp.secretmanager
    if scope.kms_key is None:
        return google.SecretReplicationArgs(auto=google.SecretReplicationAutoArgs())
    return google.SecretReplicationArgs(
        user_managed=google.SecretReplicationUserManagedArgs(
            replicas=[
                google.SecretReplicationUserManagedReplicaArgs(
                    location=scope.region,
                    customer_managed_encryption=google.SecretReplicationUserManagedReplicaCustomerManagedEncryptionArgs(
                        kms_key_name=scope.kms_key
                    ),
                )
            ]
        )
    )


class Secrets(Component):
    """`references` names the version of each secret: `<secret id>/versions/<number>`.

    The number is never `latest`. A changed value makes a new version, which changes the reference
    and so makes a new revision of the service; rolling back a revision also rolls back its secrets.
    """

    APIS = ("secretmanager",)

    references: Mapping[str, pulumi.Output[str]]
    ids: dict[str, pulumi.Output[str]]
    # By user. A password in an existing secret isn't included: only the server reads it.
    passwords: dict[str, pulumi.Output[str]]

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        artifact_url: pulumi.Output[str],
        database_url: pulumi.Output[str],
        tracking: Login,
        viewer: Login | None,
        encryption_key_version: int,
        deletion_protection: bool,
        server: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        self.ids, self.passwords = {}, {}
        self._prefix, self._server = scope.prefix, server
        self._replication = replication(scope)
        # Encrypts the API keys that MLflow's gateway stores, and the webhooks' secrets. The server
        # re-encrypts them when it boots with a new version.
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
            # Without its former versions, the server can't read what they encrypt.
            "kek_passphrase": self._secret(
                "kek_passphrase", kek_passphrase, protect=deletion_protection
            ),
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
        """References an existing secret. This program and Pulumi's state never get its value."""
        secret, _, number = version.partition("/versions/")
        self._server_reads(key, secret)
        return pulumi.Output.from_input(f"{secret.rpartition('/')[2]}/versions/{number}")

    def _secret(
        self, key: str, value: pulumi.Output[str], *, protect: bool = False
    ) -> pulumi.Output[str]:
        secret = gcp.secretmanager.Secret(
            self.named(key),
            secret_id=secret_id(self._prefix, key),
            replication=self._replication,
            # Another key replaces the secret under the same name.
            opts=self.child(protect=protect, delete_before_replace=True),
        )
        secret_data: pulumi.Output[str] = pulumi.Output.secret(value)
        version = gcp.secretmanager.SecretVersion(
            self.named(key),
            secret=secret.id,
            secret_data=secret_data,
            # A changed value replaces this resource. By default that would destroy the old version,
            # which a rollback needs. Deleting the secret deletes all versions.
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
