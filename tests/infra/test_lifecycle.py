"""The effect of the bucket's lifecycle rules on objects of every age, as in Cloud Storage.

https://cloud.google.com/storage/docs/lifecycle
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.infra.declared import recorded

BUCKET = "gcp:storage/bucket:Bucket"
DECADE = 3650


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object, a noncurrent version of one, or an unfinished upload."""

    age: int
    noncurrent_for: int | None = None
    unfinished: bool = False


@cache
def declared() -> list[Mapping[str, Any]]:
    rules: list[Mapping[str, Any]] = recorded().one(BUCKET).inputs["lifecycleRules"]
    return rules


def applies(condition: Mapping[str, Any], thing: Thing) -> bool:
    """Returns whether all parts of the condition hold; a part that is absent always holds."""
    live = thing.noncurrent_for is None
    holds = {
        "age": lambda days: thing.age >= days,
        "withState": lambda state: state == "ANY" or (state == "LIVE") == live,
        "daysSinceNoncurrentTime": lambda days: not live and (thing.noncurrent_for or 0) >= days,
    }
    # An unknown part raises, as it might hold.
    return all(holds[name](value) for name, value in condition.items() if value is not None)


def deleted(rules: list[Mapping[str, Any]], thing: Thing) -> bool:
    action = "AbortIncompleteMultipartUpload" if thing.unfinished else "Delete"
    return any(
        rule["action"]["type"] == action and applies(rule["condition"], thing) for rule in rules
    )


@pytest.mark.parametrize(
    ("thing", "goes"),
    [
        (Thing(age=0), False),
        (Thing(age=31), False),
        (Thing(age=DECADE), False),
        (Thing(age=DECADE, noncurrent_for=0), False),
        (Thing(age=DECADE, noncurrent_for=29), False),
        (Thing(age=30, noncurrent_for=30), True),
        (Thing(age=6, unfinished=True), False),
        (Thing(age=7, unfinished=True), True),
    ],
)
def test_only_noncurrent_versions_and_unfinished_uploads_are_deleted(
    thing: Thing, goes: bool
) -> None:
    assert deleted(declared(), thing) == goes


def test_no_rule_changes_the_storage_class() -> None:
    """A colder class charges for each read and for early deletion."""
    assert {rule["action"]["type"] for rule in declared()} == {
        "Delete",
        "AbortIncompleteMultipartUpload",
    }


@pytest.mark.parametrize(
    "condition", [{"age": 30}, {"withState": "LIVE", "age": 30}, {"withState": "ANY"}, {}]
)
def test_a_rule_that_deletes_live_artifacts_is_detected(condition: dict[str, Any]) -> None:
    rules = [{"action": {"type": "Delete"}, "condition": condition}]
    assert deleted(rules, Thing(age=DECADE))
