"""TLS in front of the stack, as Cloud Run's front end provides it, and other sites.

Browsers and MLflow treat 127.0.0.1 and localhost differently from every other name. Under names
that only the test's browser resolves, both behave as on Google Cloud.
"""

import asyncio
import datetime
import ssl
import threading
from contextlib import closing, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_BLANK = b"<!doctype html><meta charset=utf-8><title>A page</title>"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
)


class Front:
    """Listens on 127.0.0.1 until it is closed, in a separate thread."""

    def __init__(self, folder: Path) -> None:
        self._certificate = _self_signed(folder / "certificate.pem")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def serve(self, backend: int) -> int:
        """Returns a port that terminates TLS and forwards to a local port."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", backend)
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))

        # As on Cloud Run. The server speaks h2c, so the bytes are forwarded unchanged.
        return self._listen(handle, self._tls("h2", "http/1.1"))

    def serve_blank_pages(self, *, tls: bool) -> int:
        """Returns the port of a site that responds to every path with an empty page."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer), suppress(asyncio.IncompleteReadError, OSError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_HEAD % len(_BLANK) + _BLANK)
                await writer.drain()

        return self._listen(handle, self._tls("http/1.1") if tls else None)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _tls(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        context.set_alpn_protocols(list(protocols))
        return context

    def _listen(self, handle: object, tls: ssl.SSLContext | None) -> int:
        starting = asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)  # type: ignore[arg-type]
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        port: int = server.sockets[0].getsockname()[1]
        return port


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer), suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()


def _self_signed(path: Path) -> Path:
    """Write a key and a self-signed certificate: the browser is told to accept any."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=1),
    )
    certificate = builder.sign(key, SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    return path
