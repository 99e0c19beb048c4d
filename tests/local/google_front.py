"""A front that checks callers like Cloud Run and Identity-Aware Proxy, as far as a client needs it.

It also plays the metadata server and IAM Credentials, so it knows the tokens that it issued.
https://cloud.google.com/run/docs/authenticating/service-to-service,
https://cloud.google.com/iap/docs/authentication-howto
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ACCOUNT = "train@my-project.iam.gserviceaccount.com"
ACCESS_TOKEN = "ya29.of-the-account"
ABOUT = {
    "/computeMetadata/v1/project/project-id": "my-project",
    "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
}
DEFAULT = "/computeMetadata/v1/instance/service-accounts/"
SIGN = f"/v1/projects/-/serviceAccounts/{ACCOUNT}:signJwt"
# Hop-by-hop headers: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
OF_THE_CONNECTION = {"connection", "transfer-encoding", "content-length"}


@dataclass
class Front:
    """`header` is where the token must be, `upstream` the port of the server behind the front."""

    upstream: int
    header: str
    # Lifetimes of the tokens, in order, in seconds; the last one applies to all later tokens.
    lifetimes: tuple[int, ...] = (3600,)
    may_sign: bool = True
    port: int = 0
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    let_in: int = 0
    refused: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, claims: dict[str, Any]) -> str:
        parts = [{"alg": "RS256", "typ": "JWT"}, claims, {"number": len(self.tokens)}]
        token = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in parts
        )
        self.tokens[token] = claims
        return token

    def knows(self, header: str | None) -> bool:
        """Returns whether the token was issued here, for this address, and hasn't expired."""
        claims = self.tokens.get((header or "").removeprefix("Bearer "))
        audiences = {"X-Serverless-Authorization": self.address}
        wanted = audiences.get(self.header, f"{self.address}/*")
        return claims is not None and claims["aud"] == wanted and claims["exp"] > time.time()


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urllib.parse.urlsplit(self.path)
            if address.path == "/" and "Metadata-Flavor" in self.headers:
                return self.answer(200, "computeMetadata/")
            if address.path in ABOUT:
                return self.answer(200, ABOUT[address.path])
            if address.path.startswith(DEFAULT):
                _, _, what = address.path.removeprefix(DEFAULT).partition("/")
                return self.metadata(what, urllib.parse.parse_qs(address.query))
            if address.path == SIGN:
                return self.sign(json.loads(body))
            return self.forward(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

        def metadata(self, what: str, query: dict[str, list[str]]) -> None:
            if what == "identity":
                turn = min(len(front.tokens), len(front.lifetimes) - 1)
                expires = int(time.time()) + front.lifetimes[turn]
                claims = {"aud": query["audience"][0], "email": ACCOUNT, "exp": expires}
                return self.answer(200, front.token(claims))
            if what == "token":
                token = {"access_token": ACCESS_TOKEN, "expires_in": 3000, "token_type": "Bearer"}
                return self.answer(200, json.dumps(token), "application/json")
            described = {"email": ACCOUNT, "scopes": [], "aliases": ["default"]}
            return self.answer(200, json.dumps(described), "application/json")

        def sign(self, request: dict[str, str]) -> None:
            claims = json.loads(request["payload"])
            mine = self.headers["Authorization"] == f"Bearer {ACCESS_TOKEN}"
            if not front.may_sign or not mine or claims["exp"] > claims["iat"] + 3600:
                return self.answer(403, "Permission 'iam.serviceAccounts.signJwt' denied")
            signed = {"signedJwt": front.token(claims)}
            return self.answer(200, json.dumps(signed), "application/json")

        def forward(self, body: bytes) -> None:
            if not front.knows(self.headers.get(front.header)):
                front.refused += 1
                return self.answer(403, "Error: Forbidden")
            front.let_in += 1
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in OF_THE_CONNECTION | {front.header.lower()}
            }
            behind = http.client.HTTPConnection("127.0.0.1", front.upstream, timeout=60)
            try:
                behind.request(self.command, self.path, body, headers)
                answer = behind.getresponse()
                content = answer.read()
            finally:
                behind.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in OF_THE_CONNECTION:
                    self.send_header(name, value)
            return self.end(content)

        def answer(self, status: int, text: str, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Metadata-Flavor", "Google")
            self.end(text.encode())

        def end(self, content: bytes) -> None:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def front(upstream: int, header: str, **options: Any) -> Iterator[Front]:
    made = Front(upstream, header, **options)
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
