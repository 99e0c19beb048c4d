"""mypy reads exactly those parts of pulumi_gcp that the program uses."""

import re
import sysconfig
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]

# mypy reads only single modules of these services.
LARGEST = ("compute", "iap")
# Other modules import their classes from these.
SHARED = {"_inputs", "outputs"}


def test_every_part_that_the_program_uses_is_type_checked() -> None:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    [followed] = [each["module"] for each in overrides if each.get("follow_imports") == "normal"]
    used = defaultdict(set)
    for file in (ROOT / "infra").rglob("*.py"):
        for service, name in re.findall(r"\bgcp\.(\w+)\.(\w+)", file.read_text()):
            used[service].add(name)
    parts = {"pulumi_gcp", "pulumi_gcp._utilities", "pulumi_gcp.provider"}
    for service, names in used.items():
        if service not in LARGEST:
            parts.add(f"pulumi_gcp.{service}.*")
            continue
        parts.add(f"pulumi_gcp.{service}")
        modules = SHARED | modules_with(names, service)
        parts |= {f"pulumi_gcp.{service}.{module}" for module in modules}
    assert set(followed) == parts


def modules_with(names: set[str], service: str) -> set[str]:
    folder = Path(sysconfig.get_path("purelib"), "pulumi_gcp", service)
    return {
        file.stem
        for file in folder.glob("*.py")
        if names & set(re.findall(r"^(?:class|def) (\w+)\(", file.read_text(), re.M))
    }
