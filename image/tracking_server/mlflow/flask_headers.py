"""Returns the headers that MLflow's Flask app adds to every JSON response, such as CORS headers."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

REMEMBERED = 256

_PATH = "/api/2.0/mlflow/server-info"
"""A path of the API for which MLflow's auth app doesn't ask for a permission."""

Headers = tuple[tuple[bytes, bytes], ...]


def responder(flask: "Flask") -> Callable[[str, bytes, bytes], Headers | None]:
    """Returns a function of a request's method, host and origin (empty if it has none).

    It returns the headers, without Content-Length, or None if a check before the view refuses the
    request. Flask's own functions are called once for each combination.
    """
    from flask import Response

    @lru_cache(REMEMBERED)
    def headers(method: str, host: bytes, origin: bytes) -> Headers | None:
        given = {"Host": host.decode("latin-1")}
        if origin:
            given["Origin"] = origin.decode("latin-1")
        with flask.test_request_context(_PATH, method=method, headers=given):
            if flask.preprocess_request() is not None:
                return None
            response = flask.process_response(Response(mimetype="application/json"))
        return tuple(
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers
            if name.lower() != "content-length"
        )

    return headers
