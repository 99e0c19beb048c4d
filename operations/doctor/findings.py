"""The checks' findings, and how they are printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    OK = "ok"
    # `pulumi up` would fail.
    FIX = "fix"
    # It would succeed, or the check can't tell.
    WARNING = "warning"
    NOT_CHECKED = "not checked"


COLOURS = {
    Verdict.OK: "\x1b[32m",
    Verdict.FIX: "\x1b[1;31m",
    Verdict.WARNING: "\x1b[33m",
    Verdict.NOT_CHECKED: "\x1b[36m",
}
PLAIN = "\x1b[0m"


@dataclass(frozen=True, kw_only=True)
class Finding:
    what: str
    verdict: Verdict
    found: str
    how: str = ""

    def __post_init__(self) -> None:
        if self.verdict in {Verdict.FIX, Verdict.WARNING} and not self.how:
            raise ValueError(f"{self.what}: how to fix it is missing")


def ok(what: str, found: str) -> Finding:
    return Finding(what=what, verdict=Verdict.OK, found=found)


def fix(what: str, found: str, how: str) -> Finding:
    return Finding(what=what, verdict=Verdict.FIX, found=found, how=how)


def warning(what: str, found: str, how: str) -> Finding:
    return Finding(what=what, verdict=Verdict.WARNING, found=found, how=how)


def not_checked(what: str, why: str, how: str = "") -> Finding:
    return Finding(what=what, verdict=Verdict.NOT_CHECKED, found=why, how=how)


def would_fail(findings: Iterable[Finding]) -> bool:
    return any(finding.verdict is Verdict.FIX for finding in findings)


def printed(findings: Sequence[Finding], *, coloured: bool) -> list[str]:
    """Returns lines with verdict, subject and finding in columns, and the fix below."""
    verdicts = max(len(verdict.value) for verdict in Verdict)
    subjects = max(len(finding.what) for finding in findings)
    indent = " " * (verdicts + subjects + 4)
    lines = []
    for finding in findings:
        verdict = finding.verdict.value.ljust(verdicts)
        if coloured:
            verdict = f"{COLOURS[finding.verdict]}{verdict}{PLAIN}"
        lines.append(f"{verdict}  {finding.what.ljust(subjects)}  {_plain(finding.found)}")
        if finding.how:
            lines.append(f"{indent}→ {_plain(finding.how)}")
    return lines


def summary(findings: Sequence[Finding]) -> str:
    found = Counter(finding.verdict for finding in findings)
    counts = [
        f"{found[verdict]} {text}"
        for verdict, text in (
            (Verdict.FIX, "to fix"),
            (Verdict.WARNING, "to note"),
            (Verdict.NOT_CHECKED, "not checked"),
        )
        if found[verdict]
    ]
    if would_fail(findings):
        return f"{', '.join(counts)}: `pulumi up` would fail."
    if counts:
        return f"{', '.join(counts)}: nothing found that would stop `pulumi up`."
    return "Nothing found that would stop `pulumi up`."


def _plain(text: str) -> str:
    """Returns the text on one line, without terminal control characters from other programs."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
