"""IAM's signBlob: signs as a service account without a downloadable key.

https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts

The neighbouring methods, which create tokens, are refused as Google refuses them. Nothing may call
them here: a caller with the permission is told that they aren't imitated.
"""

from __future__ import annotations

import base64
import hashlib
import re

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from fake_google.endpoints import Handler, refusal, unauthenticated
from fake_google.iam.policy import Policy, service_account
from fake_google.metadata_server import Identities
from fake_google.state import State

_CALL = re.compile(r"/v1/projects/-/serviceAccounts/([^/:]+):(\w+)")
_PERMISSIONS = {
    "generateAccessToken": "iam.serviceAccounts.getAccessToken",
    "generateIdToken": "iam.serviceAccounts.getOpenIdToken",
    "signBlob": "iam.serviceAccounts.signBlob",
    "signJwt": "iam.serviceAccounts.signJwt",
}


class Keys:
    """One RSA key for each account. It is kept, so that signed URLs survive a restart."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._accounts: set[str] = set()
        self._keys: dict[str, rsa.RSAPrivateKey] = {}

    def create(self, email: str) -> None:
        self._accounts.add(email)

    def forget(self, email: str) -> None:
        self._accounts.discard(email)
        self._keys.pop(email, None)
        self._state.path(f"keys/{email}.pem").unlink(missing_ok=True)

    def __contains__(self, email: str) -> bool:
        return email in self._accounts

    def sign(self, email: str, message: bytes) -> bytes:
        return self._key(email).sign(message, padding.PKCS1v15(), hashes.SHA256())

    def verify(self, email: str, message: bytes, signature: bytes) -> bool:
        if email not in self:
            return False
        try:
            self._key(email).public_key().verify(
                signature, message, padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return False
        return True

    def _key(self, email: str) -> rsa.RSAPrivateKey:
        """Returns the account's key, generated at its first use because that takes a while."""
        if email not in self._keys:
            self._keys[email] = self._load(f"keys/{email}.pem")
        return self._keys[email]

    def _load(self, name: str) -> rsa.RSAPrivateKey:
        if not self._state.path(name).exists():
            new = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = new.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            self._state.write(name, pem.decode())
        key = serialization.load_pem_private_key(self._state.path(name).read_bytes(), password=None)
        assert isinstance(key, rsa.RSAPrivateKey)  # noqa: S101 what the lines above wrote
        return key


def _not_imitated(request: web.Request) -> web.Response:
    return refusal(404, f"{request.method} {request.path} is not imitated here.")


def iam_credentials(*, keys: Keys, policy: Policy, identities: Identities, project: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        match = _CALL.fullmatch(request.path)
        if match is None or request.method != "POST" or match[2] not in _PERMISSIONS:
            return _not_imitated(request)
        caller = identities.caller(request)
        if caller is None:
            return unauthenticated(request)
        email = match[1]
        permission = _PERMISSIONS[match[2]]
        if email not in keys or not policy.allowed(
            caller, permission, service_account(project, email)
        ):
            return refusal(
                403, f"Permission '{permission}' denied on resource (or it may not exist)."
            )
        if match[2] != "signBlob":
            return _not_imitated(request)
        try:
            payload = base64.b64decode((await request.json())["payload"], validate=True)
        except (ValueError, KeyError, TypeError):
            return refusal(
                400,
                "Invalid value at 'payload' (TYPE_BYTES), Base64 decoding failed.",
                status="INVALID_ARGUMENT",
            )
        return web.json_response(
            {
                "keyId": hashlib.sha256(email.encode()).hexdigest()[:40],
                "signedBlob": base64.b64encode(keys.sign(email, payload)).decode(),
            }
        )

    return handle
