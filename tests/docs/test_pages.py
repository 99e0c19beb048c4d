"""Rules for the pages: their length, their first lines, the index, the dates of the traps."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.infra.declared import ROOT
from tools.links import links

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
INDEX = DOCS / "index.md"
SERVER = ROOT / "image" / "tracking_server"
MOST_WORDS = 1200
MOST_WORDS_OF_README = 900
# A generated table is as long as its source.
GENERATED = re.compile(r"<!-- (\w+): .* -->\n.*?<!-- /\1 -->", re.S)


def words(text: str) -> int:
    return len([word for word in text.split() if re.search(r"\w", word)])


def test_the_readme_is_short() -> None:
    assert words((ROOT / "README.md").read_text()) <= MOST_WORDS_OF_README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestPage:
    def test_is_short(self, page: Path) -> None:
        assert words(GENERATED.sub("", page.read_text())) <= MOST_WORDS

    def test_first_line_says_what_the_page_is_for(self, page: Path) -> None:
        title, empty, first, *_ = page.read_text().splitlines()
        assert re.fullmatch(r"# \S.*", title)
        assert not empty
        assert re.match(r"With this page you |This (page|index) ", first)


def test_the_index_has_every_page_once() -> None:
    named = [link for link in links(INDEX.read_text()) if "/" not in link]
    assert sorted(named) == [page.name for page in PAGES if page != INDEX]


def test_traps_are_newest_first() -> None:
    headings = re.findall(r"^## (.*)$", (DOCS / "traps.md").read_text(), re.M)
    assert headings
    assert all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading) for heading in headings)
    assert all(newer > older for newer, older in pairwise(headings))


def test_the_middleware_is_in_the_order_of_its_assembly() -> None:
    table = re.findall(r"^\| (\d+) \| `(\w+)` \|", (DOCS / "middleware.md").read_text(), re.M)
    assert [int(number) for number, _ in table] == [*range(1, len(table) + 1)]
    outside_in = [name for _, name in table]
    # `middleware.connect` adds this one, when MLflow is imported.
    outside_in.remove("ProxiedTransfers")
    assert [name for name in _middleware() if name in outside_in] == outside_in[::-1]


def test_every_middleware_is_on_the_page() -> None:
    page = (DOCS / "middleware.md").read_text()
    # Classes that layers use or return.
    others = {"Answers", "ProviderAnswers", "Callbacks", "Later", "Middleware", "Mlflow"}
    assert {name for name in _middleware() if f"`{name}`" not in page} <= others


def _middleware() -> list[str]:
    """Returns the classes of the layers, the innermost first."""
    inside = _made((SERVER / "mlflow" / "app.py").read_text(), "build")
    return inside + _made((SERVER / "middleware.py").read_text(), "assemble")


def _made(source: str, function: str) -> list[str]:
    """Returns the classes that a function makes objects of, each after those in its arguments."""
    [assemble] = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == function
    ]
    found: list[str] = []

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            walk(child)
        match node:
            case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
                found.append(name)
            case _:
                pass

    for statement in assemble.body:
        walk(statement)
    return [name for name in found if name[0].isupper()]
