"""Everything that the pages name exists: settings, outputs, the Makefile's targets, files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.infra import declared
from tests.infra.declared import ROOT
from tools.links import pages

FENCE = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
# Words in camel case that aren't settings: a setting's values, and names of other programs.
OF_OTHERS = {"allUsers", "invokerIamDisabled", "httpRequest"}
EVERYTHING = {
    "image": "us-central1-docker.pkg.dev/my-project/my-images/server:1",
    "viewerUsername": "viewer",
    "githubRepository": "my-org/mlflow-gcp",
    "githubRepositoryId": 74,
    "githubReview": True,
    "loadBalancer": True,
    "customDomains": ["mlflow.example.com"],
}
PASSWORDS_ELSEWHERE = {
    f"{who}PasswordSecret": f"projects/my-project/secrets/{who}/versions/1"
    for who in ("tracking", "viewer")
}


def code(page: Path) -> list[str]:
    """Returns every piece of code: blocks, and code in a line, which may span lines."""
    text = page.read_text()
    inline = INLINE.findall(FENCE.sub("", text))
    return FENCE.findall(text) + [" ".join(piece.split()) for piece in inline]


def settings() -> set[str]:
    # The provider's own, and those of Pulumi.yaml.
    return {"gcp:project", "gcp:defaultLabels"} | yaml.safe_load(
        (ROOT / "Pulumi.yaml").read_text()
    )["config"].keys()


@cache
def program_outputs() -> set[str]:
    """Returns the outputs of the stacks that together have every output."""
    found = {*declared.run(EVERYTHING).outputs}
    return found | {*declared.run(EVERYTHING | PASSWORDS_ELSEWHERE).outputs}


def set_in(code: str) -> set[str]:
    """Returns the settings that are set, read or removed."""
    found = re.findall(r"pulumi config (?:set|get|rm)((?: --\w+)*) '?([\w:]+)", code)
    # With --secret alone, the value follows as well.
    return {key for _, key in found if key != "KEY"}


def made(code: str) -> set[str]:
    """Returns make's targets."""
    lines = re.findall(r"(?:^|[;&|(]|[A-Z]=\S+) *make ([^\n;|&#)]*)", code, re.M)
    words = " ".join(lines).split()
    return {word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)}


def outputs(code: str) -> set[str]:
    return set(re.findall(r"pulumi stack output (?:--\S+ )*\"?([a-z]\w*)", code))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_settings(self, page: Path) -> None:
        assert {key for piece in code(page) for key in set_in(piece)} - settings() == set()

    def test_words_in_camel_case_are_settings(self, page: Path) -> None:
        words = {piece.split()[0] for piece in code(page) if not piece.count("\n")}
        camel = {word for word in words if re.fullmatch(r"[a-z]+(?:[A-Z][a-z]+)+", word)}
        assert camel - settings() - OF_OTHERS == set()

    def test_targets(self, page: Path) -> None:
        makefile = (ROOT / "Makefile").read_text()
        phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)).split())
        asked = {target for piece in code(page) for target in made(piece)}
        assert {target for target in asked if not target.startswith("bench-")} - phony == set()

    def test_outputs(self, page: Path) -> None:
        asked = {name for piece in code(page) for name in outputs(piece)}
        assert asked - program_outputs() == set()

    def test_files(self, page: Path) -> None:
        """`tests/engine/test_upgrade.py` and the like, from the page, the root or the server."""
        named = {
            piece
            for piece in code(page)
            if re.fullmatch(r"[\w.-]+(?:/[\w.-]+)+/?", piece) and "." in piece.rpartition("/")[2]
        }
        bases = (ROOT, page.parent, ROOT / "image" / "tracking_server")
        gone = {piece for piece in named if not any((base / piece).exists() for base in bases)}
        assert gone - {".local/env", "my-org/mlflow-gcp"} == set()

    def test_tests(self, page: Path) -> None:
        """`tests/server/test_gate.py::test_other_hosts_are_refused` and the like."""
        named = {
            tuple(piece.split("::")) for piece in code(page) if re.fullmatch(r"\S+::\w+", piece)
        }
        gone = {
            (path, test) for path, test in named if f"def {test}(" not in (ROOT / path).read_text()
        }
        assert gone == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pulumi config set maxInstances 4", {"maxInstances"}),
        ("pulumi config set --path 'invokers[0]' user:a@b.c", {"invokers"}),
        ("pulumi config set --secret trackingPassword x", {"trackingPassword"}),
        ("$(pulumi config get gcp:region || echo x)", {"gcp:region"}),
        ("pulumi config rm kmsKey", {"kmsKey"}),
    ],
)
def test_settings_are_found(text: str, found: set[str]) -> None:
    assert set_in(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("make local    # all", {"local"}),
        ("make lint test", {"lint", "test"}),
        ("PORT=9000 make local", {"local"}),
        ("a && make cost STACK=prod", {"cost"}),
        ("what make does", set()),
    ],
)
def test_targets_are_found(text: str, found: set[str]) -> None:
    assert made(text) == found
