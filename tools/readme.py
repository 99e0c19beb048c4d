"""Writes README.md's table of settings from Pulumi.yaml; with --check only says if it differs."""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TABLE = re.compile(r"(<!-- settings: .* -->\n).*?(<!-- /settings -->)", re.S)


def table(project: dict[str, Any]) -> str:
    """The settings as a Markdown table, in the order in which Pulumi.yaml has them."""
    rows = ["| key | default | |", "| --- | --- | --- |"]
    rows.append("| `gcp:project` | (you set it) | The id of the Google Cloud project. |")
    for key, entry in project["config"].items():
        default = entry.get("default", entry.get("value"))
        text = str(default).lower() if isinstance(default, bool) else str(default)
        shown = "" if default in ("", []) else f"`{text}`"
        description = entry.get("description", "The region that everything is in.")
        rows.append(f"| `{key}` | {shown} | {description} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """0 if README.md has the table of Pulumi.yaml now."""
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    found = README.read_text()
    wanted = TABLE.sub(lambda match: match[1] + table(project) + match[2], found)
    if found == wanted:
        return 0
    if "--check" in sys.argv:
        sys.stderr.write("README.md's settings are not those of Pulumi.yaml: run `make docs`\n")
        return 1
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
