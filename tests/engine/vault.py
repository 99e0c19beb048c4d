"""A stand-in for HashiCorp Vault, where the tests' stacks have their key.

Each command of Pulumi derives a stack's key from its passphrase, which takes longer than the rest
of many commands. This keeper only encodes the key:
https://developer.hashicorp.com/vault/api-docs/secret/transit
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from fake_google.endpoints import Endpoints

KEY = "hashivault://tests"
_MARK = "vault:v1:"


@contextmanager
def serve() -> Iterator[str]:
    """Yield the value of VAULT_SERVER_URL."""
    endpoints = Endpoints()
    try:
        yield endpoints.serve(_answer)
    finally:
        endpoints.close()


async def _answer(request: web.Request) -> web.Response:
    given = await request.json()
    if "plaintext" in given:
        return web.json_response({"data": {"ciphertext": _MARK + given["plaintext"]}})
    return web.json_response({"data": {"plaintext": given["ciphertext"].removeprefix(_MARK)}})
