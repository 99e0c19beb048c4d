"""A language host for Node.js: Pulumi's own can't be had as a Go module.

Like Pulumi's own, it runs programs with the SDK's `cmd/run`, generates packages' SDKs with Pulumi's
generator, and installs with npm:
https://github.com/pulumi/pulumi/blob/master/sdk/nodejs/cmd/pulumi-language-nodejs/main.go
npm only takes what is installed already, so that tests don't depend on its registry.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pulumi.runtime.proto import language_pb2

from tests.engine import language_host
from tests.engine.language_host import SAID, Host, configuration


class _Host(Host):
    def __init__(self, generator: Path, environment: Mapping[str, str]) -> None:
        super().__init__(environment)
        self._generator = generator

    def GeneratePackage(self, request: Any, context: Any) -> Any:
        self._run(
            request.directory,
            *(str(self._generator), request.loader_target, request.directory),
            given=request.schema,
        )
        return language_pb2.GeneratePackageResponse()

    def Link(self, request: Any, context: Any) -> Any:
        folder = request.info.program_directory
        for each in request.packages:
            dependency = f"dependencies.@pulumi/{each.package.name}=file:{each.path}"
            self._run(folder, "npm", "pkg", "set", dependency)
        return language_pb2.LinkResponse()

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:
        self._run(request.info.program_directory, "npm", "install", "--offline", "--no-audit")
        return iter(())

    def Run(self, request: Any, context: Any) -> Any:
        folder = Path(request.info.program_directory)
        arguments = {
            "monitor": request.monitor_address,
            "engine": self.engines[context.peer()],
            "organization": request.organization,
            "project": request.project,
            "root-directory": request.info.root_directory,
            "stack": request.stack,
            "pwd": str(folder),
            "parallel": str(request.parallel),
        }
        command = ["node", str(folder / "node_modules" / "@pulumi" / "pulumi" / "cmd" / "run")]
        command += [part for key, value in arguments.items() for part in (f"--{key}", value)]
        command += ["--dry-run"] if request.dryRun else []
        environment = {
            **self.environment,
            **configuration(request),
            "PULUMI_NODEJS_TYPESCRIPT": "true",
        }
        with subprocess.Popen(
            [*command, request.info.entry_point, *request.args],
            cwd=folder, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as program:  # fmt: skip
            if not context.add_callback(program.terminate):
                program.terminate()
            printed, _ = program.communicate()
        if program.returncode == SAID:
            return language_pb2.RunResponse(bail=True)
        error = f"exit code {program.returncode}: {printed}" if program.returncode else ""
        return language_pb2.RunResponse(error=error)

    def _run(self, folder: str, *command: str, given: str = "") -> None:
        done = subprocess.run(
            command, cwd=folder, env=self.environment, check=False, input=given,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}")


def serve(generator: Path, environment: Mapping[str, str]) -> AbstractContextManager[str]:
    """Yield the value of PULUMI_DEBUG_LANGUAGES. Programs run in this environment."""
    return language_host.serve("nodejs", _Host(generator, environment))
