"""The component in a program in YAML, as `pulumi package add` makes it available."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator

import pytest

from infra.settings.schema import listed
from tests.engine import nodejs
from tests.engine.deployment import BUCKET, INSTANCE, PROJECT, ROOT, SERVICE, Deployment
from tests.engine.engine import Engine


def _example(name: str, made: Deployment) -> Deployment:
    """The example's program, with the package next to the folders as if it were installed."""
    package, project = made.folder / "package", made.project
    shutil.copytree(ROOT / "package", package)
    (project / "infra").rename(package / "mlflow_gcp")
    (project / "image").rename(package / "mlflow_gcp" / "container")
    for file in (ROOT / "examples" / name).iterdir():
        if file.is_file():
            shutil.copy(file, project)
    text = (project / "Pulumi.yaml").read_text()
    (project / "Pulumi.yaml").write_text(text.replace("../../package", str(package)))
    made.pulumi("stack", "init", "prod")
    made.configure(**{"gcp:project": PROJECT})
    return made


def _assert_goes_up(program: Deployment) -> None:
    program.up()
    assert program.cloud.one(SERVICE)["template"]["scaling"]["minInstanceCount"] == 1
    assert program.output("trackingUri").startswith("https://research-")
    assert program.output("trackingPassword")
    assert {BUCKET, INSTANCE} <= program.cloud.counts().keys()


@pytest.fixture
def program(fresh: Deployment) -> Deployment:
    return _example("yaml", fresh)


@pytest.fixture
def typescript(fresh: Deployment, engine: Engine) -> Iterator[Deployment]:
    """The example's program, with the locked packages but without the package's SDK."""
    installed = ROOT / ".venvs" / "typescript"
    if not installed.with_suffix(".done").exists():
        pytest.skip("TypeScript wasn't tested: `make test-engine` installs it if there is npm")
    if engine.generator is None:
        pytest.skip("TypeScript wasn't tested: python -m tests.engine.engine builds no generator")
    shutil.copytree(
        installed / "node_modules", fresh.project / "node_modules", symlinks=True,
        copy_function=_link,
    )  # fmt: skip
    for name in ("node", "npm"):
        tool = shutil.which(name)
        assert tool, f"{name} was there when .venvs/typescript was installed"
        (fresh.folder / "bin" / name).symlink_to(tool)
    with nodejs.serve(engine.generator, fresh.environment) as host:
        fresh.environment["PULUMI_DEBUG_LANGUAGES"] += f",{host}"
        yield _example("typescript", fresh)


def _link(source: str, target: str) -> None:
    """Make a hard link, except of what npm writes, or a copy on another file system."""
    try:
        if source.endswith("/.package-lock.json"):
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_a_program_in_yaml_goes_up_and_down(program: Deployment) -> None:
    _assert_goes_up(program)
    assert program.up().touched == set()
    program.destroy()
    assert not program.cloud.project.live


def test_a_program_in_typescript_goes_up_and_down(typescript: Deployment) -> None:
    typescript.pulumi("install")
    _assert_goes_up(typescript)
    typescript.destroy()
    assert not typescript.cloud.project.live


def test_the_schema_has_every_setting(program: Deployment) -> None:
    package = program.folder / "package"
    schema = json.loads(program.pulumi("package", "get-schema", str(package)).stdout)
    assert re.fullmatch(r"\d+\.\d+\.\d+(-\w+)?", schema["version"])
    inputs = schema["resources"]["mlflow-gcp:index:TrackingServer"]["inputProperties"]
    assert inputs.keys() == {each.key for each in listed() if each.is_argument}
