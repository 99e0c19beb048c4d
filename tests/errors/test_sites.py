"""No error without its row: what the code says is what the table has, or another layer's test."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from pathlib import Path

import pytest

from tests.errors.settings_table import SETTINGS
from tests.errors.sites import OPERATIONS, ROOT, sites
from tests.errors.table import (
    BOOTS,
    CLIENTS,
    COMMANDS,
    ELSEWHERE,
    RAISED,
    REQUESTS,
    Boot,
    Client,
    Command,
    Elsewhere,
    Raised,
    Request,
)

Row = Boot | Client | Command | Elsewhere | Raised | Request

# Shorter ones are names and parts of paths.
COMPARED = 8


def test_every_error_has_a_row() -> None:
    rows: list[Row] = [*COMMANDS, *CLIENTS, *REQUESTS, *BOOTS, *RAISED, *ELSEWHERE]
    said = [row.said for row in rows] + [setting.wanted for setting in SETTINGS]
    found = sites()
    assert len(found) > 100
    missing = [str(site) for site in found if not any(map(site.met_by, said))]
    assert not missing, "no row of tests/errors/table.py says:\n" + "\n".join(missing)


def test_every_error_of_the_operations_is_compared() -> None:
    """Their rows are their own layer's, which has the machine that they are met on."""
    tests = "\n".join(path.read_text() for path in ROOT.glob("tests/operations/*.py"))
    found = sites(OPERATIONS)
    assert len(found) > 20
    missing = [str(site) for site in found if not site.partly_in(tests)]
    assert not missing, "no test of tests/operations compares:\n" + "\n".join(missing)


def _texts(path: Path, name: str) -> list[str]:
    """The texts in a test and in its parameters."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            parts = [part.decode() if isinstance(part, bytes) else part for part in parts]
            texts = [part.strip() for part in parts if isinstance(part, str)]
            return [text for text in texts if len(text) >= COMPARED]
    return []


def _matches(text: str, said: str) -> bool:
    # Few of them are patterns.
    with suppress(re.error):
        return re.search(text, said) is not None
    return False


@pytest.mark.parametrize("row", ELSEWHERE, ids=lambda row: row.test.rpartition("::")[2])
def test_what_is_tested_elsewhere_is_tested_there(row: Elsewhere) -> None:
    file, name = row.test.split("::")
    texts = _texts(ROOT / file, name)
    assert any(text in row.said or _matches(text, row.said) for text in texts), texts
