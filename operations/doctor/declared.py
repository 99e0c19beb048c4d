"""Finds out what the settings declare, by running the program itself; nothing is created.

The checks of permissions, names and APIs therefore follow every change of `infra/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks

from infra.deployment import declare
from infra.settings.schema import Settings
from local import mocks


@dataclass(frozen=True, kw_only=True)
class Resource:
    type: str
    # Its name in the program, the last part of its URN.
    name: str
    # The inputs that are known before anything exists.
    inputs: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.type, self.name


class _Preview(Mocks):
    def __init__(self) -> None:
        self.resources: list[Resource] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.custom:
            self.resources.append(
                Resource(type=args.typ, name=args.name, inputs=_known(args.inputs))
            )
        return None, dict(args.inputs)

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        return {}, []


def _known(value: Any) -> Any:
    """Returns the value without the parts that aren't known yet."""
    if isinstance(value, Mapping):
        return {key: _known(item) for key, item in value.items() if not _is_unknown(item)}
    if isinstance(value, list):
        return [_known(item) for item in value if not _is_unknown(item)]
    return value


def _is_unknown(value: Any) -> bool:
    return isinstance(value, pulumi.output.Unknown) or value == rpc.UNKNOWN


def resources(settings: Settings) -> tuple[Resource, ...]:
    preview = _Preview()

    def program() -> None:
        declare(settings)

    # With ssh:// the program doesn't look for a Docker daemon; tools.py does.
    config = {"gcp:project": settings.project, "docker:host": "ssh://not-asked"}
    mocks.run(program, monitor=MockMonitor(preview), stack="doctor", config=config, preview=True)
    return tuple(preview.resources)
