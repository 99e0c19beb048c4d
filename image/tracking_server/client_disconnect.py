"""Tells long-running work whether the client of the current request has disconnected."""

from contextvars import ContextVar
from threading import Event

LEFT: ContextVar[Event | None] = ContextVar("left", default=None)
"""Set by the code that watches the client."""


def has_left() -> bool:
    event = LEFT.get()
    return event is not None and event.is_set()
