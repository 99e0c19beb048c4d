"""Large files, and curl, which transfers them; content is hashed as it arrives."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import google_crc32c

from bench.ours import Stack
from bench.process import BenchError, Server, require

MIB, GIB = 1 << 20, 1 << 30
NOTHING = "AAAAAA=="
"""The CRC32C of no bytes."""
HTTP1, H2C = "--http1.1", "--http2-prior-knowledge"
OUT_OF_TIME = 28
"""curl's exit code after `--max-time`."""

_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class Content:
    size: int
    crc32c: str


@dataclass(frozen=True)
class File:
    path: Path
    content: Content


@dataclass(frozen=True)
class Endpoint:
    """The address and the protocol for uploading and downloading a file."""

    address: str
    authorization: str
    protocol: str = HTTP1


@dataclass(frozen=True)
class Done:
    """A transfer as curl reported it: exit code, seconds, content and messages."""

    code: int
    seconds: float
    content: Content
    said: str


def check_curl() -> None:
    curl = require("curl", package="curl", formula="curl")
    if "HTTP2" not in subprocess.check_output([curl, "--version"], text=True):
        raise BenchError("curl with HTTP/2 is needed: `apt install curl` or `brew install curl`.")


def make(path: Path, size: int) -> File:
    """Make a file whose MiB all differ, so that a misplaced one is noticed."""
    crc32c, noise = 0, os.urandom(MIB - 8)
    with path.open("wb") as file:
        for number in range(size // MIB):
            block = number.to_bytes(8, "big") + noise
            file.write(block)
            crc32c = google_crc32c.extend(crc32c, block)
    return File(path, Content(size, _text(crc32c)))


def read(stream: IO[bytes]) -> Content:
    size = crc32c = 0
    while block := stream.read(MIB):
        size += len(block)
        crc32c = google_crc32c.extend(crc32c, block)
    return Content(size, _text(crc32c))


def _text(crc32c: int) -> str:
    """Returns the checksum in the bucket's format."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode()


def straight(stack: Stack, name: str) -> Endpoint:
    """Returns an object in the bucket's root, for the XML API and with the server's credentials."""
    email = stack.outputs["service_account_email"]
    return Endpoint(
        address=f"{stack.cloud.project.storage_endpoint}/{stack.bucket}/{name}",
        authorization=f"Bearer {stack.cloud.project.identities.token(email).value}",
    )


def through(server: Server, name: str, *, protocol: str) -> Endpoint:
    """Returns the same object's address on our server."""
    assert server.authorization
    return Endpoint(f"{server.address}{_ARTIFACTS}/{name}", server.authorization, protocol)


def stored(stack: Stack) -> dict[str, Content]:
    """Returns all objects in the bucket."""
    found = stack.cloud.project.store.below(stack.bucket, after="", prefix="")
    return {
        one.attributes["name"]: Content(one.size, one.attributes["crc32c"])
        # A list, because the objects' own server uses the same connection meanwhile.
        for one in list(found)
    }


def delete(stack: Stack, name: str) -> None:
    found = stack.cloud.project.store.get(stack.bucket, name)
    assert found
    stack.cloud.project.store.delete(found)


def curl(endpoint: Endpoint, *, upload: File | None = None, seconds: float = 300) -> Done:
    """PUT a file or, without one, GET the object, within so many seconds."""
    command = [
        *("curl", "--silent", "--show-error", "--fail", endpoint.protocol),
        *("--max-time", str(seconds), "--header", f"Authorization: {endpoint.authorization}"),
        *(("--upload-file", str(upload.path)) if upload else ()),
        # Without an `Expect` header, curl doesn't wait for permission to send.
        *("--header", "Expect:", "--write-out", "%{stderr}%{time_total}", endpoint.address),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        content = read(running.stdout)
        *said, last = running.stderr.read().decode().splitlines()
    return Done(running.returncode, float(last), content, " ".join(said))


def h2load(endpoint: Endpoint, upload: File) -> float:
    """PUT a file over h2c. Returns the seconds."""
    command = [
        *("h2load", "--requests=1", "--clients=1", "--max-concurrent-streams=1"),
        *("--data", str(upload.path), "--header", ":method: PUT"),
        *("--header", f"Authorization: {endpoint.authorization}", endpoint.address),
    ]
    printed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    took = re.search(r"^finished in ([\d.]+)(ms|s)", printed, re.MULTILINE)
    if took is None or "1 succeeded" not in printed:
        raise BenchError(f"h2load failed: {printed[-500:]}")
    return float(took[1]) / (1000 if took[2] == "ms" else 1)
