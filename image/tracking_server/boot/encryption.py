"""Re-encrypts the gateway's API keys and the webhooks' secrets for this server's passphrase.

MLflow's own `mlflow crypto rotate-kek` requires a stopped server and leaves the webhooks out. Here
the first instance that boots with another passphrase does it. That may be a newer passphrase or,
after a roll-back, the previous one: Secret Manager keeps every version.
"""

import logging
from collections.abc import Callable, Mapping

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Connection, Engine, String, type_coerce

from tracking_server.mlflow import internals

log = logging.getLogger(__name__)


def renew(
    engine: Engine, *, version: int, passphrase: str, known: Callable[[], Mapping[int, str]]
) -> None:
    """Re-encrypt the values that were encrypted with another passphrase, in one transaction.

    `known` returns the passphrases by version; it is called only if there is something to do. A
    value that none of them can decrypt stays as it is: it has to be entered again, and everything
    else works.
    """
    with engine.connect() as connection:
        if not (_keys(connection, version) or _hooks(connection, passphrase)):
            return
    passphrases = {**known(), version: passphrase}
    with engine.begin() as connection:
        # Lock all rows first, in the order of their ids: other instances may boot at the same time.
        stale_keys = _keys(connection, version, lock=True)
        stale_hooks = _hooks(connection, passphrase, lock=True)
        keys = _rewrap(connection, stale_keys, version, passphrases)
        hooks = _reencrypt(connection, stale_hooks, passphrase, [*passphrases.values()])
    log.info("encryption: at version %d, %d gateway keys and %d webhooks", version, keys, hooks)


def _rewrap(
    connection: Connection,
    keys: list[tuple[str, int, bytes]],
    version: int,
    passphrases: Mapping[int, str],
) -> int:
    table, done = internals.gateway_keys(), 0
    for key_id, kek_version, wrapped in keys:
        renewed = None
        if kek_version in passphrases:
            renewed = internals.rewrapped(
                wrapped,
                old=(kek_version, passphrases[kek_version]),
                new=(version, passphrases[version]),
            )
        if renewed is None:
            log.error(
                "gateway key %s can't be read with version %d of the passphrase: enable that "
                "version of the secret and start again, or enter the key again",
                key_id,
                kek_version,
            )
            continue
        changed = {"wrapped_dek": renewed, "kek_version": version}
        connection.execute(table.update().where(table.c.secret_id == key_id).values(changed))
        done += 1
    return done


def _reencrypt(
    connection: Connection, hooks: list[tuple[str, str]], passphrase: str, passphrases: list[str]
) -> int:
    table, done = internals.webhooks(), 0
    ciphers = MultiFernet([_cipher(known) for known in (passphrase, *passphrases)])
    for hook_id, token in hooks:
        try:
            renewed = ciphers.rotate(token).decode()
        except InvalidToken:
            log.error("the secret of webhook %s can't be read: enter it again", hook_id)
            continue
        values = {table.c.secret: type_coerce(renewed, String)}
        connection.execute(table.update().where(table.c.webhook_id == hook_id).values(values))
        done += 1
    return done


def _keys(
    connection: Connection, version: int, *, lock: bool = False
) -> list[tuple[str, int, bytes]]:
    """Returns the gateway keys of other versions than this one."""
    table = internals.gateway_keys()
    asked = table.select().where(table.c.kek_version != version).order_by(table.c.secret_id)
    rows = connection.execute(asked.with_for_update() if lock else asked)
    return [(row.secret_id, row.kek_version, row.wrapped_dek) for row in rows]


def _hooks(connection: Connection, passphrase: str, *, lock: bool = False) -> list[tuple[str, str]]:
    """Returns the webhooks whose secrets this passphrase can't decrypt."""
    table, cipher = internals.webhooks(), _cipher(passphrase)
    # As a plain string: the type that MLflow gives the column would decrypt it.
    secret = type_coerce(table.c.secret, String).label("token")
    asked = table.select().with_only_columns(table.c.webhook_id, secret)
    asked = asked.where(table.c.secret.is_not(None)).order_by(table.c.webhook_id)
    rows = connection.execute(asked.with_for_update() if lock else asked)
    return [(row.webhook_id, row.token) for row in rows if not _reads(cipher, row.token)]


def _reads(cipher: Fernet, token: str) -> bool:
    try:
        cipher.decrypt(token)
    except InvalidToken:
        return False
    return True


def _cipher(passphrase: str) -> Fernet:
    return Fernet(internals.webhook_key(passphrase))
