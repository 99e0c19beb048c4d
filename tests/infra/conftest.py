from __future__ import annotations

import pytest

from tests.infra.declared import ROOT


@pytest.fixture(autouse=True)
def project_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi runs the program in its own folder."""
    monkeypatch.chdir(ROOT)
