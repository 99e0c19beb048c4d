"""The GitHub workflows, their permissions, and Dependabot's configuration."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.google.github_deployer import BRANCH, DEPLOY, EVENTS, REVIEW, WORKFLOW
from tests.engine.engine import VERSION as ENGINE
from tests.page_commands import run, stand_in

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
VERSION = re.compile(r"- uses: \S+ # v\d+\.\d+\.\d+$")
# The environment of each job in the workflow that deploys.
ENVIRONMENTS = {"up": DEPLOY, "preview": REVIEW}
# The jobs that write, each with its environment and what it needs to publish.
PUBLISHING = {
    ("image.yml", "publish"): ("image", {"attestations": "write", "id-token": "write"}),
    ("release.yml", "publish"): (
        "release",
        {"attestations": "write", "contents": "write", "id-token": "write"},
    ),
    ("site.yml", "publish"): ("github-pages", {"id-token": "write", "pages": "write"}),
}
# These switch the jobs on, so GitHub reads them before it knows the job's environment.
SWITCHES = {"DEPLOY_ENABLED", "REVIEW_ENABLED"}

# Outdated on purpose: the release that the chaos tests upgrade from.
LEFT_OUT = {"/tests/chaos"}
IGNORED = {".venvs", ".venv", ".git", ".local", "node_modules"}


def workflow(path: Path) -> dict[Any, Any]:
    parsed: dict[Any, Any] = yaml.safe_load(path.read_text())
    return parsed


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(path)["jobs"]
    return found


def triggers(path: Path) -> set[str]:
    # YAML parses `on` as true.
    return set(workflow(path)[True])


def test_the_workflows() -> None:
    names = ["ci.yml", "deploy.yml", "image.yml", "release.yml", "site.yml"]
    assert [path.name for path in WORKFLOWS] == names


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_their_version(path: Path) -> None:
    used = [step["uses"] for job in jobs(path).values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []
    lines = [line.strip() for line in path.read_text().splitlines() if "uses:" in line]
    assert [line for line in lines if not VERSION.match(line)] == []
    # One commit for each action, so that all uses move together.
    assert len({action.partition("@")[0] for action in used}) == len(set(used))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_has_minimal_permissions_and_a_time_limit(path: Path) -> None:
    assert workflow(path)["permissions"] == {}
    for name, job in jobs(path).items():
        assert job["timeout-minutes"] <= 60
        if (path.name, name) in PUBLISHING:
            assert job["permissions"] == PUBLISHING[path.name, name][1]
            # It runs only actions and GitHub's CLI, on what another job has built.
            assert "actions/checkout" not in yaml.safe_dump(job)
            assert job["needs"]
        else:
            assert set(job["permissions"].items()) <= {("contents", "read"), ("id-token", "write")}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_untrusted_code_runs_without_permissions(path: Path) -> None:
    # Both events run a fork's code with the main branch's permissions.
    assert triggers(path).isdisjoint({"pull_request_target", "workflow_run"})
    for job in jobs(path).values():
        for step in job["steps"]:
            # A pull request's title or branch name would be run as part of the script.
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_only_pulumi_gets_secrets_and_no_step_prints_them(path: Path) -> None:
    for job in jobs(path).values():
        assert "env" not in job
        for step in job["steps"]:
            told = yaml.safe_dump(step)
            command = step.get("run", "")
            if "secrets." in told:
                assert re.fullmatch(r"pulumi (preview|up) [^;|&>]+", command)
            assert not re.search(r"\b(echo|printf|env|printenv|set -x|show-secrets)\b", command)
    assert "env" not in workflow(path)


def test_pull_requests_are_previewed_and_the_main_branch_is_deployed() -> None:
    path = ROOT / WORKFLOW
    assert path in WORKFLOWS
    preview, up = jobs(path)["preview"], jobs(path)["up"]
    assert "github.event_name == 'pull_request'" in preview["if"]
    assert "head.repo.full_name == github.repository" in preview["if"]
    assert "github.event_name != 'pull_request'" in up["if"]
    assert f"github.ref == '{BRANCH}'" in up["if"]
    assert [_pulumi(job) for job in (preview, up)] == ["pulumi preview", "pulumi up"]
    assert triggers(path) == {*EVENTS, "pull_request"}
    for job in (preview, up):
        assert _account(job) == "${{ vars.DEPLOY_ACCOUNT }}"
    # One `up` at a time, and none is cancelled halfway.
    assert up["concurrency"] == {"group": "up", "cancel-in-progress": False}


def _pulumi(job: dict[str, Any]) -> str:
    [last] = [step["run"] for step in job["steps"] if "--stack" in step.get("run", "")]
    return " ".join(last.split()[:2])


def _account(job: dict[str, Any]) -> Any:
    [auth] = [s["with"] for s in job["steps"] if s.get("uses", "").startswith("google-github")]
    assert auth.keys() == {"workload_identity_provider", "service_account"}
    return auth["service_account"]


def _read(job: dict[str, Any], kind: str) -> set[str]:
    return set(re.findall(rf"\b{kind}\.(\w+)", yaml.safe_dump(job)))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_secrets_belong_to_an_environment(path: Path) -> None:
    """A workflow in any branch can read the repository's secrets."""
    for name, job in jobs(path).items():
        trusted = _read(job, "secrets") or job["permissions"].get("id-token")
        environments = ENVIRONMENTS if path.name == Path(WORKFLOW).name else {}
        expected = environments.get(name) or PUBLISHING.get((path.name, name), (None,))[0]
        assert job.get("environment") == expected
        assert expected or not trusted


