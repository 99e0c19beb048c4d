"""The server's secrets, read from Secret Manager while MLflow is being imported."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from itertools import count
from time import monotonic, time
from typing import Any, ClassVar, Protocol

from tracking_server.boot.backoff import Backoff
from tracking_server.boot.secret_manager import FAILURES, ApiError, SecretManager, account
from tracking_server.boot.settings import SecretVersions, ServerSettings
from tracking_server.database import address
from tracking_server.database.address import Address
from tracking_server.errors import BootError
from tracking_server.gate.credentials import Credentials, PreviousCredentials

DEADLINE = 60.0
"""Seconds for all secrets together. Together with the time for the database and for another
instance's migration they stay within the 240 s that Cloud Run allows for a start."""
RETRY_SECONDS = 20.0
"""Seconds for each version of the passphrase; all secrets have been read by then."""

log = logging.getLogger(__name__)

DISABLED, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY_REQUESTS = 400, 401, 403, 404, 429
"""Statuses of Secret Manager's errors; a disabled or destroyed version is FAILED_PRECONDITION."""


class Place(Protocol):
    """The settings that say where the secrets are."""

    @property
    def project(self) -> str: ...
    @property
    def secret_manager_endpoint(self) -> str: ...
    @property
    def boot_patience(self) -> int: ...


class StoreVersions(Protocol):
    """The versions of the secrets with the addresses of the bucket and the database."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def artifact_url(self) -> str: ...
    @property
    def database_url(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretValues:
    """The values of the secrets, which `repr` doesn't show."""

    artifact_url: str = field(repr=False)
    database: Address
    kek_passphrase: str = field(repr=False)
    user: Credentials
    viewer: Credentials | None
    previous_user: PreviousCredentials | None = None
    previous_viewer: PreviousCredentials | None = None


def fetch(settings: ServerSettings, *, deadline: float = DEADLINE) -> SecretValues:
    """Read all secrets in parallel.

    A grant may not have reached all of Google's servers yet, so a refused call is repeated for as
    long as the settings say: https://cloud.google.com/iam/docs/access-change-propagation

    Raises:
        BootError: naming each secret that can't be read or holds an invalid value.
    """
    asked = {f.name: getattr(settings.secrets, f.name) for f in fields(SecretVersions)}
    asked = {name: version for name, version in asked.items() if version is not None}
    former = {
        user: version
        for user, until in settings.previous_until.items()
        if until > time() and (version := settings.secrets.previous(f"{user}_password"))
    }
    found = read(settings, [*former.values(), *asked.values()], deadline=deadline)
    values = parse(
        {name: text for name, version in asked.items() if isinstance(text := found[version], str)},
        settings.secrets,
        [
            str(error)
            for version in asked.values()
            if isinstance(error := found[version], BootError)
        ],
    )

    def previous_of(user: str, current: Credentials | None) -> PreviousCredentials | None:
        """Returns the previous login. If it can't be read, the boot goes on without it."""
        password = found[former[user]] if user in former else None
        if isinstance(password, BootError):
            log.warning("the previous %s password isn't accepted: %s", user, password)
        if not isinstance(password, str) or not current:
            return None
        return PreviousCredentials(
            Credentials(current.username, password), settings.previous_until[user]
        )

    return replace(
        values,
        previous_user=previous_of("tracking", values.user),
        previous_viewer=previous_of("viewer", values.viewer),
    )


def read(
    settings: Place, versions: Iterable[str], *, deadline: float = DEADLINE
) -> Mapping[str, str | BootError]:
    """Returns the value of each secret's version, read in parallel, or why it can't be read."""
    until = monotonic() + deadline
    client = _client(settings, until)
    grant_until = min(monotonic() + settings.boot_patience, until)

    def read_one(version: str) -> str | BootError:
        name = f"projects/{settings.project}/secrets/{version}"
        try:
            return _access(client, name, until, grant_until)
        except BootError as error:
            return error

    wanted = list(dict.fromkeys(versions))
    with ThreadPoolExecutor(len(wanted), thread_name_prefix="secret") as pool:
        return dict(zip(wanted, pool.map(read_one, wanted), strict=True))


def read_stores(settings: Place, versions: StoreVersions) -> dict[str, str]:
    """Returns the value of each secret that a dataclass of versions has, by its field.

    Raises:
        BootError: naming each secret that can't be read or holds an invalid value.
    """
    asked: dict[str, str] = {each.name: getattr(versions, each.name) for each in fields(versions)}
    found = read(settings, asked.values())
    values = {
        name: value for name, version in asked.items() if isinstance(value := found[version], str)
    }
    problems = [str(value) for value in found.values() if isinstance(value, BootError)]
    if problems := [*problems, *store_problems(values, versions)]:
        raise BootError("; ".join(problems))
    return values


def passphrases(settings: ServerSettings) -> dict[int, str]:
    """Returns all versions of the passphrase, without the disabled and destroyed ones.

    Raises:
        BootError: if Secret Manager doesn't respond.
    """
    client = _client(settings, monotonic() + RETRY_SECONDS)
    secret = settings.secrets.kek_passphrase.partition("/")[0]
    found: dict[int, str] = {}
    for version in count(1):
        name = f"projects/{settings.project}/secrets/{secret}/versions/{version}"
        until, backoff = monotonic() + RETRY_SECONDS, Backoff(first=0.2, longest=3.0)
        while True:
            try:
                found[version] = client.access(name).decode()
            except (ApiError, *FAILURES) as error:
                status = _status(error)
                if status == NOT_FOUND:
                    return found
                if status == DISABLED:
                    break
                if not _is_transient(error) or backoff.outlasts(until):
                    raise BootError(
                        f"secret {name} could not be read: Secret Manager responds with "
                        f"{_told(error)}"
                    ) from error
                backoff.wait()
            else:
                break
    return found


