"""Sends refusals in the format of MLflow's own errors, which its client shows to the user."""

import asyncio
import json
from contextlib import suppress
from random import randint

from starlette.types import Message, Receive, Send

COME_BACK = (2, 8)
"""The range of seconds after which a refused caller may try again; MLflow's client does so seven
times. The server picks a random value, so that callers refused together don't return together."""

_CODES = {403: "PERMISSION_DENIED", 501: "NOT_IMPLEMENTED", 503: "TEMPORARILY_UNAVAILABLE"}


async def refuse(
    send: Send, status: int, text: str, *, come_back: tuple[int, int] | None = None
) -> None:
    """Send an error as MLflow does. `come_back` is the range for Retry-After, in seconds."""
    body = json.dumps(
        {"error_code": _CODES.get(status, "INVALID_PARAMETER_VALUE"), "message": text}
    ).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if come_back:
        after = randint(*come_back)  # noqa: S311 (spreads load, guards nothing)
        headers.append((b"retry-after", b"%d" % after))
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


async def swallow(receive: Receive, *, size: int, seconds: float) -> None:
    """Read and discard the rest of a body, up to so many bytes.

    With an unread body, HTTP/1.1 has to close the connection, and a client that still sends may
    miss the response.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while size > 0:
                message = await receive()
                size -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
