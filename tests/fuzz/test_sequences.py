"""Generated sequences of requests have the same effects with hot routes and without.

FUZZ_SEQUENCES sets how many; `make test` sends a few (tests/server/test_hot_routes.py).
"""

import os

from hypothesis import given

from tests.server.hot_requests import SEQUENCES, Request, generated
from tests.server.test_hot_routes import Side, compare, sides

__all__ = ["sides"]

SEQUENCE_COUNT = int(os.environ.get("FUZZ_SEQUENCES", "20000"))


@generated(SEQUENCE_COUNT)
@given(sequence=SEQUENCES)
def test_every_sequence_has_the_same_effects(
    sides: tuple[Side, Side], sequence: list[Request]
) -> None:
    compare(sides, sequence)
