"""Streams artifacts that pass through the server between the client and the bucket.

MLflow's own handlers first copy a file to a temporary file, which on Cloud Run is memory
(https://cloud.google.com/run/docs/container-contract#filesystem). They also pass every small chunk
of an upload through two middleware layers, which over HTTP/2 takes longer than the transfer itself.
"""

import asyncio
import json
import logging
import posixpath
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING

import anyio.to_thread
from google.auth.exceptions import GoogleAuthError
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE
from mlflow.utils.uri import validate_path_is_safe
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracking_server.accounts.identity import CALLER
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
"""Bytes of all downloads together that wait for slow clients."""

PIECES_WAITING = 6
"""Pieces of each download that may wait: four in granian's queue, one being sent, one here."""

LONGEST_NAME = 1024
"""Bytes of an object's name: https://cloud.google.com/storage/docs/objects#naming"""

SMALLEST_PIECE, LARGEST_PIECE = 32 * 1024, 256 * 1024
"""Bytes sent at a time. Larger pieces take less work, but more of them wait in memory."""

FRAME = 16 * 1024
"""Bytes of a piece of a body over HTTP/2; most pieces have this size, none a larger one."""

FRAMES_AHEAD = 31
"""Frames requested ahead. One by one, each frame would wake three threads in turn, which takes four
times as long as everything else. granian delivers frames in the order of the `receive` calls: its
embedded server has one thread, which starts each call in turn, and the calls wait for the body at a
tokio Mutex, which is fair. tests/server/test_transfers.py sends enough data to verify it."""

GATHERING = 0.001
"""Seconds to wait for several frames, so that they don't wake the event loop one by one."""

log = logging.getLogger(__name__)


class Stream(StreamingResponse):
    """Closes its source as soon as the client is gone, without waiting for garbage collection."""

    def __init__(self, content: AsyncGenerator[bytes], status: int = 200) -> None:
        super().__init__(content, status)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)


class ProxiedTransfers:
    """Handles GET and PUT of artifacts below `root`, and passes everything else on to MLflow.

    If one of MLflow's handlers sends an object, this class fills in the response's body. With
    accounts, `may_transfer` tells whether an account may make a request, by its method and path.
    """

    def __init__(
        self,
        app: ASGIApp,
        root: str,
        *,
        may_transfer: Callable[[str, str, str], bool] | None = None,
    ) -> None:
        self.app = app
        self._root = root
        self._may_transfer = may_transfer
        self._downloads = 0

    # Created when first needed: they ask the metadata server, and the boot shouldn't wait for it.

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
        """Close the connections to the bucket, if any were made."""
        if "_bucket" in self.__dict__:
            await self._bucket.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _artifact_path(scope)
        if not path:
            await self._pass_on(scope, receive, send)
            return
        if not await self._is_allowed(scope):
            await PlainTextResponse("Permission denied", 403)(scope, receive, send)
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
        answer.headers["Vary"] = "Origin"
        await answer(scope, receive, send)

    async def _is_allowed(self, scope: Scope) -> bool:
        if self._may_transfer is None:
            return True
        caller = CALLER.get()
        return caller is not None and (
            caller.is_admin
            or await anyio.to_thread.run_sync(
                self._may_transfer, caller.username, scope["method"], scope["path"]
            )
        )

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
                # A directory: MLflow's FastAPI half responds with these words.
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
        from tracking_server.artifacts.uploads import ObjectUpload

        if path.endswith("/"):
            reason = "Artifact path must include a filename (cannot end with '/')."
            return JSONResponse({"detail": reason}, 400)
        repository = await self._opened_repository()
        blob = repository.blob(path)
        if len(blob.name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
            reason = (
                f"The artifact's path has more than {LONGEST_NAME} bytes with its experiment's."
            )
            return JSONResponse({"detail": reason}, 400)
        upload = ObjectUpload(
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
    """Returns the path of an artifact, or an empty string for any other request."""
    if scope["type"] == "http" and scope["method"] in ("GET", "PUT"):
        for prefix in PREFIXES:
            if scope["path"].startswith(prefix):
                return str(scope["path"]).removeprefix(prefix)
    return ""


def _frames_ahead(scope: Scope) -> int:
    """Returns how many of the body's frames to request before the first one arrives."""
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
