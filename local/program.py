"""Runs the unmodified `__main__.py` in this process, against `fake_google/cloud.py`.

Pulumi's mocks connect the two, in place of Pulumi's engine.
"""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockMonitor

from fake_google.cloud import Cloud
from fake_google.state import LocalError
from infra.settings.refusals import Command, Remedy, Remove, SettingsError
from infra.settings.refusals import plain as plain_value
from local import mocks

STACK = "local"
_START = ".venvs/program/bin/python -m local run"
# The keys that `pulumi config set --secret` would set. Their values stay inside `.local/`.
SECRET_KEYS = ["mlflow-gcp:trackingPassword", "mlflow-gcp:viewerPassword"]


def plain(value: Any) -> Any:
    """Returns a value without the wrapping that marks secrets."""
    if rpc.is_rpc_secret(value):
        return plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _command(remedy: Remedy) -> str:
    """Returns the command for a remedy, for this computer, where there is no Pulumi stack."""
    if isinstance(remedy, Remove):
        return f"{_START} (without --config {remedy.key}=...)"
    if isinstance(remedy.value, Command):
        return f'{_START} --config "{remedy.key}=$({remedy.value.text})"'
    value = remedy.value
    text = json.dumps(value) if isinstance(value, tuple) else plain_value(value)
    return f"{_START} --config {shlex.quote(f'{remedy.key}={text}')}"


class _Mocks(pulumi.runtime.Mocks):
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.failure: Exception | None = None

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[str, Any]]:
        if not args.custom:  # a component: only its children are created
            return "", dict(args.inputs)
        # Create nothing after a failure, so that the first failure is reported.
        if self.failure is not None:
            raise self.failure
        try:
            return self._cloud.ensure(args.typ, args.name, plain(args.inputs))
        except Exception as error:
            self.failure = error
            raise

    def call(
        self, args: pulumi.runtime.MockCallArgs
    ) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        try:
            return self._cloud.invoke(args.token, plain(args.args)), []
        except Exception as error:
            self.failure = self.failure or error
            raise


class _Monitor(MockMonitor):
    def __init__(self, mocks: _Mocks) -> None:
        super().__init__(mocks)
        self.outputs: dict[str, Any] = {}

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if "::pulumi:pulumi:Stack::" in request.urn:
            self.outputs = plain(rpc.deserialize_properties(request.outputs))
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


def run(*, main: Path, cloud: Cloud, config: Mapping[str, str]) -> dict[str, Any]:
    """Runs the program and returns its outputs, with secrets in plain text."""
    made = _Mocks(cloud)
    monitor = _Monitor(made)
    root = str(main.parent)
    if root not in sys.path:
        sys.path.insert(0, root)

    def program() -> None:
        runpy.run_path(str(main), run_name="__main__")

    try:
        mocks.run(program, monitor=monitor, stack=STACK, config=config, secrets=SECRET_KEYS)
    except SettingsError as error:
        raise LocalError(str(SettingsError(error.refusals, _command))) from None
    except pulumi.RunError as error:
        raise LocalError(str(error)) from None
    except Exception:
        if isinstance(made.failure, LocalError):
            raise made.failure from None
        raise
    if made.failure is not None:
        raise made.failure
    return monitor.outputs
