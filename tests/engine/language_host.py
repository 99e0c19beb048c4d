"""The parts that language hosts for Pulumi have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

SAID = 32
"""The exit code of a program that has reported its own error."""


class Host(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs programs in `environment`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        # Keyed by connection, as several commands may be attached.
        self.engines: dict[str, str] = {}

    def Handshake(self, request: Any, context: Any) -> Any:
        self.engines[context.peer()] = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="0.0.0")

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPackagesResponse()

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


def configuration(request: Any) -> dict[str, str]:
    """Returns the variables with the stack's configuration, which every SDK reads."""
    return {
        "PULUMI_CONFIG": json.dumps(dict(request.config)),
        "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
    }


@contextmanager
def serve(language: str, host: Host) -> Iterator[str]:
    """Yield the value of PULUMI_DEBUG_LANGUAGES."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"{language}:{port}"
    finally:
        server.stop(grace=None).wait()
