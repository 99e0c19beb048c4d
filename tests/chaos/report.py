"""The table at the end: each fault, how often it was tried, and its outcomes."""

from __future__ import annotations

from dataclasses import dataclass

HEADS = ("tried", "times", "acknowledged", "refused", "lost", "answers", "healed after")


@dataclass(frozen=True, kw_only=True)
class Row:
    tried: str
    times: int = 1
    acknowledged: int | None = None
    refused: int | None = None
    lost: int | None = None
    answers: str = ""
    healed: float | None = None

    def cells(self) -> tuple[str, ...]:
        healed = "" if self.healed is None else f"{self.healed:.1f} s"
        counts = (self.acknowledged, self.refused, self.lost)
        shown = ("" if count is None else f"{count:,}" for count in counts)
        return (self.tried, str(self.times), *shown, self.answers, healed)


rows: list[Row] = []


def table() -> list[str]:
    cells = [HEADS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
