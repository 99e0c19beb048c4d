"""Runs a Pulumi program in this process, with Pulumi's mocks instead of the engine.

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
    """Runs the program to its end. `secrets` are keys set with `pulumi config set --secret`."""

    async def declare() -> None:
        # Resources that depend on a failed one fail too; only the first failure is raised.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        logger = logging.getLogger("pulumi")
        set_mocks(monitor.mocks, PROJECT, stack, preview, logger, monitor)
        set_root_resource(None)  # type: ignore[arg-type] # the stack that set_mocks made
        # A failed run leaves tasks behind whose event loop is closed.
        SETTINGS.outputs.clear()
        set_all_config(dict(config), [*secrets])
        await run_in_stack(program)

    contextvars.copy_context().run(asyncio.run, declare())
