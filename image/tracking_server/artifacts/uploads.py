"""Uploads to the bucket with a limit on the memory of each upload and of all of them together.

A chunk stays in memory until the bucket has acknowledged it, so that it can be sent again;
meanwhile the next chunk is filled. The client has to wait with more data.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator
from functools import partial

import anyio.to_thread
import google_crc32c
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import storage

from tracking_server.artifacts.bucket import BROKEN, PATIENCE, Bucket, BucketResponse, Tries
from tracking_server.errors import BucketError

BLOCK = 256 * 1024
"""Bytes of a unit of memory. A chunk's size is a multiple of it, except for the last one:
https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload"""

CHUNK = 48
"""The most blocks of a chunk. Google recommends at least 8 MiB. Nothing is sent while the bucket
acknowledges a chunk, which takes a while."""

OWN = 2
"""Blocks that every upload may hold: one is enough to continue, with two it needn't wait."""

SHARED = 128
"""Blocks that all uploads together may hold in addition."""

_DONE, _INCOMPLETE, _DELETED = (200, 201), 308, (204, 499)
_PERSISTED = re.compile(r"bytes=0-(\d+)")


class Memory:
    """The blocks of all uploads. They are reused, because freeing them fragments the memory."""

    def __init__(self) -> None:
        self.shared = SHARED
        self._used: list[bytearray] = []

    def take(self, holding: int) -> bytearray | None:
        """Returns a block for an upload that holds so many blocks, or None.

        It doesn't wait, because a slow client or bucket may never return its blocks.
        """
        if holding >= OWN:
            if not self.shared:
                return None
            self.shared -= 1
        return self._used.pop() if self._used else bytearray(BLOCK)

    def give_back(self, holding: int, blocks: int) -> None:
        """Return so many of the blocks that an upload holds."""
        self.shared += max(holding - OWN, 0) - max(holding - blocks - OWN, 0)

    def reuse(self, blocks: list[bytearray]) -> None:
        """Keep blocks for reuse that certainly nothing reads any more."""
        self._used += blocks[: SHARED - len(self._used)]


