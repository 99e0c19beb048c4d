"""The manual's own commands, one after the other, on Pulumi's engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs import programs
from tests.engine.deployment import SERVICE, Deployment
from tests.page_commands import commands, run, stand_in


class Reader:
    """Runs the pages' commands in one folder; commands other than Pulumi's are only checked."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment, self.log = deployment, folder / "log"
        script = programs.STAND_IN.format(log=self.log)
        for name in ("gcloud", "gh", "make", "pip"):
            stand_in(folder / "bin", name, script)
        self.environment = {**deployment.environment, "PULUMI_SKIP_CONFIRMATIONS": "true"}

    def types(self, *blocks: Sequence[str]) -> str:
        text = "".join(block for each in blocks for block in each)
        # One `up` is enough for several settings if no command in between reads outputs.
        *earlier, last = re.split(r"^(?=pulumi up\b)", text, flags=re.M)
        text = "".join(re.sub(r"\Apulumi up\b.*", "", piece) for piece in earlier) + last
        return run(text, folder=self.deployment.project, environment=self.environment)

    def started(self) -> list[list[str]]:
        found = list(programs.started(self.log))
        assert [said for argv in found if (said := programs.judged(argv))] == []
        return found


@pytest.fixture
def reader(fresh: Deployment, tmp_path: Path) -> Reader:
    return Reader(fresh, tmp_path)


def test_the_manual_from_the_first_deployment(reader: Reader) -> None:
    cloud = reader.deployment.cloud
    said = reader.types(commands("README.md", "On Google Cloud"))
    first = reader.deployment.output("tracking_password", "dev")
    assert "https://mlflow-" in said
    assert first in said

    # The accounts that get access must exist.
    cloud.create("gcp:serviceaccount/account:Account", "train", {"accountId": "train"})
    said = reader.types(
        commands("docs/scaling.md", "Finding the bottleneck"),
        commands("docs/scaling.md", "Changing it"),
        commands("docs/access.md", "Choosing who can reach the server"),
        commands("docs/access.md", "Logging in from a program"),
        commands("docs/deploying.md", "A domain of your own"),
    )
    assert cloud.one(SERVICE)["scaling"]["maxInstanceCount"] == 10
    assert cloud.one(SERVICE)["iapEnabled"] is True
    assert said.splitlines().count(reader.deployment.output("load_balancer_address", "dev")) == 1

    reader.types(
        commands("docs/incidents.md", "Incidents"),
        commands("docs/incidents.md", "A leaked password"),
        commands("docs/incidents.md", "Lock the server down"),
        commands("docs/incidents.md", "Find out who did what"),
        commands("docs/incidents.md", "The server returns 5xx"),
        commands("docs/github.md", "The main branch"),
    )
    reader.types(commands("docs/github.md", "Previews of pull requests"))
    assert reader.deployment.output("tracking_password", "dev") != first
    assert not cloud.one(SERVICE).get("iapEnabled")
    told = {
        (argv[5], argv[3]): argv[-1]
        for argv in reader.started()
        if argv[1:3] == ["variable", "set"] and argv[4] == "--env"
    }
    for environment in ("deploy", "review"):
        account = reader.deployment.output(f"github_{environment}_account", "dev")
        assert told[environment, "DEPLOY_ACCOUNT"] == account
        provider = reader.deployment.output("github_provider", "dev")
        assert told[environment, "DEPLOY_PROVIDER"] == provider
        assert told[environment, "PULUMI_STACK"] == "dev"
