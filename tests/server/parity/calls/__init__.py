"""The fixed sequence of requests; later ones use objects that earlier ones created."""

from tests.server.parity.call import Call
from tests.server.parity.calls import (
    artifacts,
    cold,
    gateway,
    genai,
    integers,
    native,
    page_requests,
    pages,
    registry,
    traces,
    tracking,
)

BEFORE_THE_PAGE: list[Call] = [
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
]

_AFTER_THE_PAGE: list[Call] = [
    # Stock stores a run for some of them, which the page would show.
    *genai.JOBS,
    *genai.CLEANED,
    *gateway.CLEANED,
    *traces.DELETED,
]

SEQUENCE = [*BEFORE_THE_PAGE, *_AFTER_THE_PAGE]
WITH_THE_PAGE = [
    *BEFORE_THE_PAGE,
    *page_requests.PREPARED,
    *page_requests.CALLS,
    *_AFTER_THE_PAGE,
]
