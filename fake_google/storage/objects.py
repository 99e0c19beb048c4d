"""Objects on disk: an SQLite index of their metadata, and files with their bytes.

Names are only keys of the index, so `a` and `a/b` can both exist, and `..` has no meaning. An
object's bytes are in one or more files: completing an upload of many parts, or composing objects,
moves no data.

A bucket with versioning keeps replaced and deleted objects as noncurrent versions; a bucket with
soft delete keeps permanently deleted objects. Nothing here expires.
https://cloud.google.com/storage/docs/object-versioning, https://cloud.google.com/storage/docs/soft-delete
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google_crc32c

from fake_google.endpoints import MEBIBYTE

# Resumable uploads advance in multiples of this.
QUANTUM = 256 * 1024


def crc32c() -> Any:
    return google_crc32c.Checksum()  # type: ignore[no-untyped-call]


def now(*, after: float = 0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() + after))


class Upload:
    """Writes received bytes to a file, and computes their checksums."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / uuid.uuid4().hex
        self._file = self.path.open("xb", buffering=0)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = crc32c()
        self.size = 0

    async def receive(self, body: AsyncIterable[bytes]) -> None:
        """Receives a body as a stream. If it is interrupted, whole quanta are kept."""
        block = bytearray()
        writing: asyncio.Task[None] | None = None

        async def flush(size: int) -> None:
            # Write and hash one block while the next one arrives.
            nonlocal writing
            if writing:
                await writing
            writing = asyncio.create_task(asyncio.to_thread(self._write, bytes(block[:size])))
            del block[:size]

        try:
            async for chunk in body:
                block += chunk
                if len(block) >= MEBIBYTE:
                    await flush(len(block) // QUANTUM * QUANTUM)
        except BaseException:
            await flush(len(block) // QUANTUM * QUANTUM)
            raise
        else:
            await flush(len(block))
        finally:
            if writing:
                await writing

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._md5.update(data)
        self._crc32c.update(data)
        self.size += len(data)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def hashes(self) -> dict[str, str]:
        return {
            "md5Hash": base64.b64encode(self.md5).decode(),
            "crc32c": base64.b64encode(self._crc32c.digest()).decode(),
        }

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Object:
    # As the JSON API returns them: https://cloud.google.com/storage/docs/json_api/v1/objects
    attributes: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        return int(self.attributes["size"])

    @property
    def generation(self) -> int:
        return int(self.attributes["generation"])

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """Yields the bytes from `start` to `end`, without `end`."""
        for path in self.files:
            length = path.stat().st_size
            if start < length and end > 0:
                with path.open("rb", buffering=0) as file:
                    file.seek(start)
                    left = min(end, length) - start
                    while left > 0 and (
                        data := await asyncio.to_thread(file.read, min(left, MEBIBYTE))
                    ):
                        left -= len(data)
                        yield data
            start, end = max(start - length, 0), end - length


class Store:
    def __init__(self, root: Path) -> None:
        self.files = root / "files"
        self.files.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._index = sqlite3.connect(
            root / "index.db", isolation_level=None, check_same_thread=False
        )
        self._index.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = NORMAL;
            CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, attributes TEXT NOT NULL);
            CREATE TABLE IF NOT EXISTS objects (
                bucket TEXT NOT NULL, name TEXT NOT NULL,
                attributes TEXT NOT NULL, files TEXT NOT NULL,
                PRIMARY KEY (bucket, name)
            ) WITHOUT ROWID;
            CREATE TABLE IF NOT EXISTS versions (
                bucket TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL,
                deleted INTEGER NOT NULL, attributes TEXT NOT NULL, files TEXT NOT NULL,
                PRIMARY KEY (bucket, name, generation)
            ) WITHOUT ROWID;
            """
        )
        # Uploads don't survive the process that receives them.
        kept = {
            name
            for (names,) in self._index.execute(
                "SELECT files FROM objects UNION ALL SELECT files FROM versions"
            )
            for name in json.loads(names)
        }
        for path in self.files.iterdir():
            if path.name not in kept:
                path.unlink()

    def close(self) -> None:
        self._index.close()

    def upload(self) -> Upload:
        return Upload(self.files)

    def create_bucket(self, name: str, attributes: dict[str, Any]) -> None:
        """Creates a bucket, or updates an existing one's attributes."""
        existing = self.bucket(name) or {"timeCreated": now()}
        text = json.dumps({**attributes, "timeCreated": existing["timeCreated"]})
        self._index.execute("REPLACE INTO buckets VALUES (?, ?)", (name, text))

    def delete_bucket(self, name: str) -> None:
        for deleted in (False, True):
            for found in list(self.versions(name, deleted=deleted)):
                self._remove_files(found)
        self._index.execute("DELETE FROM versions WHERE bucket = ?", (name,))
        self._index.execute("DELETE FROM buckets WHERE name = ?", (name,))

    def bucket(self, name: str) -> dict[str, Any] | None:
        row = self._index.execute(
            "SELECT attributes FROM buckets WHERE name = ?", (name,)
        ).fetchone()
        return dict(json.loads(row[0])) if row else None

    def get(self, bucket: str, name: str) -> Object | None:
        row = self._index.execute(
            "SELECT attributes, files FROM objects WHERE bucket = ? AND name = ?", (bucket, name)
        ).fetchone()
        return self._object(*row) if row else None

    def below(self, bucket: str, *, after: str, prefix: str) -> Iterator[Object]:
        """Yields objects with this prefix after `after`, ordered by their names' UTF-8 bytes."""
        rows = self._index.execute(
            "SELECT attributes, files FROM objects WHERE bucket = ? AND name > ? AND name >= ?"
            " ORDER BY name",
            (bucket, after, prefix),
        )
        for row in rows:
            found = self._object(*row)
            if not found.attributes["name"].startswith(prefix):
                return
            yield found

    def versions(self, bucket: str, *, deleted: bool, prefix: str = "") -> Iterator[Object]:
        """Yields noncurrent versions or soft-deleted objects, by name and then oldest first."""
        rows = self._index.execute(
            "SELECT attributes, files FROM versions WHERE bucket = ? AND deleted = ?"
            " ORDER BY name, generation",
            (bucket, deleted),
        )
        for found in (self._object(*row) for row in rows):
            if found.attributes["name"].startswith(prefix):
                yield found

    def version(
        self, bucket: str, name: str, generation: int, *, deleted: bool = False
    ) -> Object | None:
        """Returns the version with this generation, which may be the live object."""
        live = self.get(bucket, name)
        if live is not None and live.generation == generation and not deleted:
            return live
        row = self._index.execute(
            "SELECT attributes, files FROM versions"
            " WHERE bucket = ? AND name = ? AND generation = ? AND deleted = ?",
            (bucket, name, generation, deleted),
        ).fetchone()
        return self._object(*row) if row else None

    def put(self, attributes: dict[str, Any], files: Sequence[Path]) -> Object:
        """Makes an object visible in one step, replacing an object of the same name."""
        bucket, name = attributes["bucket"], attributes["name"]
        replaced = self.get(bucket, name)
        generation = max(time.time_ns() // 1000, replaced.generation + 1 if replaced else 0)
        created = {"timeCreated": now(), "timeStorageClassUpdated": now()}
        attributes = {
            "contentType": "application/octet-stream",
            "storageClass": "STANDARD",
            **attributes,
            "id": f"{bucket}/{name}/{generation}",
            "generation": str(generation),
            "metageneration": "1",
            "etag": base64.b64encode(generation.to_bytes(8, "big")).decode(),
            "size": str(sum(path.stat().st_size for path in files)),
            "updated": now(),
            **created,
        }
        self._save(attributes, files)
        if replaced is not None:
            self._retire(replaced)
        return Object(attributes, tuple(files))

    def patch(self, found: Object, changes: dict[str, Any]) -> Object:
        metageneration = str(int(found.attributes["metageneration"]) + 1)
        merged = {**found.attributes, **changes, "updated": now(), "metageneration": metageneration}
        attributes = {key: value for key, value in merged.items() if value is not None}
        self._save(attributes, found.files)
        return Object(attributes, found.files)

    def delete(self, found: Object, *, for_good: bool = False) -> None:
        """Deletes the live object, or a noncurrent version, which is always permanent."""
        key = (found.attributes["bucket"], found.attributes["name"])
        generation = "CAST(json_extract(attributes, '$.generation') AS INTEGER) = ?"
        live = self._index.execute(
            f"DELETE FROM objects WHERE bucket = ? AND name = ? AND {generation}",  # noqa: S608
            (*key, found.generation),
        ).rowcount
        self._retire(found, for_good=for_good or not live)

    def _retire(self, found: Object, *, for_good: bool = False) -> None:
        key = (found.attributes["bucket"], found.attributes["name"], found.generation)
        bucket = self.bucket(key[0]) or {}
        policy = bucket.get("softDeletePolicy", {})
        seconds = int(policy.get("retentionDurationSeconds", 0))
        self._index.execute(
            "DELETE FROM versions WHERE bucket = ? AND name = ? AND generation = ?", key
        )
        if bucket.get("versioning", {}).get("enabled") and not for_good:
            deleted, dates = False, {"timeDeleted": now()}
        elif seconds:
            deleted = True
            dates = {"softDeleteTime": now(), "hardDeleteTime": now(after=seconds)}
        else:
            self._remove_files(found)
            return
        attributes = json.dumps({**found.attributes, **dates})
        names = json.dumps([path.name for path in found.files])
        self._index.execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)", (*key, deleted, attributes, names)
        )

    def link(self, sources: Sequence[Object]) -> list[Path]:
        """Links several objects' files under new names, so that the sources can be deleted."""
        links = []
        for path in (path for source in sources for path in source.files):
            links.append(self.files / uuid.uuid4().hex)
            os.link(path, links[-1])
        return links

    def _save(self, attributes: dict[str, Any], files: Sequence[Path]) -> None:
        row = (attributes["bucket"], attributes["name"], json.dumps(attributes))
        names = json.dumps([path.name for path in files])
        self._index.execute("REPLACE INTO objects VALUES (?, ?, ?, ?)", (*row, names))

    def _object(self, attributes: str, files: str) -> Object:
        return Object(
            json.loads(attributes), tuple(self.files / name for name in json.loads(files))
        )

    def _remove_files(self, gone: Object) -> None:
        for path in gone.files:
            path.unlink(missing_ok=True)


def usage(root: Path, bucket: str) -> tuple[int, int]:
    """Returns the number of objects and bytes in a bucket, while another process serves it."""
    index = sqlite3.connect(f"file:{quote(str(root / 'index.db'))}?mode=ro", uri=True)
    with contextlib.closing(index):
        count, size = index.execute(
            "SELECT count(*), coalesce(sum(json_extract(attributes, '$.size')), 0)"
            " FROM objects WHERE bucket = ?",
            (bucket,),
        ).fetchone()
    return count, size


def checksum(files: Sequence[Path]) -> str:
    """Returns the CRC32C of the joined files, as base64 of its big-endian bytes, like the API."""
    crc = crc32c()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while data := file.read(MEBIBYTE):
                crc.update(data)
    return base64.b64encode(crc.digest()).decode()
