"""Reads people's accounts, creates those of people whom Google has signed in, and remembers removed
people.

MLflow's table of users has the accounts. A table of the server's own says who was removed, and who
is an administrator because the setting lists them.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection, text

from tracking_server.accounts.logins import Account

GOOGLE_MARK = "!google"
"""Instead of a hash, which always has a `$`: no password opens the account."""

_TABLE = text("SELECT to_regclass('tracking_server_people') IS NOT NULL")
_CREATE_TABLE = text(
    "CREATE TABLE IF NOT EXISTS tracking_server_people ("
    "address text PRIMARY KEY, "
    "removed boolean NOT NULL DEFAULT false, "
    "administrator boolean NOT NULL DEFAULT false)"
)
_FIND = text(
    "SELECT username, password_hash, is_admin, coalesce(administrator, false) AS listed "
    "FROM users LEFT JOIN tracking_server_people ON address = username "
    "WHERE username = :name"
)
# Another instance may create it at the same time.
_CREATE = text(
    "INSERT INTO users (username, password_hash, is_admin) "
    "SELECT CAST(:name AS text), :mark, false "
    "WHERE NOT EXISTS (SELECT FROM tracking_server_people WHERE address = :name AND removed) "
    "ON CONFLICT (username) DO NOTHING"
)
_SET_ADMIN = text("UPDATE users SET is_admin = :value WHERE username = :name")
_LIST = text(
    "INSERT INTO tracking_server_people (address, administrator) VALUES (:name, :value) "
    "ON CONFLICT (address) DO UPDATE SET administrator = excluded.administrator"
)
_REMOVE = text(
    "INSERT INTO tracking_server_people (address, removed) VALUES (lower(:name), true) "
    "ON CONFLICT (address) DO UPDATE SET removed = true"
)


def has_table(connection: Connection) -> bool:
    return bool(connection.execute(_TABLE).scalar_one())


def create_table(connection: Connection) -> None:
    connection.execute(_CREATE_TABLE)


@dataclass(frozen=True, slots=True)
class People:
    """People's accounts.

    `administrators` are addresses, and `domains` those of people who get an account at their first
    visit, all in lower case. `begin` returns a connection in a transaction.
    """

    begin: Callable[[], AbstractContextManager[Connection]]
    administrators: Collection[str] = ()
    domains: Collection[str] = ()

    def find(self, name: str) -> Account | None:
        """Returns an account, None if there is none with this name."""
        with self.begin() as connection:
            return self._find(connection, name)

    def find_or_create(self, address: str) -> Account | None:
        """Returns the account of a person whom Google has signed in.

        It is created at the first visit, unless the person was removed, or may not have one.
        """
        with self.begin() as connection:
            found = self._find(connection, address)
            if found or not self._may_have_one(address):
                return found
            connection.execute(_CREATE, {"name": address, "mark": GOOGLE_MARK})
            return self._find(connection, address)

    def keep_out(self, name: str) -> None:
        """Remember that a person was removed. Only an administrator can add the account again."""
        with self.begin() as connection:
            connection.execute(_REMOVE, {"name": name})

    def _may_have_one(self, address: str) -> bool:
        return address in self.administrators or address.rpartition("@")[2] in self.domains

    def _find(self, connection: Connection, name: str) -> Account | None:
        row = connection.execute(_FIND, {"name": name}).one_or_none()
        if row is None:
            return None
        is_admin = bool(row.is_admin)
        if (listed := name in self.administrators) != row.listed:
            # The setting has changed. It doesn't demote those whom an administrator has promoted.
            is_admin = listed
            given = {"name": name, "value": listed}
            connection.execute(_SET_ADMIN, given)
            connection.execute(_LIST, given)
        return Account(row.username, row.password_hash, is_admin)
