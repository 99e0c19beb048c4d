"""Runs MLflow's `gc` on what was deleted long ago, and logs each thing that it deletes or keeps."""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from time import monotonic, time
from typing import Any

from sqlalchemy import Engine

from tracking_server.mlflow import internals
from tracking_server.upkeep import tables
from tracking_server.upkeep.archive import folder
from tracking_server.upkeep.plan import Candidate, Kind, Plan, plan, resolved

DAY = 24 * 3600

TOGETHER = 20
"""How many things MLflow's `gc` deletes in one call."""

LONGEST = 3000.0
"""Seconds after which nothing more is begun."""

# Runs first: those in a deleted experiment must be gone before it.
_ORDER: tuple[Kind, ...] = ("run", "logged model", "experiment")

log = logging.getLogger(__name__)


class Cleanup:
    """Deletes what users deleted more than `days` ago; a dry run only lists it."""

    def __init__(self, engine: Engine, store: Any, *, root: str, days: int, dry_run: bool) -> None:
        self._engine, self._store, self._root = engine, store, root
        self._days, self._dry_run = days, dry_run
        self._until = monotonic() + LONGEST

    def run(self) -> bool:
        """Returns whether everything that was to be deleted is deleted."""
        found = self._plan()
        for key, why in found.keep.items():
            log.info(
                "kept %s: %s",
                key,
                why,
                extra={"fields": {"cleanup": "kept", "kind": key.kind, "id": key.id, "why": why}},
            )
        # A model that isn't deleted itself goes with its experiment.
        wanted = [each for each in found.delete if each.deleted]
        with_experiments = [each for each in found.delete if not each.deleted]
        if self._dry_run:
            for each in found.delete:
                _say("would delete", each)
            done = len(found.delete)
        else:
            done = self._delete(wanted, with_experiments)
        log.info(
            "cleanup: %s %d of %d, deleted more than %d days ago, and kept %d",
            "would delete" if self._dry_run else "deleted",
            done,
            len(found.delete) + len(found.keep),
            self._days,
            len(found.keep),
        )
        return done == len(found.delete)

    def _plan(self) -> Plan:
        cutoff = int((time() - self._days * DAY) * 1000)
        with self._engine.connect() as connection:
            candidates = tables.candidates(connection, cutoff=cutoff)
            references = list(tables.references(connection, candidates))
        return plan(candidates, references, root=self._root)

    def _delete(self, wanted: Sequence[Candidate], with_experiments: Sequence[Candidate]) -> int:
        done = 0
        for kind in _ORDER:
            for some in _chunks([each for each in wanted if each.key.kind == kind]):
                if monotonic() > self._until:
                    log.warning("cleanup: the time is over; the next run continues")
                    return done
                inside = [
                    model
                    for model in with_experiments
                    if kind == "experiment" and model.experiment in {each.key.id for each in some}
                ]
                done += self._delete_some(kind, some, inside)
        return done

    def _delete_some(
        self, kind: Kind, some: Sequence[Candidate], inside: Sequence[Candidate]
    ) -> int:
        """Returns how many are gone. If one fails, the others are tried alone."""
        ids = [each.key.id for each in some]
        log.info("deleting %s %s", kind, ", ".join(ids))
        try:
            internals.collect_garbage(self._store, kind, ids, days=self._days)
        except Exception:
            # A user may have restored one meanwhile, or the bucket refuses.
            if len(some) == 1:
                log.error("%s could not be deleted", some[0].key, exc_info=True)
        with self._engine.connect() as connection:
            left = tables.existing(connection, kind, ids)
        gone = [each for each in some if each.key.id not in left]
        for model in inside:
            if model.experiment not in left:
                # MLflow leaves them in the bucket.
                internals.delete_artifacts(resolved(model.location, self._root))
                gone.append(model)
        for each in gone:
            if each.key.kind == "experiment":
                # Likewise the archived spans and the attachments of its traces.
                internals.delete_artifacts(f"{folder(self._root)}/{each.key.id}")
                if self._is_alone(each):
                    internals.delete_artifacts(f"{resolved(each.location, self._root)}/traces")
            _say("deleted", each)
        if left and len(some) > 1:
            again = [each for each in some if each.key.id in left]
            return len(gone) + sum(
                self._delete_some(kind, [each], [m for m in inside if m.experiment == each.key.id])
                for each in again
            )
        return len(gone)

    def _is_alone(self, experiment: Candidate) -> bool:
        """Whether the experiment's usual folder has artifacts of no other experiment."""
        usual = f"{self._root.rstrip('/')}/{experiment.key.id}"
        if resolved(experiment.location, self._root) != usual:
            return False
        with self._engine.connect() as connection:
            return not tables.experiments_in(connection, experiment.location, usual)


def _say(what: str, candidate: Candidate) -> None:
    """Write the audit line for one thing."""
    fields = {
        "cleanup": what,
        "kind": candidate.key.kind,
        "id": candidate.key.id,
        "name": candidate.name,
        "experiment_id": candidate.experiment,
        "artifacts": candidate.location,
    }
    log.info("%s %s (%s)", what, candidate.key, candidate.name, extra={"fields": fields})


def _chunks(items: Sequence[Candidate]) -> Iterator[Sequence[Candidate]]:
    rest = iter(items)
    while some := list(islice(rest, TOGETHER)):
        yield some
