"""Verifies the assertions of Identity-Aware Proxy, which say whom Google has signed in.

https://cloud.google.com/iap/docs/signed-headers-howto
"""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from time import monotonic, time
from typing import Any

from tracking_server.accounts.logins import shrink

HEADER = b"x-goog-iap-jwt-assertion"

ISSUER = "https://cloud.google.com/iap"

MAX_ASSERTION = 8192
"""Bytes of an assertion that is read; Google's have less than a tenth of that."""

SKEW = 30
"""Seconds by which Google's clock and this computer's may differ."""

KEYS_LAST = 3600.0
"""Seconds after which the keys are fetched again, so that a withdrawn one isn't accepted."""

RETRY_AFTER = 10.0
"""Seconds between two fetches because of an unknown key, or after a failed fetch."""

_FORM = re.compile(rb"[\w-]+\.[\w-]+\.[\w-]{86}", re.ASCII)
_ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w.-]+", re.ASCII)
_LONGEST_ADDRESS = 255
"""Characters of a name in MLflow's table of users."""

log = logging.getLogger(__name__)


class NotSigned(Exception):
    """The assertion isn't accepted. The text says why, and shows nothing of the assertion."""


class NoKeys(Exception):
    """Google's keys can't be fetched at the moment."""


class Keys:
    """Google's public keys, in PEM by their id. `fetch` returns them; it may block."""

    def __init__(
        self, fetch: Callable[[], Mapping[str, str]], clock: Callable[[], float] = monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, str] = {}
        self._stale_at = self._retry_at = clock()
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, key_id: str) -> str:
        """Returns a key.

        Raises:
            NoKeys: if no keys have been fetched yet.
            NotSigned: if Google has no such key.
        """
        now = self._clock()
        if (key_id not in self._keys or now >= self._stale_at) and now >= self._retry_at:
            if self._fetching is None:
                self._fetching = asyncio.create_task(self._renew())
            # If a client disconnects, the fetch goes on for others.
            await asyncio.shield(self._fetching)
        if not self._keys:
            raise NoKeys
        if key_id not in self._keys:
            raise NotSigned("unknown key")
        return self._keys[key_id]

    async def _renew(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._fetch)
            self._stale_at = self._clock() + KEYS_LAST
        except Exception:
            log.warning("can't fetch the keys of Identity-Aware Proxy", exc_info=True)
        finally:
            self._retry_at = self._clock() + RETRY_AFTER
            self._fetching = None


class Assertions:
    """Verifies assertions for one audience, a Cloud Run service."""

    def __init__(self, *, audience: str, keys: Keys, now: Callable[[], float] = time) -> None:
        self._audience = audience
        self._keys = keys
        self._now = now
        # Verifying one takes longer than the rest of a short request. By digest: the address, and
        # the time when the assertion expires.
        self._verified: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    async def address(self, assertion: bytes) -> str:
        """Returns the e-mail address of the person whom Google has signed in, in lower case.

        Raises:
            NotSigned: if the assertion isn't valid, or is for another service.
            NoKeys: if it can't be verified at the moment.
        """
        if len(assertion) > MAX_ASSERTION or not _FORM.fullmatch(assertion):
            raise NotSigned("missing or malformed")
        digest = sha256(assertion).digest()
        address, until = self._verified.get(digest, ("", 0.0))
        if self._now() < until:
            return address
        key_id = _key_id(assertion)
        claims = _verified(assertion, key_id, await self._keys.get(key_id))
        address = self._address(claims)
        self._verified[digest] = address, claims["exp"] + SKEW
        shrink(self._verified)
        return address

    def _address(self, claims: Mapping[str, Any]) -> str:
        if claims.get("iss") != ISSUER:
            raise NotSigned("another issuer")
        if claims.get("aud") != self._audience:
            raise NotSigned("another audience")
        address = claims.get("email")
        if (
            not isinstance(address, str)
            or len(address) > _LONGEST_ADDRESS
            or not _ADDRESS.fullmatch(address)
        ):
            raise NotSigned("no e-mail address")
        return address.lower()


def _key_id(assertion: bytes) -> str:
    from google.auth import exceptions, jwt

    try:
        header = jwt.decode_header(assertion)
    except (exceptions.MalformedError, ValueError):
        raise NotSigned("missing or malformed") from None
    # Only this algorithm: otherwise the sender would choose how it is verified.
    if header.get("alg") != "ES256":
        raise NotSigned("another algorithm")
    if not isinstance(key_id := header.get("kid"), str):
        raise NotSigned("unknown key")
    return key_id


def _verified(assertion: bytes, key_id: str, key: str) -> Mapping[str, Any]:
    from google.auth import exceptions, jwt

    try:
        claims: Mapping[str, Any] = jwt.decode(
            assertion, certs={key_id: key}, clock_skew_in_seconds=SKEW
        )
    except exceptions.InvalidValue:
        raise NotSigned("expired, or from the future") from None
    except (exceptions.MalformedError, TypeError, ValueError):
        raise NotSigned("not signed by Google") from None
    return claims
