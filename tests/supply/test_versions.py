"""The releases of MLflow that `make test-versions` tries."""

from __future__ import annotations

import pytest

from tests.versions.__main__ import Outcome, Version, locked, neighbours, parsed


def test_the_lock_names_a_release() -> None:
    assert locked() >= (3, 17, 2)


@pytest.mark.parametrize(
    ("released", "wanted"),
    [
        ("3.15.2 3.16.0 3.16.1 3.17.1 3.17.2", "3.16.1"),
        ("3.16.1 3.17.2 3.17.3 3.17.4", "3.16.1 3.17.4"),
        ("3.9.0 3.16.10 3.16.9 3.17.2 3.18.0 3.18.1 3.19.0 4.0.0", "3.16.10 3.18.1 3.19.0 4.0.0"),
        ("2.22.5 3.17.2", "2.22.5"),
        ("3.17.2", ""),
    ],
)
def test_the_neighbouring_releases(released: str, wanted: str) -> None:
    found: list[Version] = [parsed(text) for text in released.split()]
    assert neighbours((3, 17, 2), found) == [parsed(text) for text in wanted.split()]


def test_a_release_candidate_is_not_a_release() -> None:
    assert not parsed("3.18.0rc1")


def test_a_release_that_cannot_be_installed_is_reported() -> None:
    line = Outcome(version="3.18.0", not_installed="mlflow-skinny==3.18.0 is missing").line()
    assert line == "3.18.0  can't be installed: mlflow-skinny==3.18.0 is missing"
