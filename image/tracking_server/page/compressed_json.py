"""Compresses JSON for MLflow's page.

Training clients get their responses uncompressed, because compressing 25 runs takes 0.3 ms of CPU
time, which is much of a hot route's.

The size of a compressed response can reveal a secret in it, if an attacker's page makes the browser
send requests with guesses that the response repeats (BREACH, https://www.breachattack.com). So only
requests of our own page get a compressed response. Browsers mark these in a header that no page can
set.
"""

import asyncio
import zlib
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.page.accept_encoding import IDENTITY, chosen

SMALLEST = 8 * 1024
"""Bytes of a response that is compressed. A smaller one arrives in one round trip anyway."""

LEVEL = 1
"""Runs get a quarter smaller at zlib's default level, in twice as much time."""

LONG = 64 * 1024
"""Bytes of a body that is compressed in a thread, so that it doesn't delay other requests."""

Headers = Sequence[tuple[bytes, bytes]]


class CompressedJson:
    """Compresses complete JSON responses to requests of MLflow's page.

    A response without a length is a stream, and one with an ETag is a file; neither is changed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _can_compress(scope):
            await self.app(scope, receive, send)
            return
        compressor = None

        async def compressed(message: Message) -> None:
            nonlocal compressor
            if message["type"] == "http.response.start" and _is_compressible(message):
                compressor = zlib.compressobj(LEVEL, wbits=zlib.MAX_WBITS | 16)
                message = {**message, "headers": _compressed(message["headers"])}
            elif message["type"] == "http.response.body" and compressor is not None:
                message = {**message, "body": await _part(compressor, message)}
                if not message["body"] and message.get("more_body"):
                    return
            await send(message)

        await self.app(scope, receive, compressed)


def _can_compress(scope: Scope) -> bool:
    # https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header
    return (
        (b"sec-fetch-site", b"same-origin") in scope["headers"]
        and scope["method"] != "HEAD"
        and chosen(scope["headers"], ["gzip", IDENTITY]) == "gzip"
    )


def _is_compressible(start: Message) -> bool:
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    length = headers.get(b"content-length", b"")
    return (
        start["status"] == 200
        and headers.get(b"content-type", b"").partition(b";")[0] == b"application/json"
        and length.isdigit()
        and int(length) >= SMALLEST
        and not headers.keys() & {b"content-encoding", b"etag", b"content-disposition"}
        and b"no-transform" not in headers.get(b"cache-control", b"")
    )


def _compressed(given: Headers) -> Headers:
    """Returns the headers of the compressed response, whose length isn't known yet."""
    varies = [value for name, value in given if name.lower() == b"vary"]
    return [
        *(
            (name, value)
            for name, value in given
            if name.lower() not in (b"content-length", b"vary")
        ),
        (b"content-encoding", b"gzip"),
        (b"vary", b", ".join([*varies, b"Accept-Encoding"])),
    ]


async def _part(compressor: "zlib._Compress", message: Message) -> bytes:
    body = message.get("body", b"")
    if len(body) < LONG:
        part = compressor.compress(body)
    else:
        part = await asyncio.to_thread(compressor.compress, body)
    return part if message.get("more_body") else part + compressor.flush()
