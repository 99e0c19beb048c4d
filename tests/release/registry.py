"""A container registry on this computer: what pushing and pulling an image needs of its API.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from uuid import uuid4

BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([0-9a-f]*)(?:\?digest=(.+))?")
MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)")


class Registry:
    """The stored blobs by digest, and manifests, with their media type, by image and reference."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        registry = self.registry
        if self.path == "/v2/":
            self._answer(200)
        elif (found := BLOB.fullmatch(self.path)) and found[2] in registry.blobs:
            self._answer(200, registry.blobs[found[2]], Docker_Content_Digest=found[2])
        elif (found := MANIFEST.fullmatch(self.path)) and found.groups() in registry.manifests:
            kind, content = registry.manifests[found[1], found[2]]
            self._answer(200, content, Content_Type=kind, Docker_Content_Digest=digest_of(content))
        else:
            self._answer(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        upload = uuid4().hex
        self.registry.uploads[upload] = b""
        self._read()
        path = self.path.partition("?")[0].rstrip("/")
        self._answer(202, Location=f"{path}/{upload}")

    def do_PATCH(self) -> None:
        found = UPLOAD.fullmatch(self.path)
        assert found
        self.registry.uploads[found[2]] += self._read()
        self._answer(202, Location=self.path)

    def do_PUT(self) -> None:
        content = self._read()
        if found := MANIFEST.fullmatch(self.path):
            stored = self.headers["Content-Type"], content
            for reference in (found[2], digest_of(content)):
                self.registry.manifests[found[1], reference] = stored
        else:
            found = UPLOAD.fullmatch(self.path)
            assert found
            digest = found[3].replace("%3A", ":")
            content = self.registry.uploads.pop(found[2]) + content
            if digest_of(content) != digest:
                self._answer(400)
                return
            self.registry.blobs[digest] = content
        self._answer(201, Location=self.path, Docker_Content_Digest=digest_of(content))

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = bytearray()
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(content)


@contextmanager
def serve() -> Iterator[tuple[str, Registry]]:
    """Yield the registry's host and port, and what it has stored."""
    registry = Registry()
    handler = type("Handler", (_Handler,), {"registry": registry})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}", registry
        finally:
            server.shutdown()
