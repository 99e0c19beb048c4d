"""The pages' commands and the Makefile run on any Unix: macOS's make 3.81, bash 3.2, BSD tools."""

import re
import subprocess
from pathlib import Path

import pytest

from infra.google.image import CLOUD_BUILD
from tools.links import pages

ROOT = Path(__file__).parents[2]

# Features of GNU's or Linux's tools that others lack, by pattern.
TOOLS = {
    "sed -i without a suffix": r"\bsed\s+(-\w+\s+)*-i\b",
    "sed -r": r"\bsed\s+-\w*r",
    "grep -P": r"\bgrep\s+-\w*P",
    "readlink -f": r"\breadlink\s+-\w*[fem]",
    "realpath": r"\brealpath\b",
    "cp -a and long options": r"\bcp\s+(-\w*[adu]\w*|--\w)",
    "ln -r": r"\bln\s+-\w*[rT]",
    "mktemp's long options": r"\bmktemp\s+--",
    "date -d": r"\bdate\s+(-d|--\w)",
    "stat -c": r"\bstat\s+(-c|--\w)",
    "xargs -r and -d": r"\bxargs\s+(-\w*[rd]\b|--\w)",
    "find -printf": r"\bfind\b.*\s-(printf|regextype)\b",
    "base64 -w": r"\bbase64\s+(-w|--\w)",
    "sort -V": r"\bsort\s+-\w*[Vh]",
    "head -n -1": r"\b(head|tail)\s+-n\s*-",
    "echo -e": r"\becho\s+-\w*e",
    "long options of ls, mkdir, mv, rm and touch": (
        r"(^|[;&|(@])\s*(ls|mkdir|mv|rm|touch)\s+(-\S+\s+)*--\w"
    ),
    "nproc, tac, timeout, setsid": r"(^|[\s;&|(@])(nproc|tac|timeout|setsid)\b",
    "/proc": r"(^|[\s'\"=])/proc/",
    # bash 4.0 and later
    "${name,,}": r"\$\{\w+(,,|\^\^)",
    "mapfile": r"\b(mapfile|readarray)\b",
    "declare -A": r"\bdeclare\s+-\w*A",
    "&>>": r"&>>",
}
# make 3.82 and later
MAKE = {
    ".ONESHELL": r"^\.(ONESHELL|RECIPEPREFIX|EXTRA_PREREQS)\b",
    "$(file)": r"\$\((file|guile|let|intcmp)\s",
    "!= and ::=": r"^\w+\s*(!=|::=)",
    "&:": r"\s&:",
    "undefine": r"^(undefine|private)\s",
}


def offences(text: str, *, make: bool = False) -> list[str]:
    rules = {**TOOLS, **(MAKE if make else {})}
    return [
        f"{name}: {line.strip()}"
        for line in text.splitlines()
        if not line.lstrip().startswith("#")
        for name, pattern in rules.items()
        if re.search(pattern, line)
    ]


def shell_blocks(markdown: str) -> str:
    return "\n".join(re.findall(r"^```(?:sh|bash|shell)\n(.*?)^```", markdown, re.S | re.M))


def test_the_makefile_needs_no_gnu_tools() -> None:
    assert offences((ROOT / "Makefile").read_text(), make=True) == []


def test_scripts_need_no_gnu_tools() -> None:
    assert offences((ROOT / ".ci" / "run").read_text()) == []
    assert offences(CLOUD_BUILD) == []
    assert offences((ROOT / "sample_client" / ".envrc.template").read_text()) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_pages_commands_need_no_gnu_tools(page: Path) -> None:
    assert offences(shell_blocks(page.read_text())) == []


def test_the_readme_has_commands() -> None:
    assert "make local" in shell_blocks((ROOT / "README.md").read_text())


@pytest.mark.parametrize(
    "line",
    [
        "sed -i s/a/b/ file",
        "sed -nr 's/(a)/b/' file",
        "grep -oP 'a' file",
        'cd "$(readlink -f .)"',
        "\t@realpath .",
        "cp -a one two",
        "cp --reflink=auto one two",
        "ln -sr one two",
        "mktemp --directory",
        "date -d yesterday",
        "stat -c %s file",
        "ls | xargs -r rm",
        "find . -type f -printf '%s'",
        "base64 -w0 file",
        "sort -V",
        "head -n -1 file",
        'echo -e "a\\n"',
        "mkdir -p --mode 700 folder",
        "make -j $(nproc) test",
        "timeout 5 make",
        "cat /proc/meminfo",
        'echo "${name,,}"',
        "mapfile -t lines",
        "declare -A table",
        "make &>> log",
    ],
)
def test_features_that_macos_lacks_are_found(line: str) -> None:
    assert offences(line)


@pytest.mark.parametrize(
    "line",
    [".ONESHELL:", "$(file >x,y)", "HERE != pwd", "NAME ::= x", "a b &: c", "undefine NAME"],
)
def test_features_that_make_3_81_lacks_are_found(line: str) -> None:
    assert offences(line, make=True)


def test_every_target_is_phony() -> None:
    """Otherwise a folder of that name hides the target, such as `local`, `bench` and `docs`."""
    makefile = (ROOT / "Makefile").read_text()
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)).split())
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.M))
    assert targets == phony


def test_make_without_a_target_lists_the_commands() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("local", "test", "cost", "check"):
        assert re.search(rf"^  make {target} +\w", listed, re.M)
