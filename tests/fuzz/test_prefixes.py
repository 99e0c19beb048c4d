"""Every route of MLflow responds as stock MLflow does under both of its prefixes.

`make test` sends each request with one prefix: tests/server/test_parity.py.
"""

from pathlib import Path

from tests.server.parity.calls import SEQUENCE
from tests.server.parity.servers import Stock
from tests.server.test_parity import (
    PREFIXES,
    bare_calls,
    compare,
    environment,
    folder,
    stock,
    with_prefix,
)

__all__ = ["environment", "folder", "stock"]


def test_every_response_equals_stocks_with_both_prefixes(
    environment: dict[str, str],
    stock: Stock,
    folder: Path,
) -> None:
    passes = {
        f"0a0{number}": [with_prefix(call, prefix) for call in SEQUENCE]
        for number, prefix in enumerate(PREFIXES, 1)
    }
    compare(environment, stock, folder, passes, bare_calls())
