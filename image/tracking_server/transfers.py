"""Uploads and downloads of proxied artifacts, as streams between the client and the bucket.

MLflow's own route copies a download to a temporary file first, which on Cloud Run is memory
(https://cloud.google.com/run/docs/container-contract#filesystem), and hands every small chunk of
an upload through two middleware layers, which over HTTP/2 costs more than the transfer itself.
"""

import json
import posixpath
from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING

import anyio.to_thread
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import validate_path_is_safe
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server import mlflow_internals

if TYPE_CHECKING:
    from tracking_server.artifacts import KeylessGCSArtifactRepository

PREFIXES = (
    "/api/2.0/mlflow-artifacts/artifacts/",
    "/ajax-api/2.0/mlflow-artifacts/artifacts/",
)


class ProxiedTransfers:
    """Answers GET and PUT of an artifact below `root`; everything else goes on to MLflow."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self.app = app
        self._root = root

    @cached_property
    def _repository(self) -> "KeylessGCSArtifactRepository":
        # Made when first needed: it asks the metadata server, which a boot needn't wait for.
        from tracking_server.artifacts import KeylessGCSArtifactRepository

        return KeylessGCSArtifactRepository(self._root)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _artifact_path(scope)
        if not path:
            await self.app(scope, receive, send)
            return
        try:
            path = validate_path_is_safe(path)
            if scope["method"] == "GET":
                answer = await self._download(path)
            else:
                answer = await self._upload(path, receive)
        except MlflowException as error:
            answer = JSONResponse(
                status_code=error.get_http_status_code(),
                content=json.loads(error.serialize_as_json()),
            )
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["X-Frame-Options"] = "SAMEORIGIN"
        await answer(scope, receive, send)

    async def _download(self, path: str) -> Response:
        blob = await anyio.to_thread.run_sync(lambda: self._repository.existing(path))
        return StreamingResponse(
            self._repository.stream(blob),
            headers={
                "Content-Type": mlflow_internals.mime_type(path),
                "Content-Length": str(blob.size),
                "Content-Disposition": mlflow_internals.content_disposition(
                    posixpath.basename(path)
                ),
            },
        )

    async def _upload(self, path: str, receive: Receive) -> Response:
        folder, name = posixpath.split(path)
        if not name:
            return JSONResponse({"detail": "An artifact's path can't end with '/'."}, 400)
        repository = await anyio.to_thread.run_sync(lambda: self._repository)
        await repository.log_artifact_from_async_stream(_body(receive), name, folder or None)
        return Response()


def _artifact_path(scope: Scope) -> str:
    """The path below the bucket's folder, empty for any other request."""
    if scope["type"] == "http" and scope["method"] in ("GET", "PUT"):
        for prefix in PREFIXES:
            if scope["path"].startswith(prefix):
                return str(scope["path"]).removeprefix(prefix)
    return ""


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        more = message.get("more_body", False)
