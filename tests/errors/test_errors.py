"""Every error that a user can cause says what was given, what is expected and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.errors.causes import CANARY, Fixtures, Row
from tests.errors.table import ROWS
from tests.local.conftest import Stack

# Parts of a traceback, of an object's representation or of a parser's help.
MACHINERY = ("Traceback", 'File "', " object at 0x", "<class ", "usage:")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.temporary(config=("viewerUsername=viewer",)) as stack:
        yield stack


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_error(row: Row, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    caused = row.cause(Fixtures(tmp_path, lambda: request.getfixturevalue("stack")))
    assert caused.code == row.code, caused
    assert not [fact for fact in row.facts if fact not in caused.text], caused.text
    shown = caused.text + caused.output
    assert not [part for part in MACHINERY if part in shown], shown
    assert not [secret for secret in (CANARY, *caused.secrets) if secret in shown]
