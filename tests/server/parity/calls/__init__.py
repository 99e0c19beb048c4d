"""The fixed sequence of requests; later ones use objects that earlier ones created."""

from tests.server.parity.call import Call
from tests.server.parity.calls import (
    artifacts,
    cold,
    gateway,
    genai,
    integers,
    native,
    pages,
    registry,
    traces,
    tracking,
)

SEQUENCE: list[Call] = [
    *cold.CALLS,
    *tracking.CALLS,
    *artifacts.CALLS,
    *traces.CALLS,
    *registry.CALLS,
    *integers.CALLS,
    *gateway.MADE,
    *gateway.CALLED,
    *genai.CALLS,
    *gateway.LIMITED,
    *native.CALLS,
    *pages.CALLS,
    *genai.CLEANED,
    *gateway.CLEANED,
    *traces.DELETED,
]
