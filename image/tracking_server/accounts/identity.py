"""Tells MLflow's permission checks who the caller is: the one whose login the gate has checked."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Response
    from werkzeug.datastructures import Authorization


@dataclass(frozen=True, slots=True)
class Identity:
    """The account that a request belongs to."""

    username: str
    is_admin: bool


CALLER: ContextVar[Identity | None] = ContextVar("caller", default=None)
"""The account of the current request. Only the gate sets it, so no header can."""


def authorization() -> "Authorization | Response":
    """Returns the caller's name in the form that MLflow's `authorization_function` must have."""
    from flask import Response
    from werkzeug.datastructures import Authorization

    caller = CALLER.get()
    if caller is None:
        return Response("This request has no account.\n", 401, mimetype="text/plain")
    return Authorization("basic", {"username": caller.username})


AUTHORIZATION_FUNCTION = f"{__name__}:{authorization.__name__}"
