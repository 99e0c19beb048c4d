"""Who may come in: one user, by HTTP Basic, from our own hosts and our own pages.

Wraps the whole ASGI application and refuses by default. No I/O, no state but its settings.
"""

import binascii
import hmac
import re
from base64 import b64decode
from collections.abc import Iterable
from hashlib import sha256

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_AUTHORIZATION = 8192
"""Bytes of an Authorization header that are looked at; the longest of ours are far below."""

_SAFE_METHODS = frozenset({"GET", "HEAD"})
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?")

Headers = dict[bytes, list[bytes]]


class Gate:
    """Lets a request pass that is for one of our hosts, has the credentials and isn't cross-site.

    `hosts` are names without port; a `*` in one stands for letters, digits and hyphens. Exactly
    GET and HEAD of `/health` need nothing.
    """

    def __init__(self, app: ASGIApp, *, username: str, password: str, hosts: Iterable[str]) -> None:
        self.app = app
        self._expected = sha256(f"{username}:{password}".encode()).digest()
        names = "|".join(re.escape(host).replace(r"\*", "[a-z0-9-]+") for host in hosts)
        self._host = re.compile(rf"({names})(:[0-9]{{1,5}})?")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = self._refusal(scope)
            await (self.app(scope, receive, send) if refusal is None else _send(refusal, send))
        elif scope["type"] == "websocket":
            # MLflow has no websocket. Closing before accepting is a 403.
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise ValueError(f"refused a scope of type {scope['type']}")

    def _refusal(self, scope: Scope) -> "Refusal | None":
        # The path as it was sent: an encoded or doubled slash is another path.
        if scope["raw_path"] == b"/health" and scope["method"] in _SAFE_METHODS:
            return None
        headers: Headers = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        host = _single(headers, b"host").lower()
        if not self._host.fullmatch(host):
            return WRONG_HOST
        if not hmac.compare_digest(_credentials_digest(headers), self._expected):
            return UNAUTHORIZED
        return CROSS_SITE if _is_cross_site(scope["method"], host, headers) else None


class Refusal:
    """An answer that is the same for everyone, made once."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        body = text.encode()
        self.start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                (b"x-frame-options", b"SAMEORIGIN"),
                *headers,
            ],
        }
        self.body: Message = {"type": "http.response.body", "body": body}


WRONG_HOST = Refusal(
    403,
    "This server does not answer under that host name. A custom domain must be listed in the "
    "stack's setting customDomains.\n",
)
UNAUTHORIZED = Refusal(
    401,
    "A username and a password are needed, and those given are not right. Set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.\n",
    (b"www-authenticate", b'Basic realm="MLflow", charset="UTF-8"'),
)
CROSS_SITE = Refusal(403, "This request comes from another site's page and is refused.\n")


async def _send(refusal: Refusal, send: Send) -> None:
    # A copy, as what is outside adds headers.
    await send({**refusal.start, "headers": list(refusal.start["headers"])})
    await send(refusal.body)


def _single(headers: Headers, name: bytes) -> str:
    """A header's value, empty where it is missing or there are several."""
    values = headers.get(name, [])
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _credentials_digest(headers: Headers) -> bytes:
    """SHA-256 of `user:password`, of nothing where the header is not one of HTTP Basic.

    One comparison of digests takes as long whether the user or the password is wrong.
    """
    scheme, _, token = _single(headers, b"authorization")[:MAX_AUTHORIZATION].partition(" ")
    try:
        given = b64decode(token.strip(), validate=True) if scheme.lower() == "basic" else b""
    except (binascii.Error, ValueError):
        given = b""
    return sha256(given).digest()


def _is_cross_site(method: str, host: str, headers: Headers) -> bool:
    """Whether a page of another site made this request.

    A browser adds the credentials it knows to what any site's page sends here. It also says where
    a request comes from: in Origin (https://fetch.spec.whatwg.org/#origin-header) and in
    Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/). Other clients send neither. A link
    from elsewhere may be followed, nothing else.
    """
    if b"origin" in headers:
        scheme = "http" if _LOOPBACK.fullmatch(host) else "https"
        if _single(headers, b"origin").lower() != f"{scheme}://{host}":
            return True
    if b"sec-fetch-site" not in headers or _single(headers, b"sec-fetch-site") in (
        "same-origin",
        "none",
    ):
        return False
    followed = _single(headers, b"sec-fetch-mode") == "navigate"
    return not (followed and method in _SAFE_METHODS)
