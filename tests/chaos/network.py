"""The network between the server and one of Google's APIs, which can be made to misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_CHUNK = 1 << 16


class Network:
    """A TCP proxy to one address. It passes everything on until a fault is switched on."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream if "//" in upstream else f"//{upstream}")
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._status = 0
        self._delay = 0.0
        self.met = 0
        """The number of connections and requests that a fault has affected."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.address = f"http://{self.host}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._flows.set()
        self._listener.close()
        self._reset()

    # Faults

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Reset open connections in the middle of a transfer, and new ones at once."""
        self._is_cut = True
        self._reset()
        try:
            yield
        finally:
            self._is_cut = False

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Hold back all data without closing the connections."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Delay every piece of a request by so many seconds."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0

    @contextmanager
    def answering(self, status: int) -> Iterator[None]:
        """Respond to every request with this status, as an overloaded API does."""
        self._status = status
        self._reset()
        try:
            yield
        finally:
            self._status = 0

    def _reset(self) -> None:
        with self._lock:
            for connection in self._open:
                self.met += 1
                # Wakes the threads that wait for the socket, which then close it.
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    # What passes

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._is_cut:
                self.met += 1
                return
            if self._status:
                self._refuse(client, self._status)
                return
            with socket.create_connection(self._upstream) as server, self._known(client, server):
                back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
                back.start()
                self._pass(client, server)
                back.join()

    def _refuse(self, client: socket.socket, status: int) -> None:
        """Respond at once, and still read the request."""
        client.settimeout(5)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (received := client.recv(_CHUNK)):
                return
            head += received
        self.met += 1
        client.sendall(
            f"HTTP/1.1 {status} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        client.shutdown(socket.SHUT_WR)
        until = time.monotonic() + 5
        while client.recv(_CHUNK) and time.monotonic() < until:
            pass

    @contextmanager
    def _known(self, *connections: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.update(connections)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(connections)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if not self._flows.is_set():
                    self.met += 1
                    self._flows.wait()
                if self._delay:
                    self.met += 1
                    time.sleep(self._delay)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
