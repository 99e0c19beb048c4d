"""Records the README's first commands as they run, and draws the recording for the README.

`make recording` writes docs/first-minute.cast, an asciicast
(https://docs.asciinema.org/manual/asciicast/v2/), and from it docs/first-minute.svg. With --draw
only the second; with --check it says whether the drawing is the recording's. What is recorded is
a fresh clone of the last commit, on port 8080.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CAST = ROOT / "docs" / "first-minute.cast"
DRAWING = ROOT / "docs" / "first-minute.svg"

COLUMNS, ROWS = 100, 28
# Waiting is cut to this; the seconds that the commands print are the true ones.
LONGEST_WAIT = 0.3
READING = 4.0
LAST_LOOK = 4.0
PATIENCE = 600.0
# Of the length of a true one, which is never kept.
PASSWORD = "Not4RealPasswordButAsLongAsOne00"  # noqa: S105

PROMPT = "\x1b]133;D;$?\x07"
"""Tells a command's end and exit code: https://gitlab.freedesktop.org/Per_Bothner/specifications"""
PROMPTED = re.compile(r"\x1b\]133;D;(\d+)\x07")

Event = tuple[float, str]


def commands(readme: str) -> list[str]:
    """What "On this computer" says to type, without its comments."""
    [block] = re.findall(r"^## On this computer$.*?^```sh\n(.*?)^```", readme, re.M | re.S)
    return [re.sub(r"\s+#.*", "", line) for line in block.splitlines()]


def record(typed: Sequence[str], *, source: Path, folder: Path) -> list[Event]:
    """Run the commands in a terminal, the clone from the source, and keep what it shows.

    The first that fails is the last.
    """
    settings = folder / "inputrc"
    settings.write_text("set enable-bracketed-paste off\n")
    address = re.findall(r"https://\S+", typed[0])[0]
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PS1": rf"\[{PROMPT}\]$ ",
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        "INPUTRC": str(settings),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{source.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        size = f"stty cols {COLUMNS} rows {ROWS}; exec bash --norc --noprofile -i"
        os.execvpe("sh", ["sh", "-c", size], environment)  # noqa: S606
    events: list[Event] = []
    now, before = 0.0, ""
    try:
        for command in [*typed, "exit"]:
            shown = ""
            for waited, text in _until_prompt(terminal):
                now += min(waited, LONGEST_WAIT)
                events.append((now, text))
                shown += text
            [code] = PROMPTED.findall(shown)
            if code != "0":
                raise SystemExit(
                    f"error: `{before}` ended with exit code {code}, so nothing is recorded:\n"
                    + PROMPTED.sub("", shown)
                )
            now += READING
            os.write(terminal, command.encode() + b"\n")
            before = command
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return events


def _until_prompt(terminal: int) -> Iterator[Event]:
    before, rest = time.monotonic(), b""
    while not PROMPTED.search(rest[-64:].decode(errors="replace")):
        if not select.select([terminal], [], [], PATIENCE)[0]:
            raise SystemExit(f"error: nothing was printed for {PATIENCE:.0f} s: {rest[-200:]!r}")
        time.sleep(0.02)  # what is printed together is one event
        part = os.read(terminal, 1 << 16)
        rest += part
        now = time.monotonic()
        yield now - before, part.decode()
        before = now


def without(events: Sequence[Event], secret: str) -> list[Event]:
    """The made-up password in the secret one's place, wherever an event may have cut it."""
    if len(secret) != len(PASSWORD):
        raise SystemExit("error: the password is not as long as the one to show in its place")
    text = "".join(part for _, part in events).replace(secret, PASSWORD)
    text = PROMPTED.sub(lambda prompt: "\0" * len(prompt[0]), text)
    changed, at = [], 0
    for moment, part in events:
        changed.append((moment, text[at : at + len(part)].replace("\0", "")))
        at += len(part)
    return changed


def written(events: Sequence[Event]) -> str:
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "The first minute"}
    lines = [[round(moment, 2), "o", text] for moment, text in events if text]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [header, *lines])


def read(cast: str) -> list[Event]:
    _, *events = map(json.loads, cast.splitlines())
    return [(moment, text) for moment, kind, text in events if kind == "o"]


