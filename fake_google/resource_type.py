"""The description of a resource type, a row of the table in `fake_google/resource_types.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fake_google.project import Inputs, Outputs, Project


class Make(Protocol):
    """Creates or updates a resource, and returns its id and its outputs."""

    def __call__(self, project: Project, name: str, inputs: Inputs, /) -> tuple[str, Outputs]: ...


class Delete(Protocol):
    """Deletes a resource. `olds` are from the caller's state, `inputs` are the real inputs."""

    def __call__(self, project: Project, olds: Inputs, inputs: Inputs, /) -> None: ...


def _goes_with_others(_project: Project, _olds: Inputs, _inputs: Inputs) -> None:
    """Deletes only the record."""


@dataclass(frozen=True)
class Kind:
    make: Make
    delete: Delete = _goes_with_others
    # A key that only one resource can have; a second resource with it is refused.
    taken: Callable[[Project, Inputs], str] | None = None
    # Inputs whose change replaces the resource; None: all of them.
    immutable: frozenset[str] | None = frozenset()
    # More inputs whose change from old to new replaces the resource.
    replaces: Callable[[Inputs, Inputs], frozenset[str]] = lambda _old, _new: frozenset()
    # The property for which the provider can generate a name. With a given name, it deletes a
    # resource before it creates the replacement, unless the program sets `delete_before_replace`:
    # `nameRequiresDeleteBeforeReplace` in
    # https://github.com/pulumi/pulumi-terraform-bridge/blob/main/pkg/tfbridge/schema.go
    autonamed: str = "name"
    # Whether the provider always does so.
    deleted_first: bool = False
    # The API that must be on.
    api: str = ""
    # Whether the value is only in the caller's state; without a state, it is stored here.
    kept: bool = False
    # Converts the name given to `pulumi import` into the id.
    imported: Callable[[str], str] = lambda given: given
    # Inputs that Google doesn't return.
    untold: frozenset[str] = frozenset()
    # Outputs that Google sets when it creates the resource, and keeps when it changes.
    assigned: frozenset[str] = frozenset()
    # Inputs that Google sets if they aren't given.
    defaults: Mapping[str, str] = field(default_factory=dict)
    # Outputs that every change renews.
    renewed: frozenset[str] = frozenset()
    # Returns what the provider sends for a change, from the caller's state and the new inputs.
    sent: Callable[[Inputs, Inputs], Inputs] = lambda _olds, news: news
    # Adds values that the provider derives from the inputs and the project's folder.
    check: Callable[[Inputs, Path], Outputs] = field(default=lambda inputs, _: dict(inputs))
    # Returns whether the provider ignores the difference between two values.
    same: Callable[[str, Any, Any], bool] = field(default=lambda _, old, new: bool(old == new))


def last(reference: str) -> str:
    """Returns the last part of a full resource name."""
    return reference.rpartition("/")[2]
