"""Two deployments inside another program, and the package that the program imports."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pulumi
import pulumi_random as random
import pytest
import yaml
from packaging.requirements import Requirement

import infra
from infra import TrackingServer, package
from infra.google.image import content_hash
from infra.settings.refusals import SettingsError
from tests.infra.declared import PROJECT, ROOT, Declared, Program, Secret, run, shown
from tests.infra.test_policy import COVERING, SHAPES

EXAMPLE = ROOT / "examples" / "two_teams"
PHRASE = "a-password-of-the-user"
TEAMS: dict[str, dict[str, Any]] = {
    "research": {"deletionProtection": False, "bucketForceDestroy": True},
    "forecast": {
        "databaseTier": "db-custom-1-3840",
        "minInstances": 1,
        "viewerUsername": "viewer",
        "trackingPassword": PHRASE,
    },
}
UV = ROOT / ".venvs" / "uv" / "bin" / "uv"


def snake(setting: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", setting)


@pytest.fixture
def teams(monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setitem(sys.modules, "mlflow_gcp", infra)
    return run(
        {"forecastPassword": PHRASE},
        main=lambda: runpy.run_path(str(EXAMPLE / "__main__.py"), run_name="__main__"),
    )


def of(team: str, resources: list[Declared]) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the team's own resources, with the names that they have in a program of one team."""
    mine = [r for r in resources if r.name.startswith(f"{team}-") and r.custom]
    own = {}
    for resource in mine:
        text = json.dumps(resource.inputs, sort_keys=True)
        for other in mine:
            text = text.replace(f"{other.name}-id", f"{other.name.removeprefix(f'{team}-')}-id")
        text = text.replace(f"generated-{team}-", "generated-")
        own[resource.type, resource.name.removeprefix(f"{team}-")] = json.loads(text)
    return own


def test_the_example_declares_two_complete_deployments(teams: Program) -> None:
    for team, settings in TEAMS.items():
        alone = run({"name": team, **settings})
        assert of(team, teams.resources) == {
            (r.type, r.name): json.loads(json.dumps(r.inputs, sort_keys=True))
            for r in alone.created
        }
        assert shown(teams.outputs[f"{team}_tracking_uri"]) == alone.outputs["tracking_uri"]
    assert {r.name.partition("-")[0] for r in teams.resources} == set(TEAMS)
    assert shown(teams.outputs["forecast_tracking_password"]) == PHRASE
    assert all(isinstance(teams.outputs[f"{team}_tracking_password"], Secret) for team in TEAMS)


def test_every_resource_is_below_its_server(teams: Program) -> None:
    by_urn = {r.urn: r for r in teams.resources}
    servers = {r.urn for r in teams.resources if r.kind == "TrackingServer"}
    assert {by_urn[urn].name for urn in servers} == set(TEAMS)
    for resource in teams.resources:
        if resource.urn not in servers:
            top = by_urn[resource.parent] if resource.custom else resource
            assert top.parent in servers
    kept = ("artifacts", "instance", "kek_passphrase", "server")
    assert {r.name for r in teams.created if r.protect} == {f"forecast-{name}" for name in kept}


def test_the_example_is_short_and_a_separate_project() -> None:
    assert len((EXAMPLE / "__main__.py").read_text().splitlines()) < 25
    assert yaml.safe_load((EXAMPLE / "Pulumi.yaml").read_text())["name"] == "two-teams"


def pair(settings: Mapping[str, Any]) -> Callable[[], None]:
    def main() -> None:
        arguments: dict[str, Any] = {snake(key): value for key, value in settings.items()}
        arguments.pop("gcp:project", None)
        if "tracking_password" in arguments:
            arguments["tracking_password"] = pulumi.Output.secret(arguments["tracking_password"])
        for name in ("one", "two"):
            TrackingServer(name, **arguments)

    return main


@pytest.mark.parametrize("shape", COVERING)
def test_two_deployments_share_no_name(shape: str) -> None:
    program = run(main=pair(SHAPES[shape]))
    urns = [resource.urn for resource in program.resources]
    assert len(urns) == len(set(urns))
    assert {resource.name.partition("-")[0] for resource in program.resources} == {"one", "two"}


def test_depends_on_applies_to_every_resource() -> None:
    def main() -> None:
        first = random.RandomId("first", byte_length=1)
        TrackingServer("ml", opts=pulumi.ResourceOptions(depends_on=[first]))

    program = run(main=main)
    first, *others = program.created
    assert others
    assert all(first.urn in program.before(resource) for resource in others)


def test_a_password_in_an_existing_secret_is_not_an_attribute() -> None:
    found: list[Any] = []

    def main() -> None:
        secret = f"projects/{PROJECT}/secrets/research/versions/1"
        server = TrackingServer("ml", tracking_password_secret=secret)
        found.extend((server.tracking_password, server.outputs["tracking_password_secret"]))

    run(main=main)
    assert found[0] is None
    assert found[1]


