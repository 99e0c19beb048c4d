"""What the settings declare, asked of the program itself: nothing is created.

So the permissions, the names and the APIs that are looked at are those of `infra/`, also after it
has changed.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime import rpc
from pulumi.runtime.config import set_all_config
from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs, Mocks, set_mocks
from pulumi.runtime.settings import set_root_resource
from pulumi.runtime.stack import run_in_stack

from infra.deployment import declare
from infra.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Resource:
    type: str
    # The program's own for it, which ends its URN.
    name: str
    # What is known before anything exists.
    inputs: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        return self.type, self.name


class _Preview(Mocks):
    def __init__(self) -> None:
        self.resources: list[Resource] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        if args.custom:
            known = {key: value for key, value in args.inputs.items() if _known(value)}
            self.resources.append(Resource(type=args.typ, name=args.name, inputs=known))
        return None, dict(args.inputs)

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        return {}, []


def _known(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_known, value.values()))
    if isinstance(value, list):
        return all(map(_known, value))
    return not (isinstance(value, pulumi.output.Unknown) or value == rpc.UNKNOWN)


def resources(settings: Settings) -> tuple[Resource, ...]:
    return contextvars.copy_context().run(_resources, settings)


def _resources(settings: Settings) -> tuple[Resource, ...]:
    mocks = _Preview()

    async def program() -> None:
        set_mocks(mocks, "mlflow-gcp", "doctor", True, logging.getLogger("pulumi"))
        set_root_resource(None)  # type: ignore[arg-type] # the stack that set_mocks made
        # A daemon by ssh is none that the program asks for: tools.py does.
        set_all_config({"gcp:project": settings.project, "docker:host": "ssh://not-asked"})
        await run_in_stack(lambda: _declare(settings))

    asyncio.run(program())
    return tuple(mocks.resources)


def _declare(settings: Settings) -> None:
    declare(settings)
