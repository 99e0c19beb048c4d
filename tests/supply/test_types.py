"""mypy reads exactly those parts of pulumi_gcp that the program uses."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_service_that_the_program_uses_is_type_checked() -> None:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    [followed] = [each["module"] for each in overrides if each.get("follow_imports") == "normal"]
    used = {
        f"pulumi_gcp.{service}.*"
        for file in (ROOT / "infra").rglob("*.py")
        for service in re.findall(r"\bgcp\.(\w+)\.\w", file.read_text())
    }
    assert used == {module for module in followed if module.endswith(".*")}
