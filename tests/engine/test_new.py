"""`pulumi new` with this project as the template."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.engine.deployment import PROGRAM, PROJECT, ROOT, Deployment, copy_of


@pytest.fixture
def template(tmp_path: Path) -> Path:
    folder = tmp_path / "template"
    (folder / ".git").mkdir(parents=True)
    for name in PROGRAM:
        copy_of(ROOT / name, folder / name)
    return folder


def test_a_new_project_has_the_settings_that_it_asked_for(
    fresh: Deployment, template: Path
) -> None:
    project = fresh.folder / "new"
    fresh.pulumi(
        *("new", str(template), "--dir", str(project), "--stack", "dev", "--yes"),
        *("--config", f"gcp:project={PROJECT}", "--config", "mlflow-gcp:access=internal"),
    )
    config = yaml.safe_load((project / "Pulumi.dev.yaml").read_text())["config"]
    own = yaml.safe_load((template / "Pulumi.dev.yaml").read_text())["config"]
    assert config == {
        # Pulumi stores every value as text.
        **{key: str(value).lower() for key, value in own.items()},
        "gcp:project": PROJECT,
        "gcp:region": "us-central1",
        "mlflow-gcp:access": "internal",
    }
    assert not (project / ".git").exists()
    fresh.pulumi("preview", "--cwd", str(project), "--stack", "dev")


def test_another_name_of_the_project_is_refused(fresh: Deployment) -> None:
    file = fresh.project / "Pulumi.yaml"
    file.write_text(file.read_text().replace("name: mlflow-gcp", "name: our-server", 1))
    fresh.pulumi("stack", "init", "prod")
    refused = fresh.preview(fails=True)
    assert "name: mlflow-gcp" in refused.errors
    assert "Traceback" not in refused.text
