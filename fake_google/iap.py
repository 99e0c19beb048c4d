"""Identity-Aware Proxy's assertions, and its public keys.

https://cloud.google.com/iap/docs/signed-headers-howto
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

HEADER = "X-Goog-IAP-JWT-Assertion"
ISSUER = "https://cloud.google.com/iap"
LIFETIME = 600


class Signer:
    """Signs assertions as Google does; `rotate` replaces the key."""

    def __init__(self) -> None:
        self._number = 0
        self.rotate()

    def rotate(self) -> None:
        self._number += 1
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def key_id(self) -> str:
        return f"key{self._number}"

    @property
    def public_keys(self) -> dict[str, str]:
        """The public key in PEM by its id, as https://www.gstatic.com/iap/verify/public_key."""
        pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {self.key_id: pem.decode()}

    async def serve_keys(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.public_keys)

    def assertion(self, address: str, *, audience: str, **claims: Any) -> str:
        """Returns the assertion for a person; `claims` replaces some of its claims."""
        now = int(time.time())
        return self.signed(
            {"alg": "ES256", "typ": "JWT", "kid": self.key_id},
            {
                "iss": ISSUER,
                "aud": audience,
                "sub": f"accounts.google.com:{address}",
                "email": address,
                "iat": now,
                "exp": now + LIFETIME,
                **claims,
            },
        )

    def signed(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
        raw = b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(signature))
        return f"{text}.{encoded(raw)}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