@dataclass
class Paper:
    """A terminal whose lines never leave: what was on each, and from when to when."""

    lines: list[str] = field(default_factory=lambda: [""])
    column: int = 0
    shown: dict[int, tuple[float, str]] = field(default_factory=dict)
    past: list[tuple[int, float, float, str]] = field(default_factory=list)
    feeds: list[tuple[float, int]] = field(default_factory=list)

    def print(self, moment: float, text: str) -> None:
        for part in re.findall(r"\x1b\[K|\x1b.|\r|\n|[^\x1b\r\n]+", text):
            match part:
                case "\r":
                    self.column = 0
                case "\n":
                    self.lines.append("")
                    self.column = 0
                case "\x1b[K":
                    self.lines[-1] = self.lines[-1][: self.column]
                case _ if not part.isprintable():
                    raise SystemExit(f"error: {part!r} can't be drawn")
                case _:
                    self._put(part)
        for row, line in enumerate(self.lines):
            since, before = self.shown.get(row, (moment, ""))
            if line != before:
                if before:
                    self.past.append((row, since, moment, before))
                self.shown[row] = (moment, line)
        self.feeds.append((moment, max(0, len(self.lines) - ROWS)))

    def _put(self, part: str) -> None:
        for character in part:
            if self.column == COLUMNS:
                self.lines.append("")
                self.column = 0
            line = self.lines[-1]
            self.lines[-1] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1


STYLE = """
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;\
fill:#d0d7de;white-space:pre}
.c{fill:#7ee787}
.p{visibility:hidden}
@media (prefers-reduced-motion:reduce){*{animation:none!important}}
"""
_LINE, _CHARACTER, _EDGE = 18, 8.43, 14


def drawing(events: Sequence[Event]) -> str:
    """An SVG that shows the recording over and over, with nothing but CSS."""
    paper = Paper()
    for moment, text in events:
        paper.print(moment, text)
    length = events[-1][0] + LAST_LOOK

    def percent(moment: float) -> str:
        return f"{100 * moment / length:.2f}%"

    rules: dict[str, str] = {}

    def animated(frames: str) -> str:
        return rules.setdefault(frames, f"k{len(rules)}")

    texts = []
    last = [(row, since, length, line) for row, (since, line) in paper.shown.items() if line]
    for row, since, until, line in sorted([*paper.past, *last]):
        frames = f"0%{{visibility:hidden}}{percent(since)}{{visibility:visible}}"
        if until < length:
            frames += f"{percent(until)}{{visibility:hidden}}"
        kinds = [animated(frames), *(["c"] if line.startswith("$ ") else [])]
        kinds += ["p"] if until < length else []
        height = _EDGE + _LINE * row + 13
        texts.append(
            f'<text class="{" ".join(kinds)}" x="{_EDGE}" y="{height}">'
            f"{html.escape(line, quote=False)}</text>"
        )
    moved, scroll = 0, "0%{transform:none}"
    for moment, rows in paper.feeds:
        if rows != moved:
            moved = rows
            scroll += f"{percent(moment)}{{transform:translateY(-{_LINE * rows}px)}}"
    style = [f"@keyframes {name}{{{frames}}}" for frames, name in rules.items()]
    again = f"{length:.2f}s step-end infinite"
    style += [f".{name}{{animation:{name} {again}}}" for name in rules.values()]
    style += [
        f"@keyframes s{{{scroll}}}",
        f".s{{transform:translateY(-{_LINE * moved}px);animation:s {again}}}",
    ]
    width, height = round(COLUMNS * _CHARACTER) + 2 * _EDGE, ROWS * _LINE + 2 * _EDGE
    view = f'x="0" y="{_EDGE}" width="{width}" height="{ROWS * _LINE}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}">',
            f"<style>{STYLE}{chr(10).join(style)}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>',
            f'<svg {view} viewBox="0 {_EDGE} {width} {ROWS * _LINE}"><g class="s">',
            *texts,
            "</g></svg></svg>",
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--source", type=Path, default=ROOT, help="the repository to clone")
    arguments = parser.parse_args()
    if not (arguments.check or arguments.draw):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o711)  # for the database's user, where root records
            source = arguments.source.resolve()
            typed = commands((source / "README.md").read_text())
            clone = Path(folder, "mlflow-gcp")
            try:
                events = record(typed, source=source, folder=Path(folder))
                env = (clone / ".local" / "env").read_text()
            finally:
                # Of what a command that failed has left, too.
                if (clone / ".local").exists():
                    subprocess.run(["make", "local-down", "local-clean"], cwd=clone, check=False)
            [password] = re.findall(r"^export MLFLOW_TRACKING_PASSWORD=(\S+)$", env, re.M)
            cast = written(without(events, shlex.split(password)[0]))
            if told := [line for line in cast.splitlines() if folder in line]:
                raise SystemExit(f"error: a path of this computer is in the recording: {told[0]}")
        CAST.write_text(cast)
    drawn = drawing(read(CAST.read_text()))
    if not arguments.check:
        DRAWING.write_text(drawn)
    elif drawn != DRAWING.read_text():
        sys.stderr.write(
            "docs/first-minute.svg is not its recording's: run tools/recording.py --draw\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
