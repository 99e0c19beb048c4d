"""Runs a Pulumi program in this process, with Pulumi's mocks in the engine's place.

https://www.pulumi.com/docs/iac/guides/testing/unit/
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping, Sequence

from pulumi.runtime.config import set_all_config
from pulumi.runtime.mocks import MockMonitor, set_mocks
from pulumi.runtime.settings import SETTINGS, set_root_resource
from pulumi.runtime.stack import run_in_stack

PROJECT = "mlflow-gcp"


def run(
    program: Callable[[], None],
    *,
    monitor: MockMonitor,
    stack: str,
    config: Mapping[str, str],
    secrets: Sequence[str] = (),
    preview: bool = False,
) -> None:
    """Run it to its end. `secrets` are the keys that `pulumi config set --secret` has set."""

    async def declare() -> None:
        # Resources that wait for a failed one fail as well; the first failure is raised.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        logger = logging.getLogger("pulumi")
        set_mocks(monitor.mocks, PROJECT, stack, preview, logger, monitor)
        set_root_resource(None)  # type: ignore[arg-type] # the stack that set_mocks made
        # A run that failed leaves tasks, whose event loop is closed.
        SETTINGS.outputs.clear()
        set_all_config(dict(config), [*secrets])
        await run_in_stack(program)

    contextvars.copy_context().run(asyncio.run, declare())
