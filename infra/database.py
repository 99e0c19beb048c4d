"""Cloud SQL for PostgreSQL: instance, database, user and the right to connect."""

from __future__ import annotations

from urllib.parse import quote

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from infra.component import Component
from infra.names import SUFFIX_BYTES
from infra.secrets import generated_password
from infra.settings import DatabaseSettings

DATABASE = "mlflow"
# A role has one password at a time, so two take turns: while a new revision starts with the one,
# and for rolling back, the other's still holds.
USERS = ("mlflow", "mlflow-alternate")
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

    def __init__(
        self,
        name: str,
        *,
        project: str,
        region: str,
        prefix: str,
        settings: DatabaseSettings,
        deletion_protection: bool,
        server: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        # The name of a deleted instance stays taken for a week.
        suffix = random.RandomId(
            "instance-suffix",
            byte_length=SUFFIX_BYTES,
            keepers={"region": region},
            opts=self.child(),
        )
        instance = gcp.sql.DatabaseInstance(
            "instance",
            name=pulumi.Output.concat(prefix, "-", suffix.hex),
            region=region,
            database_version=f"POSTGRES_{settings.version}",
            # The first stops Pulumi, the second also the console, gcloud and the API.
            deletion_protection=deletion_protection,
            settings=gcp.sql.DatabaseInstanceSettingsArgs(
                deletion_protection_enabled=deletion_protection,
                tier=settings.tier,
                # From PostgreSQL 16 on the default is ENTERPRISE_PLUS, which has no small tier.
                edition=settings.edition,
                availability_type=settings.availability,
                disk_type="PD_SSD",
                # Growth is no drift: the provider drops a difference that is a larger disk.
                disk_size=settings.disk_gb,
                disk_autoresize=True,
                disk_autoresize_limit=settings.disk_limit_gb,
                # A public address that answers to connectors only: they bring IAM and mutual
                # TLS, so there are no authorized networks.
                connector_enforcement="REQUIRED",
                ip_configuration=gcp.sql.DatabaseInstanceSettingsIpConfigurationArgs(
                    ipv4_enabled=True, ssl_mode="ENCRYPTED_ONLY"
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
        database = gcp.sql.Database(
            "database",
            name=DATABASE,
            instance=instance.name,
            # Goes with its instance; it can't be dropped while a server is connected.
            deletion_policy="ABANDON",
            opts=self.child(),
        )
        version = settings.password_version
        if version > 1:
            self._user(version - 1, instance=instance.name)
        user, password = self._user(version, instance=instance.name)
        # The role exists for a whole project only: the condition binds it to this instance.
        gcp.projects.IAMMember(
            "server-connects",
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
                    instance.name,
                ),
            ),
            opts=self.child(),
        )
        self.connection_name = instance.connection_name
        # Secret, because the password in it is.
        self.url = pulumi.Output.all(
            user=user.name,
            password=password,
            database=database.name,
            connection_name=instance.connection_name,
        ).apply(lambda parts: connection_url(**parts))
        self.register_outputs({"connection_name": self.connection_name})

    def _user(
        self, version: int, *, instance: pulumi.Input[str]
    ) -> tuple[gcp.sql.User, pulumi.Output[str]]:
        turn = (version - 1) % len(USERS)
        prefix = ("", "alternate-")[turn]
        password = generated_password(
            f"{prefix}database-password", length=32, version=version, opts=self.child()
        )
        # `postgres`, the instance's administrator, has no password and so no way in. This role
        # is a member of `cloudsqlsuperuser`, as Cloud SQL makes them, which owns the database:
        # from PostgreSQL 15 on nobody else may create tables in its `public` schema. The server
        # gives it the tables, so that both users may do everything.
        user = gcp.sql.User(
            f"{prefix}user",
            name=USERS[turn],
            instance=instance,
            password=password,
            # Goes with its instance: Cloud SQL drops no role that owns or was granted something.
            deletion_policy="ABANDON",
            opts=self.child(),
        )
        return user, password
