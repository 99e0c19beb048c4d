"""The README's recording: its own commands, nothing of whoever recorded it, and drawn from it."""

import json
import re
import socket
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from tests.manual import ROOT
from tools import recording

HEADER, *EVENTS = map(json.loads, recording.CAST.read_text().splitlines())
README = (ROOT / "README.md").read_text()
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


FIRST = "echo https://example.com/first"


def test_each_command_is_recorded(tmp_path: Path) -> None:
    typed = [FIRST, "sleep 1; echo $((1 + 2))"]
    events = recording.record(typed, source=tmp_path, folder=tmp_path)
    text = recording.PROMPTED.sub("", "".join(part for _, part in events)).replace("\r", "")
    assert text == f"$ {FIRST}\nhttps://example.com/first\n$ {typed[1]}\n3\n$ "
    moments = [moment for moment, _ in events]
    waits = {round(after - before, 1) for before, after in pairwise(moments)}
    # Only to read what a command has said, and no wait of its own is as long as it was.
    assert max(waits) <= recording.READING + recording.LONGEST_WAIT
    assert not {wait for wait in waits if recording.LONGEST_WAIT < wait < recording.READING}


def test_the_first_command_that_fails_ends_it(tmp_path: Path) -> None:
    failing = "sh -c 'echo error: the port; exit 3'"
    with pytest.raises(SystemExit) as ended:
        recording.record([FIRST, failing, "touch later"], source=tmp_path, folder=tmp_path)
    said = str(ended.value).replace("\r", "")
    assert said.startswith(f"error: `{failing}` ended with exit code 3, so nothing is recorded:\n")
    assert "\nerror: the port\n" in said
    assert "\x1b" not in said
    assert not (tmp_path / "later").exists()


def test_how_its_waits_are_cut_is_said() -> None:
    """A minute that takes half of one isn't true otherwise."""
    assert f"waits are cut to {recording.LONGEST_WAIT} seconds" in README.replace("\n", " ")


def test_a_password_is_replaced_where_two_events_share_it() -> None:
    secret = "s" * len(recording.PASSWORD)
    events = [(1.0, "\x1b]133"), (2.0, f";D;0\x07$ {secret[:5]}")]
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
