"""`make doctor` on a stack that Pulumi's own engine has made."""

from __future__ import annotations

import shlex

import pytest

from infra.settings.reader import load
from operations.doctor.declared import resources
from operations.doctor.findings import Finding, Verdict
from operations.doctor.google import Answer
from operations.doctor.instances import check_instances
from operations.doctor.stack import ask_pulumi, state_of
from tests.engine.deployment import INSTANCE, PROJECT, Deployment


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


def instances(stack: Deployment) -> Finding:
    listed = [{"name": name} for name in stack.cloud.project.databases]
    answer = Answer(status=200, body={"items": listed})
    [found] = check_instances(answer, name="mlflow", state=state_of("prod", stack.project))
    return found


def test_an_instance_that_pulumi_lost_is_taken_over(
    fresh: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fresh.environment.items():
        monkeypatch.setenv(name, value)
    fresh.init()
    fresh.cloud.lost = INSTANCE
    fresh.up(fails=True)
    assert "already exists" in fresh.up(fails=True).errors
    found = instances(fresh)
    assert found.verdict is Verdict.FIX
    command = found.how.removeprefix("take it over: pulumi ").partition(";")[0]
    fresh.pulumi(*shlex.split(command), "--yes")
    fresh.up()
    assert fresh.up().touched == set()
    assert instances(fresh).verdict is Verdict.OK