@pytest.mark.parametrize(
    ("arguments", "argument", "example"),
    [
        ({"memory": "1G"}, "memory", 'memory="1Gi"'),
        ({"cpu": 3}, "cpu", "cpu=1"),
        ({"uptime_check": "yes"}, "uptime_check", "uptime_check=False"),
        ({"access": "iam"}, "invokers", 'invokers=["user:ada@example.com"]'),
        ({"uptime_check": True}, "uptime_check", 'alert_email="oncall@example.com"'),
        ({"invokers": ("user:ada@example.com",)}, "invokers", "without invokers"),
        ({"max_instance": 3}, "max_instance", "without max_instance"),
        (
            {"tracking_password": PHRASE},
            "tracking_password",
            'tracking_password=pulumi.Config().require_secret("tracking_password")',
        ),
    ],
)
def test_errors_name_the_arguments_of_the_program(
    arguments: dict[str, Any], argument: str, example: str
) -> None:
    program = Program()
    with pytest.raises(SettingsError) as refused:
        run(into=program, main=lambda: TrackingServer("ml", **arguments))  # type: ignore[arg-type,return-value]
    [refusal] = refused.value.refusals
    assert refusal.key == argument
    assert refused.value.render(refusal.remedy).startswith(example)
    assert not re.search(r"[a-z][A-Z]", refusal.expected)
    assert PHRASE not in str(refused.value)
    assert program.resources == []


@pytest.mark.parametrize(
    ("arguments", "key", "example"),
    [
        ({"memory": "1G"}, "memory", 'memory: "1Gi"'),
        ({"uptime_check": "yes"}, "uptimeCheck", "uptimeCheck: false"),
        ({"access": "iam"}, "invokers", 'invokers: ["user:ada@example.com"]'),
        ({"uptime_check": True}, "uptimeCheck", 'alertEmail: "oncall@example.com"'),
        ({"invokers": ["user:ada@example.com"]}, "invokers", "without invokers"),
        ({"tracking_password": PHRASE}, "trackingPassword", "trackingPassword: ... (a secret"),
        (
            {"max_instances": pulumi.Output.from_input(3)},
            "maxInstances",
            "maxInstances: ... (a plain value",
        ),
    ],
)
def test_errors_name_the_properties_of_other_languages(
    arguments: dict[str, Any], key: str, example: str
) -> None:
    program = Program()
    with pytest.raises(SettingsError) as refused:
        run(into=program, main=lambda: package.TrackingServer("ml", cast("Any", arguments)))  # type: ignore[arg-type,return-value]
    message = str(refused.value)
    assert f"\n  {key}\n" in message
    assert f"example:  {example}" in message
    assert not re.search(r"[a-z]_[a-z]", message)
    assert PHRASE not in message
    assert program.resources == []


def test_an_unknown_setting_that_decides_which_resources_exist_is_refused() -> None:
    def main() -> None:
        later: Any = pulumi.Output.from_input("oncall@example.com")
        TrackingServer("ml", alert_email=later)

    with pytest.raises(SettingsError, match="it decides what is declared"):
        run(main=main)


def test_a_short_password_is_refused_once_it_is_known() -> None:
    def main() -> None:
        TrackingServer("ml", tracking_password=pulumi.Output.from_input("fourteen chars"))

    program = Program()
    with pytest.raises(SettingsError, match="at least 15"):
        run(into=program, main=main)
    assert not [r for r in program.created if r.kind == "SecretVersion" and "password" in r.name]


def test_a_missing_project_is_refused() -> None:
    with pytest.raises(SettingsError, match="gcp:project"):
        run({"gcp:project": None}, main=lambda: TrackingServer("ml"))  # type: ignore[arg-type,return-value]


def test_the_package_is_complete_and_has_one_top_level_name(tmp_path: Path) -> None:
    """Build it as `pip install git+https://…` does, from the files of the repository."""
    source, wheels, site = (tmp_path / name for name in ("source", "wheels", "site"))
    source.mkdir()
    shutil.copy(ROOT / "pyproject.toml", source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for folder in ("infra", "image"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    subprocess.run(
        [UV, "build", "--quiet", "--wheel", "--python", sys.executable, "-o", wheels, source],
        check=True,
    )
    [wheel] = wheels.glob("mlflow_gcp-*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"mlflow_gcp"}
    script = (
        "import sys, mlflow_gcp, mlflow_gcp.google.image as image\n"
        "print(image.SOURCE, image.context())\n"
        "print('infra' in sys.modules, mlflow_gcp.TrackingServer.__name__)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    installed = site / "mlflow_gcp" / "container"
    assert said.split() == [
        str(installed), "site/mlflow_gcp/container", "False", "TrackingServer"
    ]  # fmt: skip
    assert content_hash(installed) == content_hash(ROOT / "image")


def test_the_package_allows_the_locked_versions() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = {each.name: each.specifier for each in map(Requirement, wanted)}
    lines = (ROOT / "requirements.in").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert asked.keys() == locked.keys()
    assert [name for name, version in locked.items() if version not in asked[name]] == []
