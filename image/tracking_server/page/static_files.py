"""Serves MLflow's page and its static files, compressed and without MLflow."""

import asyncio
import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server.page.accept_encoding import IDENTITY, chosen
from tracking_server.page.files import PageFile, page_files
from tracking_server.request_headers import combined

PREFIX = "/static-files/"
INDEX = "index.html"

CHUNK = 256 * 1024
"""Bytes that are read from a file at a time."""

FOREVER, A_DAY, REVALIDATED = b"max-age=31536000, immutable", b"max-age=86400", b"no-cache"

Headers = list[tuple[bytes, bytes]]


class PageFiles:
    """Serves the files that were in `folder` when the server started, and passes on the rest.

    A path is looked up among the files' paths, and never becomes one. Ranges are ignored.
    """

    def __init__(self, app: ASGIApp, *, folder: Path) -> None:
        self.app = app
        files = page_files(folder)
        self._files: Mapping[str, PageFile] = {
            "/": files[INDEX],
            **{PREFIX + name: file for name, file in files.items()},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = self._files.get(scope["path"]) if scope["type"] == "http" else None
        if file is None or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        coding = chosen(scope["headers"], [*file.stored, IDENTITY])
        etag = b'"%s-%s"' % (file.version.encode(), coding.encode())
        headers = _headers(file, etag)
        if _is_known(scope, etag):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body"})
            return
        headers.append((b"content-type", file.media_type.encode()))
        if coding != IDENTITY:
            headers.append((b"content-encoding", coding.encode()))
        await _respond(scope, send, file, coding, headers)


def _headers(file: PageFile, etag: bytes) -> Headers:
    return [
        (b"etag", etag),
        (b"cache-control", _cache_control(file)),
        (b"vary", b"Accept-Encoding"),
    ]


def _cache_control(file: PageFile) -> bytes:
    if file.is_immutable:
        return FOREVER
    # An HTML file names the immutable files that belong to the same version of MLflow.
    return REVALIDATED if file.media_type.startswith("text/html") else A_DAY


def _is_known(scope: Scope, etag: bytes) -> bool:
    """Whether the client has the file already: https://www.rfc-editor.org/rfc/rfc9110#if-none-match"""
    given = combined(scope["headers"], b"if-none-match")
    known = {part.strip().removeprefix("W/") for part in given.split(",")}
    return etag.decode() in known or "*" in known


async def _respond(scope: Scope, send: Send, file: PageFile, coding: str, headers: Headers) -> None:
    opened, size = await asyncio.to_thread(_open, file, coding)
    with opened:
        if size is not None:
            headers.append((b"content-length", b"%d" % size))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while scope["method"] == "GET" and (chunk := await asyncio.to_thread(opened.read, CHUNK)):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


def _open(file: PageFile, coding: str) -> tuple[IO[bytes], int | None]:
    """Returns the content and its size, which isn't known if it has to be decompressed."""
    if coding in file.stored:
        opened = file.stored[coding].open("rb")
        return opened, os.fstat(opened.fileno()).st_size
    return gzip.open(file.stored["gzip"]), None  # type: ignore[return-value]
