"""What runs on GitHub: the workflows, what they are trusted with, and Dependabot."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deployer import BRANCH, WORKFLOW

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
VERSION = re.compile(r"- uses: \S+ # v\d+\.\d+\.\d+$")

# Kept behind on purpose: what chaos upgrades from.
LEFT_OUT = {"/tests/chaos"}
IGNORED = {".venvs", ".venv", ".git", ".local", "node_modules"}


def workflow(path: Path) -> dict[Any, Any]:
    parsed: dict[Any, Any] = yaml.safe_load(path.read_text())
    return parsed


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(path)["jobs"]
    return found


def triggers(path: Path) -> set[str]:
    # To YAML, `on` is true.
    return set(workflow(path)[True])


def test_there_are_two() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "deploy.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_their_version(path: Path) -> None:
    used = [step["uses"] for job in jobs(path).values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []
    lines = [line.strip() for line in path.read_text().splitlines() if "uses:" in line]
    assert [line for line in lines if not VERSION.match(line)] == []
    # One commit of each, so that they move together.
    assert len({action.partition("@")[0] for action in used}) == len(set(used))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_has_the_rights_it_says_and_an_end(path: Path) -> None:
    assert workflow(path)["permissions"] == {}
    for job in jobs(path).values():
        assert set(job["permissions"].items()) <= {("contents", "read"), ("id-token", "write")}
        assert job["timeout-minutes"] <= 60


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_stranger_writes_is_run_without_rights(path: Path) -> None:
    # Both run a fork's code, or what it names, with the main branch's rights.
    assert triggers(path).isdisjoint({"pull_request_target", "workflow_run"})
    for job in jobs(path).values():
        for step in job["steps"]:
            # A title or a branch's name in a script is a script.
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_secrets_are_given_to_pulumi_alone_and_not_shown(path: Path) -> None:
    for job in jobs(path).values():
        assert "env" not in job
        for step in job["steps"]:
            told = yaml.safe_dump(step)
            command = step.get("run", "")
            if "secrets." in told:
                assert re.fullmatch(r"pulumi (preview|up) [^;|&>]+", command)
            assert not re.search(r"\b(echo|printf|env|printenv|set -x|show-secrets)\b", command)
    assert "env" not in workflow(path)


def test_a_preview_is_for_pull_requests_and_up_for_the_main_branch() -> None:
    path = ROOT / WORKFLOW
    assert path in WORKFLOWS
    preview, up = jobs(path)["preview"], jobs(path)["up"]
    assert "github.event_name == 'pull_request'" in preview["if"]
    assert "head.repo.full_name == github.repository" in preview["if"]
    assert "github.event_name != 'pull_request'" in up["if"]
    assert f"github.ref == '{BRANCH}'" in up["if"]
    assert [_pulumi(job) for job in (preview, up)] == ["pulumi preview", "pulumi up"]
    assert _account(preview) == "${{ vars.DEPLOY_REVIEW_ACCOUNT }}"
    assert _account(up) == "${{ vars.DEPLOY_ACCOUNT }}"
    # One `up` at a time, and none is stopped halfway.
    assert up["concurrency"] == {"group": "up", "cancel-in-progress": False}


def _pulumi(job: dict[str, Any]) -> str:
    [last] = [step["run"] for step in job["steps"] if "--stack" in step.get("run", "")]
    return " ".join(last.split()[:2])


def _account(job: dict[str, Any]) -> Any:
    [auth] = [s["with"] for s in job["steps"] if s.get("uses", "").startswith("google-github")]
    assert auth.keys() == {"workload_identity_provider", "service_account"}
    return auth["service_account"]


def test_the_manual_sets_every_variable_that_the_workflow_reads() -> None:
    text = (ROOT / WORKFLOW).read_text()
    manual = (ROOT / "docs" / "deploying.md").read_text()
    for kind, command in (("vars", "variable"), ("secrets", "secret")):
        read = set(re.findall(rf"\b{kind}\.(\w+)", text))
        assert read == set(re.findall(rf"gh {command} set (\w+)", manual))


def _holds(path: Path) -> str:
    return f"/{path.parent.relative_to(ROOT)}".removesuffix("/.")


def _found(*names: str) -> set[str]:
    """The folders of the project's own files of these names."""
    found = [path for name in names for path in ROOT.rglob(name)]
    mine = [path for path in found if not IGNORED & set(path.relative_to(ROOT).parts)]
    return {_holds(path) or "/" for path in mine} - LEFT_OUT


@pytest.mark.parametrize(
    ("ecosystem", "names"),
    [
        ("pip", ("requirements*.txt",)),
        ("docker", ("Dockerfile",)),
        ("gomod", ("go.mod",)),
    ],
)
def test_dependabot_looks_at_everything_that_is_locked(
    ecosystem: str, names: tuple[str, ...]
) -> None:
    [update] = [u for u in _updates() if u["package-ecosystem"] == ecosystem]
    assert set(update["directories"]) == _found(*names)


def _updates() -> list[dict[str, Any]]:
    parsed = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    assert parsed["version"] == 2
    updates: list[dict[str, Any]] = parsed["updates"]
    return updates


def test_dependabot_comes_once_a_week_with_one_pull_request_for_each_kind() -> None:
    kinds = [update["package-ecosystem"] for update in _updates()]
    assert sorted(kinds) == ["docker", "github-actions", "gomod", "pip"]
    for update in _updates():
        assert update["schedule"] == {"interval": "weekly"}
        [group] = update["groups"].values()
        assert group == {"patterns": ["*"]}
