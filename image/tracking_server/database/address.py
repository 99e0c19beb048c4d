"""The address of the database, as the secret holds it."""

from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, unquote, urlsplit

DRIVER = "postgresql+pg8000"
"""The scheme of the secret's URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A database, a user of it, and either a Unix socket or a host."""

    username: str
    password: str = field(repr=False)
    database: str
    unix_socket: str | None = None
    host: str | None = None
    port: int | None = None

    def at_root(self, cloudsql_root: str) -> "Address":
        """Returns the address with the connector's sockets in another folder than /cloudsql."""
        if not (self.unix_socket or "").startswith("/cloudsql/"):
            return self
        rest = (self.unix_socket or "").removeprefix("/cloudsql")
        return replace(self, unix_socket=cloudsql_root + rest)


def parse(url: str) -> Address:
    """Read an address such as `postgresql+pg8000://USER:PASSWORD@/DATABASE?unix_sock=/PATH`.

    Raises:
        ValueError: if it is another kind of address, or incomplete.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    address = Address(
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path.removeprefix("/"),
        unix_socket=query.pop("unix_sock", None),
        host=parts.hostname,
        port=parts.port,
    )
    complete = address.username and address.password and address.database
    if parts.scheme != DRIVER or query or parts.fragment or not complete:
        raise ValueError("not the address of a database")
    if not (address.unix_socket or address.host):
        raise ValueError("neither a socket nor a host")
    return address
