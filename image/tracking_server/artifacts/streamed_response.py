"""Lets MLflow's own handlers send an object without copying it to a file first.

Each handler asks the repository for a local path before it makes a copy. At this point the
repository ends the handler with a response that has the object's headers, and `transfers` adds the
data.
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
    """The object that `transfers` sends as the response's body, if there is one."""

    blob: "storage.Blob | None" = None
    span: tuple[int, int] | None = None
    """The first byte and the one after the last; None for the whole object."""


_awaited: ContextVar[Handover | None] = ContextVar("handover", default=None)


def expect() -> Handover:
    """Returns a new handover for the request of this context."""
    expected = Handover()
    _awaited.set(expected)
    return expected


def awaited() -> Handover | None:
    return _awaited.get()


def give(blob: "storage.Blob", expected: Handover) -> None:
    """End the handler with the response that MLflow sends for a file of this content.

    Raises:
        werkzeug.exceptions.HTTPException: with that response.
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
