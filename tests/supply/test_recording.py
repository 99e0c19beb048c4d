"""The README's recording: its own commands, nothing of whoever recorded it, and drawn from it."""

import json
import re
import socket
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.manual import ROOT
from tools import recording

HEADER, *EVENTS = map(json.loads, recording.CAST.read_text().splitlines())
TEXT = "".join(text for _, _, text in EVENTS)


def test_players_read_it() -> None:
    assert HEADER["version"] == 2
    assert (HEADER["width"], HEADER["height"]) == (recording.COLUMNS, recording.ROWS)
    moments = [moment for moment, _, _ in EVENTS]
    assert moments == sorted(moments)
    assert 20 < moments[-1] < 40
    assert {kind for _, kind, _ in EVENTS} == {"o"}


def test_its_commands_are_the_readmes() -> None:
    typed = [line[2:] for line in TEXT.replace("\r", "").splitlines() if line.startswith("$ ")]
    assert typed[:5] == recording.commands((ROOT / "README.md").read_text())
    assert "Everything came back as it was logged" in TEXT


def test_nothing_of_a_real_run_is_in_it() -> None:
    assert re.findall(r"password +(\S+)", TEXT) == [recording.PASSWORD]
    assert not re.search(r"(^|[\s'\"=])/(tmp|root|home|Users|var|work)/", TEXT)
    assert socket.gethostname() not in TEXT


def test_the_drawing_is_the_recordings_and_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["recording.py", "--check"])
    assert recording.main() == 0
    drawn = recording.DRAWING.read_text()
    ElementTree.fromstring(drawn)  # noqa: S314 # our own
    assert len(drawn.encode()) < 100_000
    # GitHub shows a picture of a page, where neither scripts nor other addresses work.
    assert not re.search(r"<script|href=|url\(|@import", drawn)
    assert "docs/first-minute.svg" in (ROOT / "README.md").read_text()

    changed = tmp_path / "first-minute.svg"
    changed.write_text(drawn.replace("make check", "make cheque"))
    monkeypatch.setattr(recording, "DRAWING", changed)
    assert recording.main() == 1
    assert "is not its recording's: run" in capsys.readouterr().err


def test_a_password_is_replaced_where_two_events_share_it() -> None:
    secret = "s" * len(recording.PASSWORD)
    events = [(1.0, f"{recording.PROMPT[:3]}"), (2.0, f"{recording.PROMPT[3:]}$ {secret[:5]}")]
    shown = recording.without([*events, (3.0, f"{secret[5:]}\r\n")], secret)
    assert "".join(text for _, text in shown) == f"$ {recording.PASSWORD}\r\n"
    assert [moment for moment, _ in shown] == [1.0, 2.0, 3.0]


def test_paper_is_a_terminal() -> None:
    paper = recording.Paper()
    paper.print(1.0, "installing: 1 s")
    paper.print(2.0, "\rinstalled\x1b[K\r\n")
    paper.print(3.0, "x" * (recording.COLUMNS + 1))
    assert paper.lines == ["installed", "x" * recording.COLUMNS, "x"]
    assert paper.past == [(0, 1.0, 2.0, "installing: 1 s")]
    assert paper.shown[0] == (2.0, "installed")
    with pytest.raises(SystemExit, match="can't be drawn"):
        paper.print(4.0, "\x1b[31m")
