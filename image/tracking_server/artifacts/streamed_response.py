"""How one of MLflow's own handlers sends an object without copying it to a file first.

Each of them asks the repository for a local path before it makes a copy. The repository answers
the request then and there with the object's headers, and `transfers` adds the bytes.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import abort, current_app, request

from tracking_server.mlflow import internals

if TYPE_CHECKING:
    from google.cloud import storage


@dataclass
class Handover:
    """What the answer to a request is to be filled with, if it is."""

    blob: "storage.Blob | None" = None
    span: tuple[int, int] | None = None
    """From, up to; None for all of it."""


_awaited: ContextVar[Handover | None] = ContextVar("handover", default=None)


def expect() -> Handover:
    """For the request that is answered in this context."""
    expected = Handover()
    _awaited.set(expected)
    return expected


def awaited() -> Handover | None:
    return _awaited.get()


def give(blob: "storage.Blob", expected: Handover) -> None:
    """End the handler with the answer that MLflow gives with a file of this content.

    Raises:
        werkzeug.exceptions.HTTPException: with that answer.
    """
    response = current_app.response_class()
    response.content_length = blob.size
    response.last_modified = blob.updated
    response.set_etag(str(blob.generation))
    response.cache_control.no_cache = True
    response.make_conditional(request.environ, accept_ranges=True, complete_length=blob.size)
    if response.status_code in (200, 206):
        expected.blob = blob
    if response.status_code == 206:
        part = response.content_range
        expected.span = part.start or 0, part.stop or 0
    response.response = []
    name = blob.name.rpartition("/")[2]
    response.headers["Content-Type"] = internals.mime_type(name)
    response.headers["Content-Disposition"] = internals.content_disposition(name)
    response.headers["X-Content-Type-Options"] = "nosniff"
    if blob.content_encoding:
        response.headers["Content-Encoding"] = blob.content_encoding
    abort(response)
