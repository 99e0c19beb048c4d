"""One stack for each file of faults, and the table of what was tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos import report
from tests.chaos.rig import Rig
from tests.local.conftest import Stack, own_stack

__all__ = ["own_stack"]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, which this system does not have")
    with TemporaryDirectory(prefix="mlflow-gcp-chaos-") as folder:
        stack = Stack(Path(folder, "state"))
        started = stack.up()
        assert started.returncode == 0, started.stdout + started.stderr
        rig = Rig(stack, Path(folder))
        rig.database.commit_durably()
        yield rig
        stack.down()
        rig.database.stop()
        stack.run(stack.command("clean"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if report.rows:
        terminalreporter.section("what was tried, and what happened")
        for line in report.table():
            terminalreporter.write_line(line)
