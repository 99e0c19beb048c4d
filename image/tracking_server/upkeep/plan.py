"""Decides what a cleanup deletes: nothing that something else, which stays, still needs."""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["run", "logged model", "experiment"]


@dataclass(frozen=True, slots=True)
class Key:
    """Identifies a run, a logged model or an experiment."""

    kind: Kind
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that was deleted long enough ago, or belongs to such an experiment.

    - `deleted`: whether a user has deleted it itself, and not only its experiment.
    - `location`: the address of its artifacts.
    """

    key: Key
    name: str
    experiment: str
    deleted: bool
    location: str


@dataclass(frozen=True, slots=True)
class Reference:
    """`holder` needs `target`. `why` says so, for readers of the log.

    A holder that isn't a candidate stays.
    """

    holder: Key | None
    target: Key
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to delete, and why the other candidates are kept."""

    delete: tuple[Candidate, ...]
    keep: Mapping[Key, str]


def plan(candidates: Iterable[Candidate], references: Iterable[Reference], *, root: str) -> Plan:
    """Keep each candidate that something needs which stays, and those outside the bucket.

    `root` is the address of the bucket, or of the folder in it, that has all artifacts.
    """
    found = {candidate.key: candidate for candidate in candidates}
    keep: dict[Key, str] = {}
    held_by: dict[Key | None, list[Reference]] = defaultdict(list)
    for reference in references:
        held_by[reference.holder].append(reference)
    staying = deque(
        reference for holder in held_by if holder not in found for reference in held_by[holder]
    )
    for key, candidate in found.items():
        if key.kind != "experiment" and not own_folder(candidate, root):
            keep[key] = "its artifacts are not in their usual folder of this server's bucket"
            staying.extend(held_by[key])
    while staying:
        reference = staying.popleft()
        if reference.target in found and reference.target not in keep:
            keep[reference.target] = reference.why
            staying.extend(held_by[reference.target])
    return Plan(tuple(found[key] for key in found if key not in keep), keep)


def own_folder(candidate: Candidate, root: str) -> bool:
    """Whether the artifacts are in a folder of the bucket that can only be this candidate's."""
    location = resolved(candidate.location, root)
    parts = location.split("/")
    return (
        location.startswith(f"{root.rstrip('/')}/")
        and parts[-2:] == [candidate.key.id, "artifacts"]
        and not any(part in ("", ".", "..") for part in parts[3:])
    )


def resolved(location: str, root: str) -> str:
    """Returns the address in the bucket of an address that clients reach through the server."""
    scheme, _, path = location.partition(":/")
    if scheme != "mlflow-artifacts" or path.startswith("/"):
        return location
    return f"{root.rstrip('/')}/{path}"
