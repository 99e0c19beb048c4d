"""Response headers that tell a browser what a response may do and which cache may keep it.

Only MLflow's page and its static files may run scripts. A browser shows every other response, such
as an artifact, an error or JSON, in a sandbox. The page's own requests aren't affected, because a
policy applies to the document that it came with and not to one that reads it.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE, STATIC_FILES = "/", "/static-files/"

SANDBOX = "sandbox; default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
FRAMED_BY_US = "frame-ancestors 'self'"
_SANDBOX = SANDBOX.encode()

_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\ssrc\s*=)[^>]*>(.*?)</script>", re.DOTALL | re.I)
_LOOPBACK = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.I)
# https://fetch.spec.whatwg.org/#destination-script-like
_SCRIPT_LIKE = frozenset(
    {b"script", b"worker", b"sharedworker", b"serviceworker", b"audioworklet", b"paintworklet"}
)
_CORS = b"access-control-"
_CACHE_CONTROL = b"cache-control"
_SHARED = re.compile(r"(public|private|s-maxage)(=.*)?", re.I)

Headers = Iterable[tuple[bytes, bytes]]


class ResponseHeaders:
    """Adds the headers to every response and replaces headers of the same name.

    `page` is the file of MLflow's page; inline scripts in it are allowed by their hashes.
    `embeddable` starts the paths that MLflow allows other sites to show in a frame.
    """

    def __init__(self, app: ASGIApp, *, page: Path, embeddable: str) -> None:
        if not embeddable.startswith(STATIC_FILES):
            raise ValueError(f"{embeddable} is not a static file, wanted {STATIC_FILES}…")
        self.app = app
        self._embeddable = embeddable
        policy = page_policy(page.read_text())
        self._embedded, self._page = policy.encode(), f"{policy}; {FRAMED_BY_US}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"])
        added = self._headers(scope["path"], given)
        cors = b"origin" in given

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Copy: the application may send the same message again.
                headers = _merged(message.get("headers", ()), added, cors=cors)
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, with_headers)

    def _headers(self, path: str, given: dict[bytes, bytes]) -> dict[bytes, bytes]:
        headers = {
            b"content-security-policy": self._policy(path),
            b"cross-origin-opener-policy": b"same-origin",
            b"cross-origin-resource-policy": b"same-origin",
            b"referrer-policy": b"same-origin",
            b"x-content-type-options": b"nosniff",
        }
        # Without includeSubDomains: other hosts of a custom domain aren't ours.
        if not _LOOPBACK.fullmatch(given.get(b"host", b"")):
            headers[b"strict-transport-security"] = b"max-age=31536000"
        # The policy's 'self' includes artifacts. With nosniff, a browser doesn't run text.
        if given.get(b"sec-fetch-dest") in _SCRIPT_LIKE and not _is_mlflows(path):
            headers[b"content-type"] = b"text/plain; charset=utf-8"
        return headers

    def _policy(self, path: str) -> bytes:
        if path.startswith(self._embeddable):
            return self._embedded
        return self._page if _is_mlflows(path) else _SANDBOX


def _is_mlflows(path: str) -> bool:
    """Whether the response is part of MLflow's page, rather than data that a caller has sent."""
    return path == PAGE or path.startswith(STATIC_FILES)


def page_policy(html: str) -> str:
    """Returns the policy that allows what MLflow's page needs, and no other server.

    A frame that shows an HTML artifact inherits it, so the artifact's scripts don't run.
    """
    hashes = [
        b64encode(sha256(script.encode()).digest()).decode()
        for script in _INLINE_SCRIPT.findall(html)
    ]
    directives = {
        "default-src": ["'self'"],
        # Plotly compiles functions to draw the parallel coordinates of compared runs.
        "script-src": ["'self'", "'unsafe-eval'", *(f"'sha256-{text}'" for text in hashes)],
        # The page's components and charts insert style elements and attributes.
        "style-src": ["'self'", "'unsafe-inline'"],
        # The page shows an artifact from a blob that it has fetched.
        "connect-src": ["'self'", "blob:"],
        "img-src": ["'self'", "data:", "blob:"],
        "media-src": ["'self'", "data:", "blob:"],
        "font-src": ["'self'", "data:"],
        "frame-src": ["'self'", "blob:"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in directives.items())


def _merged(given: Headers, added: dict[bytes, bytes], *, cors: bool) -> list[tuple[bytes, bytes]]:
    """Returns the headers with the added ones instead of those of the same name.

    Without `cors`, those are left out that Flask-CORS adds even if no other site asks.
    """
    headers, cached = [], []
    for name, value in given:
        lower = name.lower()
        if lower == _CACHE_CONTROL:
            cached.append(value)
        elif lower not in added and (cors or not lower.startswith(_CORS)):
            headers.append((name, value))
    private = _cache_control(b", ".join(cached))
    return [*headers, *added.items(), (_CACHE_CONTROL, private)]


@lru_cache(256)
def _cache_control(given: bytes) -> bytes:
    return cache_control(given.decode("latin-1")).encode("latin-1")


def cache_control(given: str) -> str:
    """Returns the directives without shared caches: everything is behind a login."""
    kept = [
        part for part in map(str.strip, given.split(",")) if part and not _SHARED.fullmatch(part)
    ]
    return ", ".join(kept if "no-store" in map(str.lower, kept) else ["private", *kept])
