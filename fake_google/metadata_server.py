"""The metadata server, and the identities whose tokens it issues.

https://cloud.google.com/compute/docs/metadata/overview,
https://cloud.google.com/run/docs/container-contract#metadata-server
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from aiohttp import web

from fake_google.endpoints import Handler

_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
LIFETIME = 3600
# google-auth requests a new token when fewer seconds are left, so Google's server has one by then.
_FRESH = 300


@dataclass(frozen=True)
class Token:
    value: str
    email: str
    expires: float


class Identities:
    """Issues random, short-lived access tokens, and knows the e-mail address behind each."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._current: dict[str, Token] = {}

    def token(self, email: str) -> Token:
        now = time.time()
        token = self._current.get(email)
        if token is None or token.expires < now + _FRESH:
            self._tokens = {key: kept for key, kept in self._tokens.items() if kept.expires > now}
            token = Token(f"ya29.{secrets.token_urlsafe(48)}", email, now + LIFETIME)
            self._tokens[token.value] = self._current[email] = token
        return token

    def caller(self, request: web.Request) -> str | None:
        """Returns the e-mail address behind a bearer token, or None without a valid token."""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        token = self._tokens.get(value) if scheme.lower() == "bearer" else None
        return token.email if token and token.expires > time.time() else None


def metadata_server(*, identities: Identities, email: str, project: str, number: str) -> Handler:
    """Returns the metadata server for one identity's processes."""
    account = "/computeMetadata/v1/instance/service-accounts/"

    async def handle(request: web.Request) -> web.Response:
        if request.path == "/":
            return web.Response(text="computeMetadata/\n", headers=_FLAVOR)
        # The required header keeps web pages and proxied requests from getting a token.
        if (
            request.headers.get("Metadata-Flavor") != "Google"
            or "X-Forwarded-For" in request.headers
        ):
            return web.Response(
                status=403,
                text="Missing Metadata-Flavor:Google header.\n",
                headers=_FLAVOR,
            )
        path = request.path
        for name in ("default", email):
            if path.startswith(f"{account}{name}"):
                return _account(request, path.removeprefix(f"{account}{name}").strip("/"))
        text = {
            account.rstrip("/"): f"default/\n{email}/\n",
            "/computeMetadata/v1/project/project-id": project,
            "/computeMetadata/v1/project/numeric-project-id": number,
            "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
            "/computeMetadata/v1/universe/universe_domain": "googleapis.com",
        }.get(path.rstrip("/"))
        if text is None:
            return web.Response(status=404, text="Not Found\n", headers=_FLAVOR)
        return web.Response(text=text, headers=_FLAVOR)

    def _account(request: web.Request, what: str) -> web.Response:
        if what == "" and request.query.get("recursive", "").lower() == "true":
            described = {"aliases": ["default"], "email": email, "scopes": _SCOPES}
            return web.json_response(described, headers=_FLAVOR)
        if what == "token":
            token = identities.token(email)
            answer = {
                "access_token": token.value,
                "expires_in": int(token.expires - time.time()),
                "token_type": "Bearer",
            }
            return web.json_response(answer, headers=_FLAVOR)
        texts = {"": "aliases\nemail\nidentity\nscopes\ntoken\n", "email": email}
        texts |= {"scopes": "\n".join(_SCOPES), "aliases": "default"}
        if what not in texts:
            return web.Response(status=404, text="Not Found\n", headers=_FLAVOR)
        return web.Response(text=texts[what], headers=_FLAVOR)

    return handle
