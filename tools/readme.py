"""Writes the generated tables of the pages: the settings from Pulumi.yaml, the costs of the stacks
that come with the project from infra/facts/prices.py, the measurements from bench/results.

With --check it only says which pages are out of date.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from cost import rows, stack_settings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
RUNS_A_DAY = 100
PARTS = ("coldstart", "memory", "requests", "artifacts", "image", "logins")

# Each setting is in one group. docs/settings.md shows them in this order.
GROUPS: dict[str, tuple[str, ...]] = {
    "The most used": (
        "gcp:project",
        "gcp:region",
        "access",
        "databaseTier",
        "minInstances",
        "maxInstances",
        "alertEmail",
        "deletionProtection",
    ),
    "Access": ("invokers", "publicThrough", "customDomains", "loadBalancer", "rateLimit"),
    "Login": (
        "trackingUsername",
        "trackingPassword",
        "trackingPasswordVersion",
        "trackingPasswordSecret",
        "viewerUsername",
        "viewerPassword",
        "viewerPasswordVersion",
        "viewerPasswordSecret",
    ),
    "Database": (
        "databaseVersion",
        "databaseEdition",
        "databaseDiskGb",
        "databaseDiskLimitGb",
        "databaseAvailability",
        "databaseConnections",
        "databasePasswordVersion",
        "backupRetention",
        "existingDatabaseInstance",
    ),
    "Network": ("network", "existingNetwork", "existingSubnetwork", "internalNetworks"),
    "Server": (
        "memory",
        "cpu",
        "concurrency",
        "requestTimeout",
        "encryptionKeyVersion",
        "mlflowTelemetry",
    ),
    "Artifacts": ("artifacts", "existingBucket", "bucketLocation", "bucketForceDestroy"),
    "Alerts": ("uptimeCheck", "monthlyBudget", "billingAccount"),
    "Image": ("image", "builder"),
    "Deployment": ("name", "kmsKey", "githubRepository", "githubRepositoryId", "githubReview"),
}


def settings(project: dict[str, Any]) -> str:
    """Returns the settings as one Markdown table for each group."""
    config: dict[str, dict[str, Any]] = project["config"]
    grouped = [key for keys in GROUPS.values() for key in keys]
    known = {"gcp:project", *config}
    if wrong := known.symmetric_difference(grouped) or {k for k in grouped if grouped.count(k) > 1}:
        raise SystemExit(
            f"GROUPS in tools/readme.py must have each setting of Pulumi.yaml once: {sorted(wrong)}"
        )
    return "\n" + "\n".join(
        f"## {group}\n\n{_table(keys, config)}" for group, keys in GROUPS.items()
    )


def _table(keys: Iterable[str], config: dict[str, dict[str, Any]]) -> str:
    rows = ["| key | default | |", "| --- | --- | --- |"]
    for key in keys:
        if key == "gcp:project":
            rows.append("| `gcp:project` | (you set it) | The id of the Google Cloud project. |")
            continue
        entry = config[key]
        default = entry.get("default", entry.get("value"))
        text = str(default).lower() if isinstance(default, bool) else str(default)
        shown = "" if default in ("", []) else f"`{text}`"
        description = entry.get("description", "The region that everything is in.")
        rows.append(f"| `{key}` | {shown} | {description} |")
    return "\n".join(rows) + "\n"


def costs() -> str:
    """Returns the estimate of each stack that comes with the project, as Markdown tables."""
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
    """Returns every goal of every part, met or missed, and the machine of the measurement."""
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
    """Returns the page with the text between the block's marks."""
    block = re.compile(rf"(<!-- {name}: .* -->\n).*?(<!-- /{name} -->)", re.S)
    written, places = block.subn(lambda match: match[1] + text + match[2], page)
    if places != 1:
        raise SystemExit(f"a page has {places} places for {name!r}: <!-- {name}: ... -->, once")
    return written


def main() -> int:
    """Returns 0 if the pages are up to date, or have just been written."""
    results = {part: json.loads((RESULTS / f"{part}.json").read_text()) for part in PARTS}
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    pages = {
        "docs/settings.md": {"settings": settings(project)},
        "docs/costs.md": {"cost": costs()},
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
