"""A row of the table in `fake_google/resource_types.py`: what is known of one resource type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fake_google.cloud import Cloud

PROJECT_NUMBER = "100000000001"

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]


class Make(Protocol):
    """Make it, or bring what is there to these inputs. Answers its id and its outputs."""

    def __call__(self, cloud: Cloud, name: str, inputs: Inputs, /) -> tuple[str, Outputs]: ...


class Delete(Protocol):
    """`olds` is what the caller's state has, `inputs` what really holds."""

    def __call__(self, cloud: Cloud, olds: Inputs, inputs: Inputs, /) -> None: ...


def _goes_with_others(_cloud: Cloud, _olds: Inputs, _inputs: Inputs) -> None:
    """Nothing but the record of it."""


@dataclass(frozen=True)
class Kind:
    make: Make
    delete: Delete = _goes_with_others
    # What only one can have; a second one with it is refused.
    taken: Callable[[Cloud, Inputs], str] | None = None
    # A change of one of these replaces it; None: of any.
    immutable: frozenset[str] | None = frozenset()
    # What else of them a change replaces it for.
    replaces: Callable[[Inputs, Inputs], frozenset[str]] = lambda _old, _new: frozenset()
    # The API that a call of it needs.
    api: str = ""
    # A value that is in the caller's state alone; one without a state gets the same again.
    kept: bool = False
    # The id of what `pulumi import` is given another name for, and inputs that Google tells nobody.
    imported: Callable[[str], str] = lambda given: given
    untold: frozenset[str] = frozenset()
    # Outputs that a change makes anew.
    renewed: frozenset[str] = frozenset()
    # Adds what the provider itself works out from the inputs and the project's folder.
    check: Callable[[Inputs, Path], Outputs] = field(default=lambda inputs, _: dict(inputs))
    # Differences that the provider overlooks.
    same: Callable[[str, Any, Any], bool] = field(default=lambda _, old, new: bool(old == new))


def last(reference: str) -> str:
    """The short id out of a full resource name."""
    return reference.rpartition("/")[2]
