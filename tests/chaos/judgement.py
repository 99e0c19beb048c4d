"""Checks after every fault: acknowledged data is there, and all errors were temporary."""

from __future__ import annotations

from tests.chaos.report import Row, rows
from tests.chaos.rig import Outcome

SECONDS_TO_HEAL = 5
TRIED_AGAIN = {503}
"""The statuses that MLflow's client retries: callers see no failure."""


def nothing_is_lost(tried: str, outcome: Outcome) -> None:
    """Check that no acknowledged call was lost, and add a row to the table."""
    failures = {status: n for status, n in outcome.statuses.items() if status >= 400}
    # The client looks an experiment up by name before it creates it.
    asked_in_vain = failures.pop(404, 0)
    # Clients that disconnected before their response, as some do when they end.
    failures.pop(499, 0)
    rows.append(
        Row(
            tried=tried,
            times=outcome.faults,
            acknowledged=outcome.acknowledged,
            refused=outcome.refused,
            lost=len(outcome.lost),
            answers=", ".join(f"{n} × {status}" for status, n in sorted(failures.items())),
            healed=outcome.healed,
        )
    )
    assert outcome.acknowledged > 200
    assert outcome.lost == outcome.twice == outcome.foreign == []
    assert outcome.patient_refused == []
    assert failures.keys() <= TRIED_AGAIN, outcome.errors
    assert asked_in_vain <= 1
    assert outcome.healed < SECONDS_TO_HEAL