def parse(values: dict[str, str], versions: SecretVersions, problems: list[str]) -> SecretValues:
    """Check the secrets' values; `problems` are the ones already found.

    Raises:
        BootError: with all problems in one line.
    """
    problems = [*problems, *store_problems(values, versions)]

    def check(name: str, valid: Callable[[str], bool], wanted: str) -> None:
        if name in values and not valid(values[name]):
            problems.append(_unfit(getattr(versions, name), wanted))

    # RFC 7617: a username can't contain a colon; neither it nor a password, control characters.
    for user in ("tracking", "viewer"):
        check(
            f"{user}_username",
            lambda value: _is_credential(value) and ":" not in value,
            "a username without colon or control character",
        )
        check(f"{user}_password", _is_credential, "a password without control character")
    # With the same username the two couldn't be told apart.
    check(
        "viewer_username",
        lambda value: value != values.get("tracking_username"),
        "another name than the tracking_username",
    )
    if problems:
        raise BootError("; ".join(problems))
    return SecretValues(
        artifact_url=values["artifact_url"],
        database=address.parse(values["database_url"]),
        kek_passphrase=values["kek_passphrase"],
        user=Credentials(values["tracking_username"], values["tracking_password"]),
        viewer=(
            Credentials(values["viewer_username"], values["viewer_password"])
            if versions.viewer_username
            else None
        ),
    )


def store_problems(values: Mapping[str, str], versions: StoreVersions) -> list[str]:
    """Returns what is wrong with the addresses of the bucket and the database."""
    problems = []
    if "artifact_url" in values and not _is_bucket_url(values["artifact_url"]):
        problems.append(_unfit(versions.artifact_url, "a bucket's address such as gs://my-bucket"))
    if "database_url" in values and not _is_database_url(values["database_url"]):
        problems.append(
            _unfit(
                versions.database_url,
                "an address such as postgresql+pg8000://USER:PASSWORD@/DB?unix_sock="
                "/cloudsql/PROJECT:REGION:INSTANCE/.s.PGSQL.5432, user and password URL-quoted",
            )
        )
    return problems


def _unfit(version: str, wanted: str) -> str:
    return f"secret {version} must hold {wanted}: add a version that does, and deploy with it"


def _client(settings: Place, until: float) -> SecretManager:
    """Returns a client with one token, which all calls share."""
    backoff = Backoff(first=0.2, longest=3.0)
    while True:
        try:
            return SecretManager(settings.secret_manager_endpoint)
        except (ApiError, *FAILURES) as error:
            if backoff.outlasts(until):
                raise BootError(
                    f"No token for the service account in time: {_told(error)} from the metadata "
                    "server. Is the account disabled or deleted? If not, start a new revision"
                ) from error
        backoff.wait()


def _access(client: SecretManager, name: str, until: float, grant_until: float) -> str:
    secret = name.split("/")[3]
    backoff = Backoff(first=0.2, longest=3.0)
    while True:
        try:
            value = client.access(name).decode()
        except UnicodeDecodeError as error:
            raise BootError(
                f"secret {name} is not UTF-8 text: add a version that is, and deploy with it"
            ) from error
        except (ApiError, *FAILURES) as error:
            status = _status(error)
            if status == NOT_FOUND:
                raise BootError(
                    f"secret {name} does not exist: deploy again with pulumi up, which creates it, "
                    "or set the service's variable to a version that exists "
                    f"(gcloud secrets versions list {secret})"
                ) from error
            if status == DISABLED:
                raise BootError(
                    f"secret {name} is disabled or destroyed: enable it "
                    f"(gcloud secrets versions enable) or deploy again with pulumi up"
                ) from error
            if status == UNAUTHORIZED:
                raise BootError(
                    f"secret {name} may not be read: Secret Manager does not accept the token of "
                    f"{account()}. Is the account disabled or deleted? pulumi up creates it again"
                ) from error
            if status == FORBIDDEN and backoff.outlasts(grant_until):
                raise BootError(
                    f"secret {name} may not be read: {account()} lacks "
                    "roles/secretmanager.secretAccessor on it (pulumi up grants it; if it was "
                    "granted just now, start a new revision: see 'Grants take time' in "
                    "docs/traps.md)"
                ) from error
            if status != FORBIDDEN and not _is_transient(error):
                raise BootError(
                    f"secret {name} could not be read: Secret Manager responds with {_told(error)}"
                ) from error
            if status != FORBIDDEN and backoff.outlasts(until):
                raise BootError(
                    f"secret {name} could not be read in time: Secret Manager responds with "
                    f"{_told(error)}. Start a new revision; if that fails too, see "
                    "https://status.cloud.google.com"
                ) from error
        else:
            if not value.strip():
                raise BootError(
                    f"secret {name} is empty: add a version that holds a value and deploy again"
                )
            return value
        backoff.wait()


def _status(error: Exception) -> int | None:
    return error.status if isinstance(error, ApiError) else None


def _is_transient(error: Exception) -> bool:
    status = _status(error)
    return status is None or status == TOO_MANY_REQUESTS or status >= 500


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ApiError) else type(error).__name__


def _is_bucket_url(value: str) -> bool:
    # https://cloud.google.com/storage/docs/buckets#naming, with an optional folder
    return re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\s?#]*)?", value) is not None


def _is_credential(value: str) -> bool:
    return bool(value) and value.isprintable()


def _is_database_url(value: str) -> bool:
    try:
        address.parse(value)
    except ValueError:
        return False
    return True
