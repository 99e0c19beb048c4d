"""Cloud SQL for PostgreSQL: the instance, the database, its users and the grant to connect."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.connection_name import ConnectionName
from ..facts.names import SUFFIX_BYTES
from ..settings.schema import DatabaseSettings
from .scope import Scope
from .secrets import generated_password

DATABASE = "mlflow"
# A PostgreSQL user has only one password at a time, so two users take turns: the previous user's
# password stays valid while a new revision starts, and for rolling back.
ALTERNATE = ("", "-alternate")
# The maximum with ENTERPRISE. Logs older than the oldest backup would be useless.
LOG_DAYS = 7


def connection_url(user: str, password: str, database: str, connection_name: str) -> str:
    """Returns the URL that the server connects with, through Cloud Run's socket."""
    return (
        f"postgresql+pg8000://{quote(user, safe='')}:{quote(password, safe='')}@/{database}"
        f"?unix_sock=/cloudsql/{connection_name}/.s.PGSQL.5432"
    )


def grant_connect(
    name: str,
    *,
    scope: Scope,
    instance: pulumi.Input[str],
    member: pulumi.Input[str],
    of: Component,
) -> gcp.projects.IAMMember:
    """Lets an account connect. The role is for a whole project; a condition limits it."""
    return gcp.projects.IAMMember(
        of.named(name),
        project=scope.project,
        role="roles/cloudsql.client",
        member=member,
        condition=gcp.projects.IAMMemberConditionArgs(
            title="one instance",
            description=f"The database of the MLflow server {scope.prefix}",
            expression=pulumi.Output.format(
                'resource.name == "projects/{0}/instances/{1}" && '
                'resource.service == "sqladmin.googleapis.com"',
                scope.project,
                instance,
            ),
        ),
        opts=of.child(),
    )


class Database(Component):
    APIS = ("sqladmin",)  # also called by Cloud Run's /cloudsql socket

    connection_name: pulumi.Output[str]
    url: pulumi.Output[str]
    # The name of the stack's own instance, if there is one.
    instance: pulumi.Output[str] | None

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        settings: DatabaseSettings,
        deletion_protection: bool,
        network: pulumi.Input[str] | None,
        server: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        self._existing = settings.existing_instance is not None
        # In the stack's own instance, the database needs no name that is unique.
        self._database = scope.prefix if self._existing else DATABASE
        self.instance = None
        if settings.existing_instance:
            connection_name = pulumi.Output.from_input(settings.existing_instance)
            instance = pulumi.Output.from_input(
                ConnectionName.parse(settings.existing_instance).instance
            )
        else:
            made = self._instance(
                scope,
                settings=settings,
                deletion_protection=deletion_protection,
                network=network,
            )
            connection_name, instance = made.connection_name, made.name
            self.instance = instance
        version = settings.password_version
        users = [
            self._user(each, instance=instance)
            for each in (version - 1, version)
            if each  # the first version has no previous user
        ]
        user, password = users[-1]
        database = gcp.sql.Database(
            self.named("database"),
            name=self._database,
            instance=instance,
            # Cloud SQL's defaults, so that declaring them doesn't change an existing database.
            charset="UTF8",
            collation="en_US.UTF8",
            deletion_policy=self._deletion_policy,
            opts=self._owned_by([user for user, _ in users], protect=deletion_protection)
            if self._existing
            else self.child(),
        )
        grant_connect("server-connects", scope=scope, instance=instance, member=server, of=self)
        self.connection_name = connection_name
        # Secret, because it contains the password.
        self.url = pulumi.Output.all(
            user=user.name,
            password=password,
            database=database.name,
            connection_name=connection_name,
        ).apply(lambda parts: connection_url(**parts))
        self.register_outputs({"connection_name": self.connection_name})

    def _instance(
        self,
        scope: Scope,
        *,
        settings: DatabaseSettings,
        deletion_protection: bool,
        network: pulumi.Input[str] | None,
    ) -> gcp.sql.DatabaseInstance:
        # A new database must not have the connection name of a deleted one.
        suffix = random.RandomId(
            self.named("instance-suffix"),
            byte_length=SUFFIX_BYTES,
            keepers={"region": scope.region},
            opts=self.child(),
        )
        name = pulumi.Output.concat(scope.prefix, "-", suffix.hex)
        return gcp.sql.DatabaseInstance(
            self.named("instance"),
            name=name,
            region=scope.region,
            database_version=f"POSTGRES_{settings.version}",
            encryption_key_name=scope.kms_key,
            # This stops Pulumi; `deletion_protection_enabled` also stops the console, gcloud and
            # the API.
            deletion_protection=deletion_protection,
            settings=gcp.sql.DatabaseInstanceSettingsArgs(
                deletion_protection_enabled=deletion_protection,
                tier=settings.tier,
                # Since PostgreSQL 16 the default is ENTERPRISE_PLUS, which has no small tiers.
                edition=settings.edition,
                availability_type=settings.availability,
                disk_type="PD_SSD",
                disk_size=self._disk_gb(scope, name, declared=settings.disk_gb),
                disk_autoresize=True,
                disk_autoresize_limit=settings.disk_limit_gb,
                # The address accepts only connectors, which use IAM and mutual TLS, so there are no
                # authorized networks. A private address is the only one, because Cloud Run's socket
                # would prefer a public address.
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
            # With `protect`, Pulumi refuses before it has deleted anything else.
            # Another key replaces the instance under the same name.
            opts=self.child(protect=deletion_protection, delete_before_replace=True),
        )

    def _disk_gb(
        self, scope: Scope, name: pulumi.Output[str], *, declared: int
    ) -> pulumi.Output[int]:
        """Returns the size of the instance's disk, which may have grown, or else the declared size.

        With each change of an instance, the provider sends the size in Pulumi's state, and Google
        refuses to make a disk smaller: https://github.com/pulumi/pulumi-gcp/issues/2307
        """

        def largest(name: str) -> int:
            try:
                found = gcp.sql.get_database_instances(
                    project=scope.project,
                    region=scope.region,
                    opts=pulumi.InvokeOptions(parent=self),
                )
            except Exception as error:
                # For example, the account that previews pull requests may not list instances.
                pulumi.log.debug(f"The disk's size is not known: {error}", self)
                return declared
            sizes = [each.settings[0].disk_size for each in found.instances if each.name == name]
            return max([declared, *sizes])

        return name.apply(largest)

    @property
    def _deletion_policy(self) -> str | None:
        """Returns the policy with which the stack's instance takes database and users with it.

        Cloud SQL would refuse to drop a database that a server is connected to, and a user that
        owns objects or has grants.
        """
        return None if self._existing else "ABANDON"

    def _owned_by(self, users: Sequence[gcp.sql.User], *, protect: bool) -> pulumi.ResourceOptions:
        """Returns the options of the database in an existing instance.

        The database is protected because it holds the data, and it is deleted before its users.
        """
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
        # `postgres`, the instance's administrator, has no password and so can't log in. Cloud SQL
        # makes this user a member of `cloudsqlsuperuser`, which owns the database: since
        # PostgreSQL 15, only the owner may create tables in its `public` schema. The server makes
        # `cloudsqlsuperuser` the owner of the tables, so that both users have all rights.
        user = gcp.sql.User(
            self.named(f"{prefix}user"),
            name=f"{self._database}{ALTERNATE[turn]}",
            instance=instance,
            password=password,
            deletion_policy=self._deletion_policy,
            opts=self.child(),
        )
        return user, password
