"""A server that redirects as its query says and records the headers of each request."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Recorder:
    """`seen` has the path and the headers of each request, in order."""

    port: int = 0
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)


def _handler(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urllib.parse.urlsplit(self.path)
            query = urllib.parse.parse_qs(address.query)
            recorder.seen.append((address.path, dict(self.headers.items())))
            if "to" in query:
                self.send_response(int(query.get("status", ["307"])[0]))
                self.send_header("Location", query["to"][0])
            else:
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
