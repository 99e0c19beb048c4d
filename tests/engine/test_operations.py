"""`operations` on a stack that Pulumi's own engine has made, with Pulumi's own output."""

from __future__ import annotations

import subprocess
import sys

from tests.engine.deployment import ROOT, Deployment, copy_of


def operate(deployed: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "operations", *arguments],
        check=False, cwd=deployed.project, env=deployed.environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip


def test_pulumis_output_about_a_stack_is_understood(deployed: Deployment) -> None:
    for name in ("operations", "local", "fake_google"):
        copy_of(ROOT / name, deployed.project / name)
    deployed.pulumi("stack", "select", "prod")
    selected = operate(deployed, "env")
    assert selected.returncode == 0, selected.stderr
    assert "stack prod, which Pulumi has selected" in selected.stderr
    # The last line has the name of the person on this computer.
    assert selected.stdout.splitlines()[:-1] == [
        f"export MLFLOW_TRACKING_URI={deployed.output('tracking_uri')}",
        "export MLFLOW_TRACKING_USERNAME=mlflow",
        f"export MLFLOW_TRACKING_PASSWORD={deployed.output('tracking_password')}",
    ]
    named = operate(deployed, "--stack", "prod", "env", "--format", "direnv")
    sourced = subprocess.run(
        ["bash", "-euc", f"{named.stdout}\nprintf %s $MLFLOW_TRACKING_PASSWORD"],
        check=True, cwd="/", env=deployed.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert sourced.stdout == deployed.output("tracking_password")
    other = operate(deployed, "--stack", "no-such-stack", "env")
    assert (other.returncode, other.stdout) == (1, "")
    assert "Pulumi has no stack 'no-such-stack'" in other.stderr
    # `pulumi up` asks for confirmation, and the test gives none.
    declined = operate(deployed, "rotate")
    assert declined.returncode == 1
    assert "trackingPasswordVersion is 2 now, in Pulumi.prod.yaml." in declined.stdout
    assert "`pulumi config set trackingPasswordVersion 1 --stack prod`" in declined.stderr
    deployed.up()
    # The log can't be read here, and a leaked password is still changed.
    leaked = operate(deployed, "rotate", "--hours", "0")
    assert "isn't known: gcloud isn't logged in" in leaked.stdout
    assert "trackingPasswordVersion is 3 now" in leaked.stdout
