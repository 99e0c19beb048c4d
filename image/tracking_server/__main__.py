"""Starts the server: settings, secrets, then MLflow behind the gate.

A revision that has booted before serves while MLflow is still being imported: hot routes, the
page's files and probes don't need it, and all other requests wait.
"""

import asyncio
import gc
import logging
import os
import resource
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING

# Garbage collection while a thousand modules are imported takes a third as long as the imports.
gc.disable()

from tracking_server import logs, middleware  # noqa: E402
from tracking_server.boot import known, secrets, settings  # noqa: E402
from tracking_server.boot.secrets import SecretValues  # noqa: E402
from tracking_server.boot.settings import ServerSettings  # noqa: E402
from tracking_server.errors import BootError  # noqa: E402
from tracking_server.hot_routes.connections import FAILURES  # noqa: E402
from tracking_server.hot_routes.request import NotHot  # noqa: E402
from tracking_server.hot_routes.statements import SCHEMA_REVISION  # noqa: E402
from tracking_server.outgoing import hidden_identity  # noqa: E402
from tracking_server.serve import memory, server, workers  # noqa: E402

if TYPE_CHECKING:
    from tracking_server.mlflow.app import Mlflow

MAX_FILES = 64 * 1024
"""Open files and connections, if the system allows that many."""

LONGEST_START = 240.0
"""Seconds, as many as Cloud Run allows:
https://cloud.google.com/run/docs/configuring/healthchecks#startup-probes"""

STARTED = perf_counter()

log = logging.getLogger("tracking_server")


class TrackingServer:
    """What one process serves, with MLflow, which another thread imports.

    With a `revision`, requests are accepted before the import has finished if that revision has
    booted before. Without one, this waits for the import.
    """

    def __init__(
        self,
        config: ServerSettings,
        values: SecretValues,
        imported: "Future[Mlflow]",
        *,
        revision: str | None,
    ) -> None:
        self._imported, self._revision, self._is_known = imported, revision, False
        self._layers = middleware.assemble(config, values, None if revision else imported.result())
        self.asgi = self._layers.app
        self._close: list[Callable[[], Awaitable[None]]] = []

    async def is_ready_early(self) -> bool:
        """Whether this revision has booted before, and the database still has its schema."""
        if self._revision and (database := self._layers.database):
            with suppress(NotHot, ValueError, *FAILURES):
                await database.open()
                [row] = await database.fetch(known.IS_KNOWN, SCHEMA_REVISION, self._revision)
                self._is_known = row["known"]
        return self._is_known

    async def start(self) -> None:
        """Wait for MLflow, and let requests reach it.

        Raises:
            BootError: with one line that says what is missing.
        """
        try:
            async with asyncio.timeout(LONGEST_START):
                mlflow = await asyncio.wrap_future(self._imported)
        except BaseException as error:
            middleware.give_up(self._layers)
            if isinstance(error, TimeoutError):
                raise BootError(
                    f"MLflow isn't ready after {LONGEST_START:.0f} s: start this server again"
                ) from error
            raise
        self._close.append(middleware.connect(self._layers, mlflow))
        gc.freeze()
        gc.enable()
        log.info("booted in %.2f s", perf_counter() - STARTED)
        if self._revision and not self._is_known and (database := self._layers.hot.database):
            with suppress(NotHot, *FAILURES):
                await database.fetch(known.REMEMBER, self._revision)

    async def stop(self) -> None:
        """Close the connections."""
        if self._layers.database:
            await self._layers.database.close()
        for close in self._close:
            await close()


def main() -> int:
    """Run the server. Returns 0 after SIGTERM, 1 if the boot or the server fails."""
    # A core dump would hold every secret.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Each connection uses a file descriptor; without a free one nobody is served.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_FILES), most))
    memory.give_back_large_blocks()
    logs.configure(os.environ.get("GCP_PROJECT"))
    log.info("mlflow-gcp %s, MLflow %s", version("tracking-server"), version("mlflow"))
    try:
        config = settings.load(os.environ)
        hidden_identity.hide_from_mlflow()
        return _run_one(config) if config.processes == 1 else _run_many(config)
    except BootError as error:
        log.critical("%s", error)
    except Exception:
        log.critical("the server has failed", exc_info=True)
    return 1


def _run_one(config: ServerSettings) -> int:
    threads = ThreadPoolExecutor(2, thread_name_prefix="boot")
    fetched = threads.submit(secrets.fetch, config)
    imported = threads.submit(_import_mlflow, config, fetched.result)
    revision = known.revision(os.environ, config)
    return _serve(TrackingServer(config, fetched.result(), imported, revision=revision), config)


def _run_many(config: ServerSettings) -> int:
    """Import MLflow once, and fork the processes, which share the memory of the modules."""
    from tracking_server.mlflow import app

    with ThreadPoolExecutor(1, thread_name_prefix="boot") as threads:
        fetched = threads.submit(secrets.fetch, config)
        flask = app.prepare(config, fetched.result)
    values = fetched.result()
    gc.freeze()

    def run() -> int:
        built: Future[Mlflow] = Future()
        built.set_result(app.build(config, flask, values))
        return _serve(TrackingServer(config, values, built, revision=None), config)

    return workers.run(config.processes, run)


def _import_mlflow(config: ServerSettings, fetched: Callable[[], SecretValues]) -> "Mlflow":
    from tracking_server.mlflow import app

    return app.build(config, app.prepare(config, fetched), fetched())


def _serve(tracking_server: TrackingServer, config: ServerSettings) -> int:
    from tracking_server.database import engines

    server.run(tracking_server, address=config.bind_address, port=config.port)
    engines.close_pool()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    code = main()
    # Fails if nobody reads the log any more or its disk is full; there is nowhere to report that.
    with suppress(OSError):
        sys.stdout.flush()
    # A normal exit would abort, because granian's threads still call into the interpreter.
    os._exit(code)