class Chunk:
    """The bytes from `start` up to `end`, which are sent in one request."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.blocks: list[bytearray] = []

    @property
    def full(self) -> bool:
        return self.end - self.start == len(self.blocks) * BLOCK

    def fill(self, data: memoryview) -> memoryview:
        """Copy as much as fits into the last block. Returns the rest."""
        offset = (self.end - self.start) % BLOCK
        size = min(len(data), BLOCK - offset)
        self.blocks[-1][offset : offset + size] = data[:size]
        self.end += size
        return data[size:]

    def after(self, position: int) -> list[memoryview]:
        """Returns the data from a position on."""
        views = [memoryview(block) for block in self.blocks]
        if rest := (self.end - self.start) % BLOCK:
            views[-1] = views[-1][:rest]
        index, offset = divmod(position - self.start, BLOCK)
        return [view[offset:] for view in views[index : index + 1]] + views[index + 1 :]


class ObjectUpload:
    """An upload of one object, which becomes visible once it is complete.

    An object that fits in one chunk takes one request; others use a resumable upload session:
    https://cloud.google.com/storage/docs/resumable-uploads
    """

    def __init__(
        self, blob: storage.Blob, *, content_type: str, bucket: Bucket, memory: Memory
    ) -> None:
        self._blob, self._content_type = blob, content_type
        self._bucket, self._memory = bucket, memory
        self._holding = 0
        self._crc32c = 0
        self._session = ""
        self._sending: asyncio.Task[None] | None = None

    async def write(self, pieces: AsyncIterator[bytes]) -> None:
        """Upload all pieces, or nothing.

        Raises:
            BucketError: if the bucket refuses them or doesn't respond.
        """
        chunk = Chunk(0)
        try:
            async for piece in pieces:
                self._crc32c = google_crc32c.extend(self._crc32c, piece)
                data = memoryview(piece)
                while data:
                    if chunk.full:
                        chunk = await self._widened(chunk)
                    data = chunk.fill(data)
            if self._sending:
                await self._sending
                await self._send(chunk, last=True)
            else:
                await self._send_whole(chunk)
        except BaseException:
            await self._abandon()
            raise

    async def _widened(self, chunk: Chunk) -> Chunk:
        """Returns the chunk with another block, or else the next chunk."""
        block = None
        if len(chunk.blocks) < CHUNK:
            block = self._memory.take(self._holding)
        while not block:
            if self._sending:
                await self._sending
            if chunk.blocks:
                self._sending = asyncio.create_task(self._send(chunk))
                chunk = Chunk(chunk.end)
            block = self._memory.take(self._holding)
        self._holding += 1
        chunk.blocks.append(block)
        return chunk

    def _release(self, chunk: Chunk) -> None:
        self._memory.give_back(self._holding, len(chunk.blocks))
        self._memory.reuse(chunk.blocks)
        self._holding -= len(chunk.blocks)

    async def _send_whole(self, chunk: Chunk) -> None:
        put = partial(
            self._bucket.try_once,
            "PUT",
            self._blob.public_url,
            headers={"Content-Type": self._content_type, **self._checksum()},
            body=chunk.after(0),
            accept=_DONE,
        )
        await Tries().until_answered(put)
        self._release(chunk)

    async def _send(self, chunk: Chunk, *, last: bool = False) -> None:
        if not self._session:
            await anyio.to_thread.run_sync(self._start)
        position = farthest = chunk.start
        tries = Tries()
        while True:
            try:
                answer = await self._put(chunk, position, last=last)
            except (BucketError, *BROKEN) as error:
                await tries.again(error)
                position = chunk.end  # the next request only asks how much has arrived
                continue
            if answer.status in _DONE:
                break
            position = _persisted(answer)
            if position == chunk.end and not last:
                break
            if not chunk.start <= position <= chunk.end:
                raise BucketError(f"The bucket has {position} bytes of {chunk.end}", status=500)
            if position > farthest:
                farthest, tries = position, Tries()
            else:
                await tries.again(BucketError(f"The bucket accepts nothing beyond {position}"))
        self._release(chunk)

    async def _put(self, chunk: Chunk, position: int, *, last: bool) -> BucketResponse:
        span = f"{position}-{chunk.end - 1}" if position < chunk.end else "*"
        headers = {"Content-Range": f"bytes {span}/{chunk.end if last else '*'}"}
        return await self._bucket.try_once(
            "PUT",
            self._session,
            headers=headers | (self._checksum() if last else {}),
            body=chunk.after(position),
            accept=(*_DONE, _INCOMPLETE),
        )

    def _start(self) -> None:
        try:
            self._session = self._blob.create_resumable_upload_session(
                content_type=self._content_type, timeout=PATIENCE, checksum=None
            )
        except GoogleAPICallError as error:
            raise BucketError(str(error), status=error.code or 503) from error

    def _checksum(self) -> dict[str, str]:
        """Returns the header that makes the bucket refuse data with another checksum."""
        digest = base64.b64encode(self._crc32c.to_bytes(4, "big")).decode()
        return {"X-Goog-Hash": f"crc32c={digest}"}

    async def _abandon(self) -> None:
        """Free the memory and delete the upload session."""
        if self._sending:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        # Don't reuse the blocks: a connection that is being closed may still read them.
        self._memory.give_back(self._holding, self._holding)
        if self._session:
            # If this fails too, the session expires within a week.
            with contextlib.suppress(BucketError, *BROKEN):
                await self._bucket.try_once("DELETE", self._session, accept=_DELETED)


def _persisted(answer: BucketResponse) -> int:
    found = _PERSISTED.fullmatch(answer.headers.get("Range", ""))
    return int(found[1]) + 1 if found else 0
