"""What the bucket's rules do to objects of every age, as Cloud Storage reads them.

https://cloud.google.com/storage/docs/lifecycle
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.infra.declared import run

BUCKET = "gcp:storage/bucket:Bucket"
DECADE = 3650


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object, a version of one that was replaced or deleted, or an upload under way."""

    age: int
    noncurrent_for: int | None = None
    unfinished: bool = False


@cache
def declared() -> list[Mapping[str, Any]]:
    rules: list[Mapping[str, Any]] = run().one(BUCKET).inputs["lifecycleRules"]
    return rules


def applies(condition: Mapping[str, Any], thing: Thing) -> bool:
    """All that a condition says must hold; what it doesn't say holds for everything."""
    live = thing.noncurrent_for is None
    holds = {
        "age": lambda days: thing.age >= days,
        "withState": lambda state: state == "ANY" or (state == "LIVE") == live,
        "daysSinceNoncurrentTime": lambda days: not live and (thing.noncurrent_for or 0) >= days,
    }
    # What isn't known here might hold.
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
def test_only_what_is_replaced_or_never_finished_goes(thing: Thing, goes: bool) -> None:
    assert deleted(declared(), thing) == goes


def test_no_rule_moves_objects_elsewhere() -> None:
    """A colder class has a price for each read and for an early end."""
    assert {rule["action"]["type"] for rule in declared()} == {
        "Delete",
        "AbortIncompleteMultipartUpload",
    }


@pytest.mark.parametrize(
    "condition", [{"age": 30}, {"withState": "LIVE", "age": 30}, {"withState": "ANY"}, {}]
)
def test_a_rule_that_would_take_live_artifacts_is_seen(condition: dict[str, Any]) -> None:
    rules = [{"action": {"type": "Delete"}, "condition": condition}]
    assert deleted(rules, Thing(age=DECADE))
