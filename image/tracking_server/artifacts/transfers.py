"""Artifacts that pass through the server, as streams between the client and the bucket.

MLflow's own handlers copy what they send to a temporary file first, which on Cloud Run is memory
(https://cloud.google.com/run/docs/container-contract#filesystem), and hand every small chunk of
an upload through two middleware layers, which over HTTP/2 costs more than the transfer itself.
"""

import asyncio
import json
import logging
import posixpath
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING

import anyio.to_thread
from google.auth.exceptions import GoogleAuthError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE
from mlflow.utils.uri import validate_path_is_safe
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.artifacts import streamed_response
from tracking_server.errors import BucketError
from tracking_server.mlflow import internals

if TYPE_CHECKING:
    from google.cloud import storage

    from tracking_server.artifacts.bucket import Bucket
    from tracking_server.artifacts.repository import KeylessGCSArtifactRepository
    from tracking_server.artifacts.uploads import Memory

PREFIXES = (
    "/api/2.0/mlflow-artifacts/artifacts/",
    "/ajax-api/2.0/mlflow-artifacts/artifacts/",
)

WAITING = 32 * 1024 * 1024
"""Bytes of all downloads together that wait for clients who don't take them."""

PIECES_WAITING = 6
"""Of each download: granian queues four, one is on its way and one comes from here."""

LONGEST_NAME = 1024
"""Bytes of an object's name: https://cloud.google.com/storage/docs/objects#naming"""

SMALLEST_PIECE, LARGEST_PIECE = 32 * 1024, 256 * 1024
"""Bytes sent at a time: the larger, the less work, and the more that wait."""

FRAME = 16 * 1024
"""Bytes of a body's piece over HTTP/2, at most and mostly."""

FRAMES_AHEAD = 31
"""Frames asked for before they are needed. Asked for one by one, each wakes three threads in turn,
which takes four times as long as everything else. granian answers in the order that it was asked:
its embedded server has one thread, which begins with each receive in turn, and they wait for the
body at a tokio Mutex, which is fair. tests/server/test_transfers.py sends enough to see it."""

GATHERING = 0.001
"""Seconds that frames gather in, instead of waking the event loop one by one."""

log = logging.getLogger(__name__)


class Stream(StreamingResponse):
    """Lets go of what it sends as soon as its client is gone, and not when it is collected."""

    def __init__(self, content: AsyncGenerator[bytes], status: int = 200) -> None:
        super().__init__(content, status)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)


