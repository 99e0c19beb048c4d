"""What the layer shares: Google's stand-ins and a real Postgres, both for the session."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.server.google import Google

# Here and not in a fixture: google-auth reads the metadata server's address when it is imported.
_folder = TemporaryDirectory(prefix="mlflow-gcp-test-")
_google = Google(Path(_folder.name))


@pytest.fixture
def google() -> Iterator[Google]:
    yield _google
    _google.answer_next("", 0)


def pytest_sessionfinish() -> None:
    _google.close()
    _folder.cleanup()
