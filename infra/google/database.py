"""Cloud SQL for PostgreSQL: instance, database, user and the right to connect."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.names import SUFFIX_BYTES
from ..settings.model import DatabaseSettings
from .secrets import generated_password

DATABASE = "mlflow"
# A role has one password at a time, so two take turns: while a new revision starts with the one,
# and for rolling back, the other's still holds.
ALTERNATE = ("", "-alternate")
# What Cloud SQL lets ENTERPRISE keep; never more days than there are backups to start from.
LOG_DAYS = 7


def connection_url(user: str, password: str, database: str, connection_name: str) -> str:
    """The URL that the server connects with, over Cloud Run's socket."""
    return (
        f"postgresql+pg8000://{quote(user, safe='')}:{quote(password, safe='')}@/{database}"
        f"?unix_sock=/cloudsql/{connection_name}/.s.PGSQL.5432"
    )


class Database(Component):
    connection_name: pulumi.Output[str]
    url: pulumi.Output[str]
    # The name of the stack's own instance, if there is one.
    instance: pulumi.Output[str] | None

    def __init__(
        self,
        name: str,
        *,
        project: str,
        region: str,
        prefix: str,
        settings: DatabaseSettings,
        deletion_protection: bool,
        network: pulumi.Input[str] | None,
        kms_key: str | None,
        server: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        self._existing = settings.existing_instance is not None
        # In an instance of its own it is alone.
        self._database = prefix if self._existing else DATABASE
        self.instance = None
        if settings.existing_instance:
            connection_name = pulumi.Output.from_input(settings.existing_instance)
            instance = pulumi.Output.from_input(settings.existing_instance.rpartition(":")[2])
        else:
            made = self._instance(
                region=region,
                prefix=prefix,
                settings=settings,
                deletion_protection=deletion_protection,
                network=network,
                kms_key=kms_key,
            )
            connection_name, instance = made.connection_name, made.name
            self.instance = instance
        version = settings.password_version
        users = [
            self._user(each, instance=instance)
            for each in (version - 1, version)
            if each  # there is none before the first
        ]
        user, password = users[-1]
        database = gcp.sql.Database(
            self.named("database"),
            name=self._database,
            instance=instance,
            deletion_policy=self._deletion_policy,
            opts=self._owned_by([user for user, _ in users], protect=deletion_protection)
            if self._existing
            else self.child(),
        )
        self._connects(project, prefix, instance, server)
        self.connection_name = connection_name
        # Secret, because the password in it is.
        self.url = pulumi.Output.all(
            user=user.name,
            password=password,
            database=database.name,
            connection_name=connection_name,
        ).apply(lambda parts: connection_url(**parts))
        self.register_outputs({"connection_name": self.connection_name})

    def _connects(
        self,
        project: str,
        prefix: str,
        instance: pulumi.Input[str],
        server: pulumi.Input[str],
    ) -> None:
        """The role exists for a whole project only: the condition binds it to this instance."""
        gcp.projects.IAMMember(
            self.named("server-connects"),
            project=project,
            role="roles/cloudsql.client",
            member=server,
            condition=gcp.projects.IAMMemberConditionArgs(
                title="one instance",
                description=f"The database of the MLflow server {prefix}",
                expression=pulumi.Output.format(
                    'resource.name == "projects/{0}/instances/{1}" && '
                    'resource.service == "sqladmin.googleapis.com"',
                    project,
                    instance,
                ),
            ),
            opts=self.child(),
        )

    def _instance(
        self,
        *,
        region: str,
        prefix: str,
        settings: DatabaseSettings,
        deletion_protection: bool,
        network: pulumi.Input[str] | None,
        kms_key: str | None,
    ) -> gcp.sql.DatabaseInstance:
        # A new database doesn't answer to the connection name of one that is gone.
        suffix = random.RandomId(
            self.named("instance-suffix"),
            byte_length=SUFFIX_BYTES,
            keepers={"region": region},
            opts=self.child(),
        )
        return gcp.sql.DatabaseInstance(
            self.named("instance"),
            name=pulumi.Output.concat(prefix, "-", suffix.hex),
            region=region,
            database_version=f"POSTGRES_{settings.version}",
            encryption_key_name=kms_key,
            # The first stops Pulumi, the second also the console, gcloud and the API.
            deletion_protection=deletion_protection,
            settings=gcp.sql.DatabaseInstanceSettingsArgs(
                deletion_protection_enabled=deletion_protection,
                tier=settings.tier,
                # From PostgreSQL 16 on the default is ENTERPRISE_PLUS, which has no small tier.
                edition=settings.edition,
                availability_type=settings.availability,
                disk_type="PD_SSD",
                # Growth is not drift: the provider drops a difference that is a larger disk.
                disk_size=settings.disk_gb,
                disk_autoresize=True,
                disk_autoresize_limit=settings.disk_limit_gb,
                # An address that answers to connectors only: they bring IAM and mutual TLS, so
                # there are no authorized networks. In a network it is the only one: Cloud Run's
                # socket would take a public one first.
                connector_enforcement="REQUIRED",
                ip_configuration=gcp.sql.DatabaseInstanceSettingsIpConfigurationArgs(
                    ipv4_enabled=network is None,
                    private_network=network,
                    ssl_mode="ENCRYPTED_ONLY",
                ),
                backup_configuration=gcp.sql.DatabaseInstanceSettingsBackupConfigurationArgs(
                    enabled=True,
                    point_in_time_recovery_enabled=True,
                    start_time="03:00",
                    transaction_log_retention_days=min(LOG_DAYS, settings.backup_retention),
                    backup_retention_settings=gcp.sql.DatabaseInstanceSettingsBackupConfigurationBackupRetentionSettingsArgs(
                        retained_backups=settings.backup_retention, retention_unit="COUNT"
                    ),
                ),
            ),
            # Also for Pulumi, which then refuses before it has taken anything else away.
            opts=self.child(protect=deletion_protection),
        )

    @property
    def _deletion_policy(self) -> str | None:
        """Database and users go with an instance of the stack's own.

        Cloud SQL would refuse to drop a database that a server is connected to, and a role that
        owns or was granted something.
        """
        return None if self._existing else "ABANDON"

    def _owned_by(self, users: Sequence[gcp.sql.User], *, protect: bool) -> pulumi.ResourceOptions:
        """In somebody else's instance the database holds the data, and goes before its users."""
        return pulumi.ResourceOptions.merge(
            self.child(protect=protect), pulumi.ResourceOptions(depends_on=users)
        )

    def _user(
        self, version: int, *, instance: pulumi.Input[str]
    ) -> tuple[gcp.sql.User, pulumi.Output[str]]:
        turn = (version - 1) % len(ALTERNATE)
        prefix = ("", "alternate-")[turn]
        password = generated_password(
            self.named(f"{prefix}database-password"), length=32, version=version, opts=self.child()
        )
        # `postgres`, the instance's administrator, has no password and so no way in. This role
        # is a member of `cloudsqlsuperuser`, as Cloud SQL makes them, which owns the database:
        # from PostgreSQL 15 on nobody else may create tables in its `public` schema. The server
        # gives it the tables, so that both users may do everything.
        user = gcp.sql.User(
            self.named(f"{prefix}user"),
            name=f"{self._database}{ALTERNATE[turn]}",
            instance=instance,
            password=password,
            deletion_policy=self._deletion_policy,
            opts=self.child(),
        )
        return user, password
