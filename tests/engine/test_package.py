"""The component in a program in YAML, as `pulumi package add` makes it available."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from infra.settings.schema import listed
from tests.engine.deployment import BUCKET, INSTANCE, PROJECT, ROOT, SERVICE, Deployment


@pytest.fixture
def program(fresh: Deployment) -> Deployment:
    """The example's program, with the package next to the folders as if it were installed."""
    package, project = fresh.folder / "package", fresh.project
    shutil.copytree(ROOT / "package", package)
    (project / "infra").rename(package / "mlflow_gcp")
    (project / "image").rename(package / "mlflow_gcp" / "container")
    text = (ROOT / "examples" / "yaml" / "Pulumi.yaml").read_text()
    (project / "Pulumi.yaml").write_text(text.replace("../../package", str(package)))
    fresh.pulumi("stack", "init", "prod")
    return fresh


def test_a_program_in_yaml_goes_up_and_down(program: Deployment) -> None:
    program.configure(**{"gcp:project": PROJECT})
    program.up()
    assert program.cloud.one(SERVICE)["template"]["scaling"]["minInstanceCount"] == 1
    assert program.output("trackingUri").startswith("https://research-")
    assert program.output("trackingPassword")
    assert {BUCKET, INSTANCE} <= program.cloud.counts().keys()
    assert program.up().touched == set()
    program.destroy()
    assert not program.cloud.project.live


def test_the_schema_has_every_setting(program: Deployment) -> None:
    package = program.folder / "package"
    schema = json.loads(program.pulumi("package", "get-schema", str(package)).stdout)
    assert re.fullmatch(r"\d+\.\d+\.\d+(-\w+)?", schema["version"])
    inputs = schema["resources"]["mlflow-gcp:index:TrackingServer"]["inputProperties"]
    assert inputs.keys() == {each.key for each in listed() if each.is_argument}
