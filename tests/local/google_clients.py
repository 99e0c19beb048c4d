"""Google's client libraries, and the server's own client, against the stand-ins.

Run with the server's interpreter.
"""

from __future__ import annotations

import io
import os

import google.auth
from google.api_core import exceptions
from google.cloud import storage
from tracking_server.boot.secret_manager import SecretManager

credentials, project = google.auth.default()
client = storage.Client(project=project, credentials=credentials)
bucket = client.bucket(os.environ["BUCKET"])
CHUNK = 256 * 1024
DATA = os.urandom(4 * CHUNK + 123)


def same(name: str, data: bytes, **options: int) -> None:
    assert bucket.blob(name, **options).download_as_bytes() == data, name


NAMES = [
    "client/a",
    "client/a/b",
    "client/with space#%25?q+plus/ü/深",
    "client/dir/1",
    "client/dir/2",
]
for name in NAMES:
    bucket.blob(name).upload_from_string(name.encode())
    same(name, name.encode())

bucket.blob("client/resumable", chunk_size=CHUNK).upload_from_file(io.BytesIO(DATA))
same("client/resumable", DATA)
same("client/resumable", DATA, chunk_size=CHUNK)
assert bucket.blob("client/resumable").download_as_bytes(start=10, end=20) == DATA[10:21]
with bucket.blob("client/streamed").open("wb", chunk_size=CHUNK) as stream:
    for start in range(0, len(DATA), 100_000):
        stream.write(DATA[start : start + 100_000])
same("client/streamed", DATA)
bucket.blob("client/empty").upload_from_string(b"")
same("client/empty", b"")
same("client/empty", b"", chunk_size=CHUNK)

for page_size in (1, 2, None):
    pages = client.list_blobs(bucket, prefix="client/", delimiter="/", page_size=page_size)
    listed = [blob.name for blob in pages]
    assert listed == ["client/a", "client/empty", "client/resumable", "client/streamed"], listed
    assert pages.prefixes == {"client/a/", "client/with space#%25?q+plus/", "client/dir/"}

bucket.blob("client/composed").compose([bucket.blob("client/a"), bucket.blob("client/resumable")])
same("client/composed", b"client/a" + DATA)
blob = bucket.blob("client/a")
blob.metadata = {"key": "value"}
blob.patch()
blob.reload()
assert blob.metadata == {"key": "value"}
blob.delete()
assert not blob.exists()

for refused, wanted in (
    (bucket.reload, exceptions.Forbidden),  # storage.objectUser does not hold storage.buckets.get
    (
        lambda: bucket.blob("client/empty").upload_from_string("x", if_generation_match=0),
        exceptions.PreconditionFailed,
    ),
    (lambda: bucket.blob("client/none").download_as_bytes(), exceptions.NotFound),
):
    try:
        refused()
    except wanted:
        continue
    raise AssertionError(wanted)

secrets = SecretManager(os.environ["SECRET_MANAGER_ENDPOINT"])
assert secrets.access(f"projects/{project}/secrets/client/versions/1") == b"a value"
