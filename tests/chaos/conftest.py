"""One stack for each file of fault tests, and the table of the faults and their outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.rig import Rig
from tests.local.conftest import Stack, own_stack

__all__ = ["own_stack"]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, which this system does not have")
    with Stack.temporary() as stack:
        rig = Rig(stack, stack.folder.parent)
        rig.database.commit_durably()
        yield rig
        stack.down()
        rig.database.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if report.rows:
        terminalreporter.section("what was tried, and what happened")
        for line in report.table():
            terminalreporter.write_line(line)
