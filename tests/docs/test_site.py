"""The site that `make site` builds from docs/."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra.declared import ROOT
from tools.links import links
from tools.site_links import on_page_markdown

MKDOCS = ROOT / ".venvs" / "site" / "bin" / "mkdocs"
MAKEFILE = (ROOT / "Makefile").read_text()


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build it as the Makefile does."""
    [command] = re.findall(
        r"\$\(VENVS\)/site/bin/mkdocs (.*) --site-dir dist/site$", MAKEFILE, re.M
    )
    return subprocess.run(
        [MKDOCS, *command.split(), "--site-dir", folder / "site"],
        check=False, cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1",
             "SITE_REPOSITORY": "https://github.com/my-org/my-fork"},
    )  # fmt: skip


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    if not MKDOCS.exists():
        message = "mkdocs is missing: make site"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    for name in ("docs", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy2(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_the_site_builds_without_a_warning(clone: Path) -> None:
    done = build(clone)
    assert done.returncode == 0, done.stderr
    index = (clone / "site" / "index.html").read_text()
    assert 'href="https://github.com/my-org/my-fork/blob/main/CONTRIBUTING.md"' in index
    # A generated table begins right after a comment.
    assert "<th>default</th>" in (clone / "site" / "settings" / "index.html").read_text()


def test_a_broken_link_fails_the_build(clone: Path) -> None:
    with (clone / "docs" / "local.md").open("a") as page:
        page.write("\n[here](costs.md#gone)\n")
    done = build(clone)
    assert done.returncode == 1
    assert "does not contain an anchor '#gone'" in done.stderr


def test_the_navigation_matches_the_index() -> None:
    navigation = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    index = links((ROOT / "docs" / "index.md").read_text())
    assert navigation == ["index.md", *(link for link in index if "/" not in link)]


def test_links_out_of_the_pages_lead_to_github() -> None:
    class Config:
        repo_url = "https://github.example/mlflow-gcp/"

    page = "[a](../README.md#x) [b](costs.md) ![c](../d.png)"
    assert on_page_markdown(page, config=Config, page=None, files=None) == (
        "[a](https://github.example/mlflow-gcp/blob/main/README.md#x) [b](costs.md) "
        "![c](https://github.example/mlflow-gcp/blob/main/d.png)"
    )
