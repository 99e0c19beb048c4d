"""`make doctor` on a stack that Pulumi's own engine has made: it finds everything in place."""

from __future__ import annotations

import pytest

from infra.settings.reader import load
from operations.doctor.declared import resources
from operations.doctor.stack import ask_pulumi, state_of
from tests.engine.deployment import PROJECT, Deployment


def test_all_that_would_be_declared_is_there_once_it_is_up(
    shared: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shared.environment.items():
        monkeypatch.setenv(name, value)
    assert ask_pulumi(selected=True, folder=shared.project).selected == "prod"
    state = state_of("prod", shared.project)
    declared = {each.key for each in resources(load({"gcp:project": PROJECT}))}
    more = {kind for kind, _ in state.made - declared}
    assert declared <= state.made
    assert all(kind.startswith(("pulumi:", "mlflow-gcp:infra:")) for kind in more), more
    assert state_of("no-such-stack", shared.project).exists is False
