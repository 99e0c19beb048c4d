"""The notes of a release, and the tags that can't be released."""

from __future__ import annotations

import pytest

from tools.release import ReleaseError, notes, with_absolute_links

CHANGELOG = """# Changelog

## Unreleased

MLflow 3.17.2.

## 1.2.0 - 2026-12-31

MLflow 3.17.2.

### Added

- Something. Nothing has to be done.

## 1.1.0 - 2026-11-30

MLflow 3.16.0.
"""


def of(tag: str, *, version: str = "1.2.0", mlflow: str = "3.17.2") -> str:
    return notes(tag, version=version, mlflow=mlflow, changelog=CHANGELOG)


def test_the_notes_are_the_section_of_the_version() -> None:
    assert of("v1.2.0") == ("MLflow 3.17.2.\n\n### Added\n\n- Something. Nothing has to be done.")
    assert of("v1.1.0", version="1.1.0", mlflow="3.16.0") == "MLflow 3.16.0."


@pytest.mark.parametrize(
    ("tag", "version", "mlflow", "named"),
    [
        ("v1.2.0", "1.2.0.dev0", "3.17.2", "1.2.0.dev0"),
        ("v1.2.1", "1.2.0", "3.17.2", "tag the commit v1.2.0"),
        ("1.2.0", "1.2.0", "3.17.2", "tag the commit v1.2.0"),
        ("", "1.2.0", "3.17.2", "empty"),
        ("v1.2", "1.2", "3.17.2", "1.2.3rc1"),
        ("v1.3.0", "1.3.0", "3.17.2", "## 1.3.0"),
        ("v1.2.0", "1.2.0", "3.18.0", "MLflow 3.18.0."),
    ],
)
def test_a_tag_that_does_not_fit_is_refused(
    tag: str, version: str, mlflow: str, named: str
) -> None:
    with pytest.raises(ReleaseError) as refused:
        of(tag, version=version, mlflow=mlflow)
    assert named in str(refused.value)


def test_relative_links_become_absolute() -> None:
    text = "[a](docs/a.md#b), [c](https://example.com/c), [d](LICENSE)"
    assert with_absolute_links(text, "https://example.com/o/r/blob/v1") == (
        "[a](https://example.com/o/r/blob/v1/docs/a.md#b), [c](https://example.com/c), "
        "[d](https://example.com/o/r/blob/v1/LICENSE)"
    )