def test_the_manual_sets_every_variable_and_secret_of_the_workflow() -> None:
    manual = (ROOT / "docs" / "github.md").read_text()
    told = {
        (kind, environment, name)
        for kind, name, environment in re.findall(
            r"gh (variable|secret) set (\w+)(?: --env (\w+))?", manual
        )
    }
    read = {("variable", "", name) for name in SWITCHES}
    for name, job in jobs(ROOT / WORKFLOW).items():
        for kind, context in (("variable", "vars"), ("secret", "secrets")):
            for key in _read(job, context) - SWITCHES:
                read.add((kind, ENVIRONMENTS[name], key))
    # The page sets Pulumi Cloud's token once, for one environment.
    assert read - told == {("secret", REVIEW, "PULUMI_ACCESS_TOKEN")}
    assert told - read == set()


def test_the_manual_restricts_both_environments() -> None:
    manual = (ROOT / "docs" / "github.md").read_text()
    repository = "repos/my-org/mlflow-gcp/environments"
    rules = dict(
        re.findall(
            rf"gh api {repository}/(\w+)/deployment-branch-policies --method POST \\\n"
            r"  --field '?name=([^' ]+)'? --field type=branch\n",
            manual,
        )
    )
    assert rules == {DEPLOY: BRANCH.removeprefix("refs/heads/"), REVIEW: "refs/pull/*/merge"}
    made = re.findall(
        rf"gh api {repository}/(\w+) --method PUT --input - <<'?END'?\n(.*?)^END$",
        manual,
        re.M | re.S,
    )
    bodies = {name: json.loads(re.sub(r"\$\(.*?\)", "74", body)) for name, body in made}
    assert bodies.keys() == {DEPLOY, REVIEW}
    for body in bodies.values():
        assert body["deployment_branch_policy"] == {
            "protected_branches": False,
            "custom_branch_policies": True,
        }
    assert bodies[REVIEW]["reviewers"] == [{"type": "User", "id": 74}]
    assert bodies[REVIEW]["prevent_self_review"] is True


def test_the_workflows_pulumi_matches_the_sdk_and_the_tested_engine() -> None:
    [sdk] = re.findall(r"^pulumi==([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M)
    installs = [
        step["with"]["pulumi-version"]
        for path in WORKFLOWS
        for job in jobs(path).values()
        for step in job["steps"]
        if step.get("uses", "").startswith("pulumi/actions@")
    ]
    assert installs == [sdk] * len(ENVIRONMENTS)
    assert _parts(sdk) >= _parts(ENGINE.removeprefix("v"))


def _parts(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _holds(path: Path) -> str:
    return f"/{path.parent.relative_to(ROOT)}".removesuffix("/.")


def _found(*names: str) -> set[str]:
    """Returns the folders of the project's own files with these names."""
    found = [path for name in names for path in ROOT.rglob(name)]
    mine = [path for path in found if not IGNORED & set(path.relative_to(ROOT).parts)]
    return {_holds(path) or "/" for path in mine} - LEFT_OUT


@pytest.mark.parametrize(
    ("ecosystem", "names"),
    [
        ("pip", ("requirements*.txt",)),
        ("docker", ("Dockerfile",)),
        ("gomod", ("go.mod",)),
        ("npm", ("package-lock.json",)),
    ],
)
def test_dependabot_updates_every_lock(ecosystem: str, names: tuple[str, ...]) -> None:
    [update] = [u for u in _updates() if u["package-ecosystem"] == ecosystem]
    assert set(update["directories"]) == _found(*names)


def _updates() -> list[dict[str, Any]]:
    parsed = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    assert parsed["version"] == 2
    updates: list[dict[str, Any]] = parsed["updates"]
    return updates


def test_dependabot_opens_one_pull_request_a_week_for_each_kind() -> None:
    kinds = [update["package-ecosystem"] for update in _updates()]
    assert sorted(kinds) == ["docker", "github-actions", "gomod", "npm", "pip"]
    for update in _updates():
        assert update["schedule"] == {"interval": "weekly"}
        [group] = update["groups"].values()
        assert group == {"patterns": ["*"]}


# GitHub's runners have jq.
JQ = """
import json, sys
assert sys.argv[1:] == ["--raw-output", '"digest=" + .digest'], sys.argv
print("digest=" + json.load(sys.stdin)["digest"])
"""
PROGRAM = """#!/bin/sh
echo "${0##*/} $*" >>"$CALLS"
case "$*" in *inspect*) echo '{"digest": "sha256:abc"}' ;; esac
"""


def test_the_pushed_image_is_named_by_the_digest_of_both_architectures(tmp_path: Path) -> None:
    [push] = [
        step["run"]
        for step in jobs(ROOT / ".github" / "workflows" / "image.yml")["publish"]["steps"]
        if step.get("id") == "push"
    ]
    for program in ("docker", "gcloud"):
        stand_in(tmp_path, program, PROGRAM)
    stand_in(tmp_path, "jq", f"#!{sys.executable}\n{JQ}")
    calls, outputs = tmp_path / "calls", tmp_path / "outputs"
    run(
        push,
        folder=tmp_path,
        environment={
            "PATH": f"{tmp_path}:{os.defpath}",
            "CALLS": str(calls),
            "GITHUB_OUTPUT": str(outputs),
            "IMAGE": "us-docker.pkg.dev/p/r/server",
            "TAG": "v1.0.0",
        },
    )
    assert outputs.read_text() == "digest=sha256:abc\n"
    told = calls.read_text()
    assert "gcloud auth configure-docker us-docker.pkg.dev --quiet\n" in told
    for architecture in ("amd64", "arm64"):
        assert f"docker push us-docker.pkg.dev/p/r/server:v1.0.0-{architecture}\n" in told
