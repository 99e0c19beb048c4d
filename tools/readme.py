"""Writes the pages' generated tables.

They are the settings, from Pulumi.yaml; the costs of the stacks in this repository, from
infra/facts/prices.py; and the measurements, from bench/results. With --check, it only reports
tables that are out of date.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from cost import rows, stack_settings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
RUNS_A_DAY = 100
PARTS = ("coldstart", "memory", "requests", "artifacts", "image", "logins")


def settings(project: dict[str, Any]) -> str:
    """Returns the settings as a Markdown table, in the order of Pulumi.yaml."""
    rows = ["| key | default | |", "| --- | --- | --- |"]
    rows.append("| `gcp:project` | (you set it) | The id of the Google Cloud project. |")
    for key, entry in project["config"].items():
        default = entry.get("default", entry.get("value"))
        text = str(default).lower() if isinstance(default, bool) else str(default)
        shown = "" if default in ("", []) else f"`{text}`"
        description = entry.get("description", "The region that everything is in.")
        rows.append(f"| `{key}` | {shown} | {description} |")
    return "\n".join(rows) + "\n"


def costs() -> str:
    """Returns the estimated cost of each stack in this repository, as Markdown tables."""
    tables = []
    for path in sorted(ROOT.glob("Pulumi.*.yaml")):
        _, stack, _ = path.name.split(".")
        (_, idle, used), *lines, last = rows(stack_settings(stack), runs_a_day=RUNS_A_DAY)
        table = [f"| `{path.name}` | {idle} | {used} |", "| --- | ---: | ---: |"]
        table += [f"| {what} | {before} | {after} |" for what, before, after in lines]
        table.append("| " + " | ".join(f"**{cell}**" for cell in last) + " |")
        tables.append("\n".join(table))
    return "\n\n".join(tables) + "\n"


def measurements(results: dict[str, dict[str, Any]]) -> str:
    """Returns a table of all goals, met or missed, and the machine of the measurements."""
    rows = ["| `make bench-…` | what | goal | measured | |", "| --- | --- | --- | --- | --- |"]
    for part, result in results.items():
        for goal in result["goals"]:
            verdict = "" if goal["met"] else "missed"
            rows.append(
                f"| `{part}` | {goal['goal']} | {goal['wanted']} | {goal['measured']} | {verdict} |"
            )
    machine = next(iter(results.values()))["machine"]
    rows += [
        "",
        f"Measured on {machine['cores']} cores of {machine['model']}, Python {machine['python']}, "
        f"PostgreSQL {machine['postgres']}, MLflow {machine['mlflow']}.",
    ]
    return "\n".join(rows) + "\n"


def quoted(page: str, name: str, text: str) -> str:
    """Returns the page with the text between the block's markers."""
    block = re.compile(rf"(<!-- {name}: .* -->\n).*?(<!-- /{name} -->)", re.S)
    written, places = block.subn(lambda match: match[1] + text + match[2], page)
    if places != 1:
        raise SystemExit(
            f"a page has {places} blocks <!-- {name}: ... -->, and must have exactly one"
        )
    return written


def main() -> int:
    """Returns 0 if all tables are up to date, or were updated."""
    results = {part: json.loads((RESULTS / f"{part}.json").read_text()) for part in PARTS}
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    pages = {
        "README.md": {"settings": settings(project), "cost": costs()},
        "docs/measurements.md": {"bench": measurements(results)},
    }
    outdated = False
    for name, blocks in pages.items():
        found = wanted = (ROOT / name).read_text()
        for block, text in blocks.items():
            wanted = quoted(wanted, block, text)
        if found == wanted:
            continue
        if "--check" in sys.argv:
            sys.stderr.write(f"{name} is out of date: run `make docs`\n")
            outdated = True
        else:
            (ROOT / name).write_text(wanted)
    return int(outdated)


if __name__ == "__main__":
    sys.exit(main())
