"""Downloads of proxied artifacts as a stream.

MLflow's own route copies the whole object to a temporary file first, which on Cloud Run is
memory: https://cloud.google.com/run/docs/container-contract#filesystem
"""

import json
import posixpath
from typing import TYPE_CHECKING

import anyio.to_thread
from mlflow.exceptions import MlflowException
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.uri import validate_path_is_safe
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tracking_server import mlflow_internals

if TYPE_CHECKING:
    from tracking_server.artifacts import KeylessGCSArtifactRepository

PREFIXES = (
    "/api/2.0/mlflow-artifacts/artifacts/",
    "/ajax-api/2.0/mlflow-artifacts/artifacts/",
)


def _artifact_path(scope: Scope) -> str:
    """The path below the bucket's folder, empty for any other request."""
    if scope["type"] == "http" and scope["method"] == "GET":
        for prefix in PREFIXES:
            if scope["path"].startswith(prefix):
                return str(scope["path"]).removeprefix(prefix)
    return ""


class ArtifactDownloads:
    """Answers GET of an artifact from `repository`; everything else goes on to MLflow."""

    def __init__(self, app: ASGIApp, repository: "KeylessGCSArtifactRepository") -> None:
        self.app = app
        self._repository = repository

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _artifact_path(scope)
        answer = await self._answer(path) if path else self.app
        await answer(scope, receive, send)

    async def _answer(self, path: str) -> Response:
        try:
            path = validate_path_is_safe(path)
            blob = await anyio.to_thread.run_sync(self._repository.existing, path)
        except MlflowException as error:
            return JSONResponse(
                status_code=error.get_http_status_code(),
                content=json.loads(error.serialize_as_json()),
            )
        return StreamingResponse(
            self._repository.stream(blob),
            headers={
                "Content-Type": _guess_mime_type(path),
                "Content-Length": str(blob.size),
                "Content-Disposition": mlflow_internals.content_disposition(
                    posixpath.basename(path)
                ),
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "SAMEORIGIN",
            },
        )