class ProxiedTransfers:
    """Answers GET and PUT of an artifact below `root`; everything else goes on to MLflow.

    Where one of MLflow's handlers there sends an object, its answer is filled here.
    """

    def __init__(self, app: ASGIApp, root: str) -> None:
        self.app = app
        self._root = root
        self._downloads = 0

    # Made when first needed: they ask the metadata server, which a boot needn't wait for.

    @cached_property
    def _repository(self) -> "KeylessGCSArtifactRepository":
        from tracking_server.artifacts.repository import KeylessGCSArtifactRepository

        return KeylessGCSArtifactRepository(self._root)

    @cached_property
    def _bucket(self) -> "Bucket":
        from tracking_server.artifacts.bucket import Bucket
        from tracking_server.artifacts.repository import credentials

        return Bucket(credentials())

    @cached_property
    def _memory(self) -> "Memory":
        from tracking_server.artifacts.uploads import Memory

        return Memory()

    async def close(self) -> None:
        """End the connections to the bucket, if there ever were any."""
        if "_bucket" in self.__dict__:
            await self._bucket.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _artifact_path(scope)
        if not path:
            await self._pass_on(scope, receive, send)
            return
        try:
            path = validate_path_is_safe(path)
            if scope["method"] == "GET":
                answer = await self._download(path)
            else:
                answer = await self._upload(path, scope, receive)
        except (MlflowException, BucketError) as error:
            answer = _refusal(error)
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["X-Frame-Options"] = "SAMEORIGIN"
        await answer(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = streamed_response.expect()
        start: Message = {}

        async def filled(message: Message) -> None:
            nonlocal start
            if given.blob is None or scope["method"] == "HEAD":
                await send(message)
            elif message["type"] == "http.response.start":
                start = message
            else:
                await (await self._fill(start, given.blob, given.span))(scope, receive, send)

        await self.app(scope, receive, filled)

    async def _fill(
        self, start: Message, blob: "storage.Blob", span: tuple[int, int] | None
    ) -> Response:
        try:
            opened = await self._bucket.open(blob.public_url, generation=blob.generation, span=span)
        except BucketError as error:
            return _refusal(error)
        answer = Stream(self._pieces(opened.chunks), start["status"])
        answer.raw_headers = start["headers"]
        return answer

    async def _opened_repository(self) -> "KeylessGCSArtifactRepository":
        try:
            return await anyio.to_thread.run_sync(lambda: self._repository)
        except GoogleAuthError as error:
            from tracking_server.artifacts.bucket import no_token

            raise no_token(error) from error

    async def _download(self, path: str) -> Response:
        repository = await self._opened_repository()
        try:
            opened = await self._bucket.open(repository.blob(path).public_url)
        except BucketError as error:
            if error.status != 404:
                raise
            absence = await anyio.to_thread.run_sync(repository.absence, path)
            if absence.get_http_status_code() == 400:
                # A directory, in the words of MLflow's other half.
                return JSONResponse({"detail": absence.message}, 400)
            raise absence from error
        headers = {
            "Content-Type": internals.mime_type(path),
            "Content-Length": str(opened.size),
            "Content-Disposition": internals.content_disposition(posixpath.basename(path)),
        }
        if opened.encoding:
            headers["Content-Encoding"] = opened.encoding
        answer = Stream(self._pieces(opened.chunks))
        answer.headers.update(headers)
        return answer

    async def _pieces(self, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        self._downloads += 1
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    size = WAITING // (PIECES_WAITING * self._downloads)
                    size = min(max(size, SMALLEST_PIECE), LARGEST_PIECE)
                    for start in range(0, len(chunk), size):
                        yield chunk[start : start + size]
        finally:
            self._downloads -= 1

    async def _upload(self, path: str, scope: Scope, receive: Receive) -> Response:
        from tracking_server.artifacts.uploads import Upload

        if path.endswith("/"):
            reason = "Artifact path must include a filename (cannot end with '/')."
            return JSONResponse({"detail": reason}, 400)
        repository = await self._opened_repository()
        blob = repository.blob(path)
        if len(blob.name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
            reason = (
                f"The artifact's path has more than {LONGEST_NAME} bytes, with its experiment's."
            )
            return JSONResponse({"detail": reason}, 400)
        upload = Upload(
            blob,
            content_type=internals.mime_type(path),
            bucket=self._bucket,
            memory=self._memory,
        )
        await upload.write(_body(receive, ahead=_frames_ahead(scope)))
        return Response()


def _refusal(error: MlflowException | BucketError) -> Response:
    if isinstance(error, BucketError):
        log.warning("%s", error)
        code = TEMPORARILY_UNAVAILABLE if error.passing else INTERNAL_ERROR
        error = MlflowException(str(error), code)
    return JSONResponse(
        status_code=error.get_http_status_code(), content=json.loads(error.serialize_as_json())
    )


def _artifact_path(scope: Scope) -> str:
    """The path below the bucket's folder, empty for any other request."""
    if scope["type"] == "http" and scope["method"] in ("GET", "PUT"):
        for prefix in PREFIXES:
            if scope["path"].startswith(prefix):
                return str(scope["path"]).removeprefix(prefix)
    return ""


def _frames_ahead(scope: Scope) -> int:
    """How many of the body's frames to ask for before the first one is there."""
    if scope["http_version"] != "2":
        return 1
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return 1 + min(int(length) // FRAME, FRAMES_AHEAD)


async def _body(receive: Receive, *, ahead: int) -> AsyncIterator[bytes]:
    asked = deque(asyncio.ensure_future(receive()) for _ in range(ahead))
    try:
        more = True
        while more:
            if len(asked) > 1 and not asked[0].done():
                await asyncio.sleep(GATHERING)
            message = await asked.popleft()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            yield message.get("body", b"")
            if more := message.get("more_body", False):
                asked.append(asyncio.ensure_future(receive()))
    finally:
        for unneeded in asked:
            unneeded.cancel()
