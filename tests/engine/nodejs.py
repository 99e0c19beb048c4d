"""A language host for Node.js: Pulumi's own can't be had as a Go module.

Like Pulumi's own, it runs programs with the SDK's `cmd/run`, generates packages' SDKs with Pulumi's
generator, and installs with npm:
https://github.com/pulumi/pulumi/blob/master/sdk/nodejs/cmd/pulumi-language-nodejs/main.go
npm only takes what is installed already, so that tests don't depend on its registry.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

# Exit code of a program that has reported its own error.
_SAID = 32


class _Host(language_pb2_grpc.LanguageRuntimeServicer):
    def __init__(self, generator: Path, environment: Mapping[str, str]) -> None:
        self._generator, self._environment = generator, environment
        # Keyed by connection, as several commands may be attached.
        self._engines: dict[str, str] = {}

    def Handshake(self, request: Any, context: Any) -> Any:
        self._engines[context.peer()] = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="0.0.0")

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPackagesResponse()

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

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Run(self, request: Any, context: Any) -> Any:
        folder = Path(request.info.program_directory)
        arguments = {
            "monitor": request.monitor_address,
            "engine": self._engines[context.peer()],
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
            **self._environment,
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
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
        if program.returncode == _SAID:
            return language_pb2.RunResponse(bail=True)
        error = f"exit code {program.returncode}: {printed}" if program.returncode else ""
        return language_pb2.RunResponse(error=error)

    def _run(self, folder: str, *command: str, given: str = "") -> None:
        done = subprocess.run(
            command, cwd=folder, env=self._environment, check=False, input=given,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}")


@contextmanager
def serve(generator: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the value of PULUMI_DEBUG_LANGUAGES. Programs run in this environment."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(_Host(generator, environment), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"nodejs:{port}"
    finally:
        server.stop(grace=None).wait()
