"""At boot, values encrypted with any known passphrase are encrypted with the current one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, String, text, type_coerce
from sqlalchemy.exc import DBAPIError
from tracking_server.boot import encryption, schema, secrets
from tracking_server.database import address, engines
from tracking_server.mlflow import internals

from tests.server.google import Google
from tests.server.test_secrets import stored

KNOWN = {1: "the first", 2: "the second"}
KEYS, HOOKS = 3, 2


@pytest.fixture
def engine(database_url: str, cloudsql_root: Path) -> Iterator[Engine]:
    engines.connect_with(address.parse(database_url).at_root(str(cloudsql_root)), pool_size=1)
    engine = engines.single_connection_engine()
    schema.ensure(engine, deadline=5)
    yield engine
    engine.dispose()


def store(
    engine: Engine, version: int, passphrase: str, *, keys: int = KEYS, hooks: int = HOOKS
) -> None:
    """Store secrets as MLflow does, with encrypted values."""
    from mlflow.utils.crypto import KEKManager, _encrypt_secret

    kek = KEKManager(passphrase=passphrase, kek_version=version)
    with engine.begin() as connection:
        for number in range(keys):
            name = f"key {number}"
            encrypted = _encrypt_secret(f"value {number}", kek, name, name)
            connection.execute(
                internals.gateway_keys()
                .insert()
                .values(
                    secret_id=name,
                    secret_name=name,
                    encrypted_value=encrypted.encrypted_value,
                    wrapped_dek=encrypted.wrapped_dek,
                    kek_version=version,
                    masked_value="{}",
                )
            )
        cipher = Fernet(internals.webhook_key(passphrase))
        for number in range(hooks):
            token = cipher.encrypt(f"value {number}".encode()).decode()
            connection.execute(
                internals.webhooks()
                .insert()
                .values(
                    webhook_id=f"hook {number}",
                    name="n",
                    url="https://8.8.8.8",
                    status="ACTIVE",
                    secret=type_coerce(token, String),
                )
            )


def read(engine: Engine, version: int, passphrase: str) -> list[str]:
    """Decrypt all values. Fails if one isn't encrypted with this passphrase and version."""
    from mlflow.utils.crypto import KEKManager, _decrypt_secret

    kek = KEKManager(passphrase=passphrase, kek_version=version)
    cipher = Fernet(internals.webhook_key(passphrase))
    keys, hooks = internals.gateway_keys(), internals.webhooks()
    with engine.connect() as connection:
        values = []
        for key in connection.execute(keys.select().order_by(keys.c.secret_id)):
            assert key.kek_version == version
            values.append(
                _decrypt_secret(
                    key.encrypted_value, key.wrapped_dek, kek, key.secret_id, key.secret_name
                )
            )
        token = type_coerce(hooks.c.secret, String).label("token")
        for hook in connection.execute(
            hooks.select().with_only_columns(token).order_by(hooks.c.webhook_id)
        ):
            values.append(cipher.decrypt(hook.token).decode())
    return values


EVERYTHING = [*(f"value {n}" for n in range(KEYS)), *(f"value {n}" for n in range(HOOKS))]


def renew(engine: Engine, version: int, known: Mapping[int, str] = KNOWN) -> None:
    encryption.renew(engine, version=version, passphrase=KNOWN[version], known=lambda: known)


def test_values_follow_a_newer_passphrase_and_a_rollback(engine: Engine) -> None:
    store(engine, 1, KNOWN[1])
    for version in (2, 1):
        renew(engine, version)
        assert read(engine, version, KNOWN[version]) == EVERYTHING


@pytest.mark.parametrize(("keys", "hooks"), [(KEYS, 0), (0, HOOKS)])
def test_gateway_keys_or_webhooks_alone(engine: Engine, keys: int, hooks: int) -> None:
    store(engine, 1, KNOWN[1], keys=keys, hooks=hooks)
    renew(engine, 2)
    assert read(engine, 2, KNOWN[2]) == EVERYTHING[:KEYS][:keys] + EVERYTHING[KEYS:][:hooks]


def test_a_webhook_without_a_secret_stays_without(engine: Engine) -> None:
    table = internals.webhooks()
    store(engine, 1, KNOWN[1], hooks=1)
    without = {"webhook_id": "none", "name": "n", "url": "https://8.8.8.8", "status": "ACTIVE"}
    with engine.begin() as connection:
        connection.execute(table.insert().values(**without, secret=None))
    renew(engine, 2)
    with engine.connect() as connection:
        query = table.select().where(table.c.webhook_id == "none")
        assert connection.execute(query).one().secret is None


def test_the_passphrase_in_use_needs_no_version_in_the_list(engine: Engine) -> None:
    """Secret Manager may list the newest version late."""
    store(engine, 1, KNOWN[1])
    renew(engine, 2, {1: KNOWN[1]})
    assert read(engine, 2, KNOWN[2]) == EVERYTHING


def test_old_passphrases_are_only_read_if_needed(engine: Engine) -> None:
    def never() -> Mapping[int, str]:
        raise AssertionError

    encryption.renew(engine, version=1, passphrase=KNOWN[1], known=never)
    store(engine, 1, KNOWN[1])
    encryption.renew(engine, version=1, passphrase=KNOWN[1], known=never)
    with pytest.raises(AssertionError):
        encryption.renew(engine, version=2, passphrase=KNOWN[2], known=never)


def test_a_concurrent_write_waits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the old data key, encrypted again, would be stored with a value of another key."""
    store(engine, 1, KNOWN[1])
    rewrapped, refused = internals.rewrapped, 0

    def disturbed(*arguments: Any, **named: Any) -> bytes | None:
        nonlocal refused
        for table in (internals.gateway_keys(), internals.webhooks()):
            with engine.connect() as other:
                other.execute(text("SET lock_timeout = '50ms'"))
                with pytest.raises(DBAPIError, match="55P03"):
                    other.execute(table.delete())
                refused += 1
        return rewrapped(*arguments, **named)

    monkeypatch.setattr(internals, "rewrapped", disturbed)
    renew(engine, 2)
    assert refused == 2 * KEYS
    assert read(engine, 2, KNOWN[2]) == EVERYTHING


def test_unreadable_values_are_reported_and_kept(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    store(engine, 1, "forgotten")
    for known in ({1: "not it"}, {}):
        caplog.clear()
        renew(engine, 2, known)
        said = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert len(said) == KEYS + HOOKS
        assert "gateway key key 0 can't be read with version 1" in said[0]
        assert "the secret of webhook hook 0 can't be read" in said[KEYS]
    assert read(engine, 1, "forgotten") == EVERYTHING


def test_every_enabled_version_of_the_passphrase_is_read(google: Google) -> None:
    settings = stored(google)
    first = settings.secrets.kek_passphrase
    second = google.store_further(first, "second")
    google.store_further(first, "third")
    assert secrets.passphrases(settings) == {1: "canary", 2: "second", 3: "third"}
    google.destroy(second)
    assert secrets.passphrases(settings) == {1: "canary", 3: "third"}
    assert settings.kek_version == 1
