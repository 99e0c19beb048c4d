"""Reports a part's measurements: a table, its goals and `bench/results/NAME.json`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from fake_google.sql.postgres import choose, installations

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
SERVER_PYTHON = ROOT / ".venvs" / "server" / "bin" / "python"


@dataclass(frozen=True)
class Goal:
    goal: str
    wanted: str
    measured: str
    met: bool


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Returns the median, and half the range of the values as a share of the median."""
    middle = median(values)
    return middle, (max(values) - min(values)) / 2 / middle if middle else 0.0


def shown(values: Sequence[float], *, digits: int = 2, unit: str = "") -> str:
    """`12.3× ±4 %`"""
    middle, spread = median_and_spread(values)
    return f"{middle:,.{digits}f}{unit} ±{100 * spread:.0f} %"


def at_least(factor: float, ratio: Sequence[float], *, goal: str, digits: int = 1) -> Goal:
    """Returns a goal for the median of a ratio over the rounds."""
    shows = shown(ratio, digits=digits, unit="×")
    return Goal(goal=goal, wanted=f"≥ {factor}×", measured=shows, met=median(ratio) >= factor)


def at_most(factor: float, ratio: Sequence[float], *, goal: str, digits: int = 1) -> Goal:
    shows = shown(ratio, digits=digits, unit="×")
    return Goal(goal=goal, wanted=f"≤ {factor}×", measured=shows, met=median(ratio) <= factor)


def publish(name: str, *, rows: list[dict[str, object]], goals: list[Goal]) -> None:
    """Print the rows as a table, and the goals; save both."""
    print(f"\n## {name}\n\n{table(rows)}\n")
    if goals:
        verdicts: list[dict[str, object]] = [
            {
                "goal": goal.goal,
                "wanted": goal.wanted,
                "measured": goal.measured,
                "": "met" if goal.met else "MISSED",
            }
            for goal in goals
        ]
        print(table(verdicts) + "\n")
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "rows": rows, "goals": [asdict(goal) for goal in goals]}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def table(rows: Sequence[dict[str, object]]) -> str:
    """Returns a Markdown table with aligned columns; a row may lack some of them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def machine() -> dict[str, object]:
    """Returns the facts that the figures depend on, but none that identifies the machine."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    python = subprocess.run(
        [SERVER_PYTHON, "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    postgres = choose(installations(), wanted=declared_postgres(), data=None)
    return {
        "cores": os.cpu_count(),
        "model": model[1] if model else "unknown",
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "python": python,
        "mlflow": mlflow_version(),
        "postgres": postgres.version,
    }


def declared_postgres() -> int:
    """Returns the stack's default major version, from Pulumi.yaml."""
    found = re.search(
        r"databaseVersion:.*?default: \"?(\d+)", (ROOT / "Pulumi.yaml").read_text(), re.DOTALL
    )
    assert found
    return int(found[1])


def mlflow_version() -> str:
    found = re.search(
        r"^mlflow\[auth\]==(\S+)", (ROOT / "image/requirements.in").read_text(), re.MULTILINE
    )
    assert found
    return found[1]
