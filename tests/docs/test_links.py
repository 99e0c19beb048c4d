"""Every page's links work; `make links` requests the external ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools.links import ROOT, anchors, answer, broken, links, outside, pages


def test_all_pages_are_found() -> None:
    names = {str(page.relative_to(ROOT)) for page in pages()}
    assert {"README.md", "CONTRIBUTING.md", "docs/moving.md", "docs/traps.md"} <= names


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_target_exists(page: Path) -> None:
    assert list(broken(page)) == []


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        named = {link.partition("#")[0] for link in links(page.read_text())}
        found = {(page.parent / name).resolve() for name in named if name.endswith(".md")}
        todo += found - reached
    # GitHub shows the templates when someone opens an issue or a pull request.
    linked = {page for page in pages() if ".github" not in page.parts}
    assert linked - reached == set()


@pytest.mark.parametrize(
    ("markdown", "found"),
    [
        ("[a](b.md)", ["b.md"]),
        ("[a\nb](c.md#d)", ["c.md#d"]),
        ("![a](b.png) and [`c`](d.md)", ["b.png", "d.md"]),
        ("[![a](b.svg)](https://c.example)", ["b.svg", "https://c.example"]),
        ("[a](https://c.example/x_(y))", ["https://c.example/x_(y)"]),
        ("`a[0](b)`", []),
        ("```sh\n[a](b)\n```\n", []),
    ],
)
def test_links_are_found(markdown: str, found: list[str]) -> None:
    assert links(markdown) == found


def test_headings_have_githubs_names() -> None:
    text = "# A B\n## `make x`, and [C](d)\n## A b\n```sh\n# not one\n```\n### Wörter – 2_3\n"
    assert anchors(text) == {"a-b", "make-x-and-c", "a-b-1", "wörter--2_3"}


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("gone.md", "no such file"),
        ("gone.png", "no such file"),
        ("#gone", "no such heading"),
        ("other.md#gone", "no such heading"),
        ("../outside.md", "no such file"),
        ("http://example.com", "not https"),
        ("//example.com/a", "not https"),
        ("#here", ""),
        ("other.md#there", ""),
        ("https://example.com", ""),
    ],
)
def test_a_broken_link_is_reported(tmp_path: Path, link: str, said: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.md").write_text("# There\n")
    (root / "other.md").write_text("# There\n")
    page = root / "page.md"
    page.write_text(f"# Here\n[a]({link})\n")
    assert list(broken(page, root)) == ([f"{link}: {said}"] if said else [])


class Site(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response({"/there": 200, "/only-get": 405}.get(self.path, 404))
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/only-get" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_external_address_is_requested(site: str) -> None:
    assert answer(f"{site}/there") == answer(f"{site}/only-get") == ""
    assert answer(f"{site}/gone").startswith("404")


def test_an_unreachable_address_is_reported() -> None:
    assert answer("http://127.0.0.1:1")


def test_each_address_is_requested_once(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](https://a.example/b#c) [d](https://a.example/b) [e](f.md)")
    assert outside([page, page]) == ["https://a.example/b"]
