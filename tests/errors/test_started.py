"""What a server says that can't start, and what is said to who writes a program."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.errors.running import boot, for_people, says
from tests.errors.table import BOOTS, RAISED, Boot, Raised
from tests.local.standins import project


def named(row: Boot | Raised) -> str:
    return row.name


@pytest.mark.parametrize("row", BOOTS, ids=named)
def test_a_boot(row: Boot, tmp_path: Path) -> None:
    with project(tmp_path) as google:
        ended, line = boot(row, google, tmp_path)
    assert ended.code == 1
    for_people(ended.out + ended.err)
    assert "\n" not in line
    says(line, row.said)


@pytest.mark.parametrize("row", RAISED, ids=named)
def test_a_program(row: Raised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(Exception) as raised:
        row.cause()
    for_people(str(raised.value))
    says(str(raised.value), row.said)
