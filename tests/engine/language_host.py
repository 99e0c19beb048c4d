"""A language host for Python: Pulumi's own is not to be had as a Go module.

The engine finds it on PATH as `pulumi-language-python`. Like Pulumi's own it starts the virtual
environment of Pulumi.yaml with `pulumi-language-python-exec`, which is Pulumi's:
https://github.com/pulumi/pulumi/blob/master/sdk/python/cmd/pulumi-language-python/main.go
What that does beside it (installing packages, finding plug-ins, generating code) is left out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

# The exit code of a program that has said itself what is wrong.
_SAID = 32


class _Host(language_pb2_grpc.LanguageRuntimeServicer):
    def __init__(self, *, engine: str, executor: Path) -> None:
        self._engine, self._executor = engine, executor
        self.program: subprocess.Popen[bytes] | None = None

    def Handshake(self, request: Any, context: Any) -> Any:
        self._engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="0.0.0")

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPluginsResponse()

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPackagesResponse()

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Run(self, request: Any, context: Any) -> Any:
        options = request.info.options
        root = Path(request.info.root_directory)
        arguments = {
            "monitor": request.monitor_address,
            "engine": self._engine,
            "project": request.project,
            "root_directory": str(root),
            "stack": request.stack,
            "pwd": request.pwd,
            "dry_run": str(request.dryRun).lower(),
            "parallel": str(request.parallel),
            "organization": request.organization,
        }
        given = [part for key, value in arguments.items() if value for part in (f"--{key}", value)]
        self.program = subprocess.Popen(
            [
                root / options["virtualenv"] / "bin" / "python",
                *("-u", self._executor, *given),
                *(request.info.entry_point, *request.args),
            ],
            env={
                **os.environ,
                "PULUMI_CONFIG": json.dumps(dict(request.config)),
                "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
            },
        )
        code = self.program.wait()
        if code == _SAID:
            return language_pb2.RunResponse(bail=True)
        error = f"program exited with non-zero exit code: {code}" if code else ""
        return language_pb2.RunResponse(error=error)


def main() -> None:
    executor, engine = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    cli = os.getppid()
    host = _Host(engine=engine, executor=executor)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)

    def stop(*_: object) -> None:
        # The engine waits for the whole group, and the program for an engine that is gone.
        if host.program and host.program.poll() is None:
            host.program.kill()
        os._exit(0)

    # How the engine tells a plug-in to stop.
    signal.signal(signal.SIGINT, stop)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    # A killed engine can't say goodbye.
    while os.getppid() == cli:
        time.sleep(0.2)
    if host.program and host.program.poll() is None:
        host.program.terminate()
    os._exit(1)


if __name__ == "__main__":
    main()
