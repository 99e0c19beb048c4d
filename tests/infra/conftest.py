from __future__ import annotations

import gc
import socketserver
from collections.abc import Iterator
from threading import Thread

import pytest
from pulumi.runtime import resource
from pulumi.runtime.proto import source_pb2

from tests.infra.declared import ROOT

# A run of the program declares some 60 resources. Half of its time would be spent on searching
# Pulumi's many modules for garbage, and on the lines of code that declare each resource, which no
# test looks at.
gc.set_threshold(100_000, 50, 50)
resource._get_stack_trace = source_pb2.StackTrace


@pytest.fixture(scope="session")
def docker() -> Iterator[str]:
    """The address of something that accepts connections, as a Docker daemon does."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as daemon:
        # Connections must be accepted, or the backlog is soon full.
        Thread(target=daemon.serve_forever).start()
        yield f"tcp://127.0.0.1:{daemon.server_address[1]}"
        daemon.shutdown()


@pytest.fixture(autouse=True)
def project_folder(monkeypatch: pytest.MonkeyPatch, docker: str) -> None:
    """Run in the project's folder, as Pulumi does, on a machine with Docker."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DOCKER_HOST", docker)
