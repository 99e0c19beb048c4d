"""Keeps the accounts' tables, and the accounts of the stack's own logins, as they should be.

The administrator and the viewer log in with passwords from Secret Manager. Their rows only tell
MLflow's permission checks who they are: no password matches what they have instead of a hash.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from tracking_server.accounts import people
from tracking_server.errors import BootError
from tracking_server.mlflow import auth_app

ADMIN_MARK, VIEWER_MARK = "!tracking", "!viewer"
"""Instead of a hash, which always has a `$`."""

_USER = text("SELECT id, is_admin, password_hash FROM users WHERE username = :name")
_SAVE = text(
    "INSERT INTO users (username, password_hash, is_admin) VALUES (:name, :mark, :admin) "
    "ON CONFLICT (username) DO UPDATE SET password_hash = excluded.password_hash, "
    "is_admin = excluded.is_admin RETURNING id"
)
# What MLflow calls the role with one user's own permissions.
_ROLE = text(
    "INSERT INTO roles (name, workspace) VALUES (:role, 'default') "
    "ON CONFLICT (workspace, name) DO NOTHING"
)
_ASSIGN = text(
    "INSERT INTO user_role_assignments (user_id, role_id) "
    "SELECT :user, id FROM roles WHERE workspace = 'default' AND name = :role "
    "ON CONFLICT (user_id, role_id) DO NOTHING"
)
_READ = text(
    "INSERT INTO role_permissions (role_id, resource_type, resource_pattern, permission) "
    "SELECT id, :type, '*', 'READ' FROM roles WHERE workspace = 'default' AND name = :role "
    "ON CONFLICT (role_id, resource_type, resource_pattern) "
    "DO UPDATE SET permission = excluded.permission"
)


@dataclass(frozen=True, slots=True)
class AccountTables:
    """The tables of MLflow's auth app, and the server's own.

    `admin` and `viewer` are the names of the stack's logins.
    """

    admin: str
    viewer: str | None

    def ready(self, connection: Connection) -> bool:
        """Whether there is nothing to prepare."""
        revision = auth_app.tables_revision(connection)
        return (
            revision == auth_app.latest_tables_revision()
            and people.has_table(connection)
            and all(self._has(connection, *login) for login in self._logins())
        )

    def prepare(self, connection: Connection) -> None:
        """Create or upgrade the tables, and the rows of the stack's own logins.

        Raises:
            BootError: if a newer MLflow has upgraded the tables.
        """
        found = auth_app.tables_revision(connection)
        if found is not None and found not in auth_app.known_tables_revisions():
            raise BootError(
                f"the accounts' tables are at revision {found}, which this MLflow does not know: a "
                "newer server has upgraded them. Deploy that version again, or restore the "
                "database to a time before (docs/runbooks.md)"
            )
        auth_app.create_or_upgrade_tables(connection)
        people.create_table(connection)
        for name, mark, is_admin in self._logins():
            given = {"name": name, "mark": mark, "admin": is_admin}
            user = connection.execute(_SAVE, given).scalar_one()
            if not is_admin:
                _let_read(connection, user)

    def _logins(self) -> list[tuple[str, str, bool]]:
        logins = [(self.admin, ADMIN_MARK, True)]
        return [*logins, (self.viewer, VIEWER_MARK, False)] if self.viewer else logins

    def _has(self, connection: Connection, name: str, mark: str, is_admin: bool) -> bool:
        row = connection.execute(_USER, {"name": name}).one_or_none()
        return row is not None and (row.is_admin, row.password_hash) == (is_admin, mark)


def _let_read(connection: Connection, user: int) -> None:
    """Let a user read everything, whatever the default permission is."""
    given = {"user": user, "role": f"__user_{user}__"}
    connection.execute(_ROLE, given)
    connection.execute(_ASSIGN, given)
    for kind in auth_app.grantable_types():
        connection.execute(_READ, given | {"type": kind})
