"""Prints a stack's estimated monthly cost, from its settings: `make cost STACK=dev RUNS=100`."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from infra.facts import prices  # noqa: E402
from infra.settings.reader import load  # noqa: E402
from infra.settings.refusals import SettingsError  # noqa: E402
from infra.settings.schema import Settings  # noqa: E402
from operations.stack import NAME, settings_file, with_settings  # noqa: E402

MAX_RUNS = 1_000_000


def stack_settings(stack: str | None) -> Settings:
    """Returns the settings in a stack's file, or the defaults."""
    config: dict[str, Any] = {}
    if stack is not None:
        file = ROOT / settings_file(stack)
        if not NAME.fullmatch(stack) or not file.exists():
            sys.exit(
                f"STACK={stack!r} has no file here. Those that have: {with_settings(ROOT)}. "
                "Example: STACK=dev"
            )
        config = _config(file)
    # The project's name doesn't change the cost, and this repository's stack files don't set it.
    config = {"gcp:project": "my-project", **config}
    # Secrets are encrypted in the file, and any value will do.
    hidden = {
        key: "x" * 32 if isinstance(value, dict) and "secure" in value else value
        for key, value in config.items()
    }
    return load(hidden, is_secret=lambda _: True)


def _config(file: Path) -> dict[str, Any]:
    try:
        config = (yaml.safe_load(file.read_text()) or {}).get("config") or {}
        return {**config}
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        sys.exit(
            f"{file.name} is not what `pulumi config set` writes ({' '.join(str(error).split())}). "
            "Wanted: config: and below it lines such as mlflow-gcp:memory: 1Gi"
        )


def rows(settings: Settings, *, runs_a_day: float) -> list[tuple[str, ...]]:
    """Returns a heading, the lines and their sum; columns: what, idle, in use, and in month 12."""
    columns = [
        prices.estimate(settings),
        prices.estimate(settings, runs_a_day=runs_a_day),
        prices.estimate(settings, runs_a_day=runs_a_day, months=12),
    ]
    found: list[tuple[str, ...]] = [("", "idle", f"{runs_a_day:g} runs a day", "in month 12")]
    found += [
        # The second column's texts have the numbers of use.
        (lines[1].what, *(f"{line.dollars:,.2f}" for line in lines))
        for lines in zip(*columns, strict=True)
    ]
    found.append(("USD a month", *(f"{prices.total(lines):,.2f}" for lines in columns)))
    return found


def archival(settings: Settings) -> list[str]:
    """Returns what a million traces a month cost with archiveTracesAfterDays and without."""
    said = [f"Spans of {prices.TRACES:,} traces a month, in month 12, in USD a month:"]
    for kilobytes in prices.TRACE_KILOBYTES:
        stored, archived = prices.spans(
            settings, traces=prices.TRACES, kilobytes=kilobytes, months=12
        )
        said.append(
            f"  {kilobytes:g} KB each: {stored:,.2f} in the database, {archived:,.2f} with "
            f"archiveTracesAfterDays, which saves {stored - archived:,.2f}"
        )
    return said


def table(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [f"{what:<{widths[0]}}"]
            + [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        ).rstrip()
        for what, *cells in lines
    )


def _runs(given: str) -> float:
    with suppress(ValueError):
        if 0 <= (runs := float(given)) <= MAX_RUNS:
            return runs
    sys.exit(f"RUNS={given!r}: wanted a number of runs a day, 0 to {MAX_RUNS}, such as RUNS=100")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", help="reads Pulumi.<stack>.yaml; without, the defaults")
    parser.add_argument("--runs", default="", help="a day")
    arguments = parser.parse_args()
    runs = _runs(arguments.runs or str(prices.USUAL_RUNS))
    try:
        settings = stack_settings(arguments.stack or None)
    except SettingsError as error:
        sys.exit(str(error))
    run = prices.Run()
    said = [table(rows(settings, runs_a_day=runs)), "", *archival(settings), ""]
    said += [
        f"A run: {run.requests} requests of {run.seconds} s, {run.artifacts_gb} GB of artifacts, "
        f"{run.downloaded_gb} GB of them downloaded.",
        f"Google's list prices of {prices.AS_OF} in {prices.REGION}, less what a billing account",
        "has free. Sources: infra/facts/prices.py.",
    ]
    if settings.region != prices.REGION:
        said.append(
            f"The stack is in {settings.region}, whose prices aren't here: most cost up to half as "
            "much again. https://cloud.google.com/products/calculator has them."
        )
    sys.stdout.write("\n".join(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
