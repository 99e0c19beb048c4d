"""A language host for Python: Pulumi's own can't be had as a Go module.

Like Pulumi's own, it runs the program with Pulumi's `pulumi-language-python-exec`:
https://github.com/pulumi/pulumi/blob/master/sdk/python/cmd/pulumi-language-python/main.go
It doesn't find plug-ins or generate code, and programs run in the tests' environment. Each run is
forked from a process that has imported the SDK, which takes half as long as a new process. The
engine attaches to the host by `PULUMI_DEBUG_LANGUAGES`.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from multiprocessing import get_context, parent_process
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from tempfile import NamedTemporaryFile
from threading import Thread
from typing import Any

import grpc
import pulumi
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
)

from tests.engine import language_host
from tests.engine.language_host import SAID, Host, configuration

ROOT = Path(__file__).parents[2]

_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__, "tests.engine.preloaded"])


class _Host(Host):
    def __init__(self, executor: Path, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._executor = executor

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPluginsResponse()

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:
        """Use the tests' own environment."""
        root = Path(request.info.root_directory)
        (root / request.info.options["virtualenv"]).symlink_to(sys.prefix)
        return iter(())

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:
        """Run a component's program until the engine ends the call."""
        root = request.info.program_directory
        environment = {**self.environment, **dict(each.split("=", 1) for each in request.env)}
        with Popen(
            [sys.executable, "-u", root, *request.args],
            cwd=request.pwd, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT,
        ) as program:  # fmt: skip
            if not context.add_callback(program.terminate):
                program.terminate()
            assert program.stdout
            for line in program.stdout:
                yield language_pb2.RunPluginResponse(stdout=line)
        yield language_pb2.RunPluginResponse(exitcode=program.returncode)

    def Run(self, request: Any, context: Any) -> Any:
        root, engine = Path(request.info.root_directory), self.engines[context.peer()]
        virtualenv = root / request.info.options["virtualenv"]
        if virtualenv.resolve() != Path(sys.prefix).resolve():
            return language_pb2.RunResponse(error=f"{virtualenv} is not {sys.prefix}")
        arguments = {
            "monitor": request.monitor_address,
            "engine": engine,
            "project": request.project,
            "root_directory": str(root),
            "stack": request.stack,
            "pwd": request.pwd,
            "dry_run": str(request.dryRun).lower(),
            "parallel": str(request.parallel),
            "organization": request.organization,
        }
        given = [part for key, value in arguments.items() if value for part in (f"--{key}", value)]
        environment = {
            **self.environment,
            **configuration(request),
        }
        argv = [str(self._executor), *given, request.info.entry_point, *request.args]
        with NamedTemporaryFile() as printed:
            program = _PROCESSES.Process(
                target=_run, args=(argv, environment, printed.name), daemon=True
            )
            program.start()
            # Once its engine is killed or cancelled, the program has nothing to do.
            if not context.add_callback(program.terminate):
                program.terminate()
            program.join()
            if text := printed.read().decode(errors="replace"):
                _say(engine, text)
        if program.exitcode == SAID:
            return language_pb2.RunResponse(bail=True)
        code = program.exitcode
        error = f"program exited with non-zero exit code: {code}" if code else ""
        return language_pb2.RunResponse(error=error)


def _end_with_the_tests() -> None:
    """End with the tests: they take the host down, and the program would wait for an engine."""
    tests = parent_process()
    assert tests
    tests.join()
    os._exit(1)


def _run(argv: list[str], environment: dict[str, str], printed: str) -> None:
    """Run `python -u argv` in this process."""
    Thread(target=_end_with_the_tests, daemon=True).start()
    with open(printed, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    # The engine drops these messages unless it has --debug, but each is a call that the program
    # waits for: https://github.com/pulumi/pulumi/blob/master/sdk/python/lib/pulumi/log.py
    pulumi.log.debug = lambda *_, **__: None
    # The program must not import from this checkout what its clone lacks.
    assert "infra" not in sys.modules
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != ROOT]
    sys.path[:] = [str(Path(argv[0]).parent), *elsewhere]
    runpy.run_path(argv[0], run_name="__main__")


def _say(engine: str, text: str) -> None:
    with grpc.insecure_channel(engine) as channel:
        engine_pb2_grpc.EngineStub(channel).Log(
            engine_pb2.LogRequest(severity=engine_pb2.INFO, message=text)
        )


def serve(executor: Path, environment: Mapping[str, str]) -> AbstractContextManager[str]:
    """Yield the value of PULUMI_DEBUG_LANGUAGES. Programs run in this environment."""
    return language_host.serve("python", _Host(executor, environment))
