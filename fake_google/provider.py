"""Serves `fake_google/cloud.py` through Pulumi's provider protocol, for Pulumi's own engine.

Each package has a server, which `PULUMI_DEBUG_PROVIDERS` names:
https://github.com/pulumi/pulumi/blob/master/proto/pulumi/provider.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from fake_google.cloud import Cloud
from fake_google.errors import BootRefused
from fake_google.resource_types import KINDS
from fake_google.state import LocalError

PACKAGES = ("gcp", "random", "docker", "command")


def _plain(value: Any) -> Any:
    """Converts a value from protocol buffers, which have no integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _dict(message: struct_pb2.Struct) -> dict[str, Any]:
    # Values that Python leaves unset arrive as null.
    return {
        key: value for key, value in _plain(MessageToDict(message)).items() if value is not None
    }


def _struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    return ParseDict(values, struct_pb2.Struct())


class _Provider(provider_pb2_grpc.ResourceProviderServicer):
    """Serves one package. Secrets arrive in plain text; the engine keeps track of them."""

    def __init__(self, cloud: Cloud, folder: Path, package: str) -> None:
        self._cloud, self._folder = cloud, folder
        # The engine warns about a version that differs from the program's.
        self._version = version(f"pulumi-{package}")

    def Attach(self, request: Any, context: Any) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def Handshake(self, request: Any, context: Any) -> provider_pb2.ProviderHandshakeResponse:
        return provider_pb2.ProviderHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self._version)

    def CheckConfig(self, request: Any, context: Any) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> provider_pb2.DiffResponse:
        return provider_pb2.DiffResponse()

    def Configure(self, request: Any, context: Any) -> provider_pb2.ConfigureResponse:
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Invoke(self, request: Any, context: Any) -> provider_pb2.InvokeResponse:
        try:
            answer = self._cloud.invoke(request.tok, _dict(request.args))
        except LocalError as error:
            _refuse(context, error)
        return provider_pb2.InvokeResponse(**{"return": _struct(answer)})

    def Check(self, request: Any, context: Any) -> provider_pb2.CheckResponse:
        inputs = self._cloud.check(request.type, _dict(request.news), folder=self._folder)
        return provider_pb2.CheckResponse(inputs=_struct(inputs))

    def Diff(self, request: Any, context: Any) -> provider_pb2.DiffResponse:
        olds, news = _dict(request.old_inputs), _dict(request.news)
        difference = self._cloud.diff(request.type, olds, news)
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=some if difference.changed else none,
            diffs=difference.changed,
            replaces=difference.replaces,
            deleteBeforeReplace=difference.delete_first,
        )

    def Create(self, request: Any, context: Any) -> provider_pb2.CreateResponse:
        inputs = _dict(request.properties)
        if request.preview:
            # In a preview, Google's outputs are unknown and left out.
            return provider_pb2.CreateResponse(properties=request.properties)
        try:
            made, outputs = self._cloud.create(request.type, request.name, inputs)
        except BootRefused as error:
            _refuse_half_made(context, error, inputs)
        except LocalError as error:
            _refuse(context, error)
        return provider_pb2.CreateResponse(id=made, properties=_struct(outputs))

    def Read(self, request: Any, context: Any) -> provider_pb2.ReadResponse:
        if request.type in KINDS and KINDS[request.type].kept:
            return provider_pb2.ReadResponse(
                id=request.id, inputs=request.inputs, properties=request.properties
            )
        found, untold = request.id, frozenset[str]()
        # Without inputs, no state has the resource yet: it is being imported.
        if not request.inputs.fields and request.type in KINDS:
            kind = KINDS[request.type]
            found, untold = kind.imported(request.id), kind.untold
        live = self._cloud.project.read(request.type, found)
        if live is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(
            id=found,
            inputs=_struct({k: v for k, v in live.inputs.items() if k not in untold}),
            properties=_struct({k: v for k, v in live.outputs.items() if k not in untold}),
        )

    def Update(self, request: Any, context: Any) -> provider_pb2.UpdateResponse:
        olds, news = _dict(request.olds), _dict(request.news)
        if request.preview:
            renewed = KINDS[request.type].renewed if request.type in KINDS else frozenset()
            kept = {key: value for key, value in olds.items() if key not in renewed}
            return provider_pb2.UpdateResponse(properties=_struct({**kept, **news}))
        try:
            outputs = self._cloud.update(
                request.type, request.id, request.name, olds=olds, news=news
            )
        except BootRefused as error:
            _refuse_half_made(context, error, news)
        except LocalError as error:
            _refuse(context, error)
        return provider_pb2.UpdateResponse(properties=_struct(outputs))

    def Delete(self, request: Any, context: Any) -> empty_pb2.Empty:
        try:
            self._cloud.delete(request.type, request.id, _dict(request.properties))
        except LocalError as error:
            _refuse(context, error)
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> empty_pb2.Empty:
        return empty_pb2.Empty()


def _refuse(context: Any, error: LocalError) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, str(error))
    raise AssertionError  # abort raises


def _refuse_half_made(context: Any, error: BootRefused, inputs: Mapping[str, Any]) -> NoReturn:
    """Reports a resource that exists but doesn't work; the engine keeps it for the next run."""
    detail = provider_pb2.ErrorResourceInitFailed(
        id=error.resource_id,
        properties=_struct({**inputs, **error.outputs}),
        inputs=_struct(inputs),
        reasons=[str(error)],
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
    status.details.add().Pack(detail)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    _refuse(context, error)


@contextmanager
def serve(cloud: Cloud, *, folder: Path) -> Iterator[str]:
    """Serves all packages on free ports, and yields the value for PULUMI_DEBUG_PROVIDERS."""
    servers, ports = [], []
    for package in PACKAGES:
        server = grpc.server(ThreadPoolExecutor(max_workers=16))
        provider = _Provider(cloud, folder, package)
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
        ports.append(f"{package}:{server.add_insecure_port('127.0.0.1:0')}")
        server.start()
        servers.append(server)
    try:
        yield ",".join(ports)
    finally:
        for server in servers:
            server.stop(grace=None).wait()
