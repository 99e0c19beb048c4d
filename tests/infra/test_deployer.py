"""Deploying from GitHub: who is let in for which job, and what each may do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from infra.config import load
from infra.deployer import job, trusted
from infra.reader import SettingsError
from infra.settings import GitHubRepository
from tests.infra.declared import POOL, PROJECT, Program, run

REPOSITORY, NUMBER = "my-org/mlflow-gcp", 1332519958
OURS = GitHubRepository(name=REPOSITORY, number=NUMBER)
CONFIG = {"githubRepository": REPOSITORY, "githubRepositoryId": NUMBER}
WORKFLOW = f"{REPOSITORY}/.github/workflows/deploy.yml"
MAIN = "refs/heads/main"

ACCOUNT = "gcp:serviceaccount/account:Account"
PROVIDER = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"

# What GitHub says of a run: https://docs.github.com/en/actions/reference/security/oidc
PUSH = {
    "repository": REPOSITORY,
    "repository_id": str(NUMBER),
    "event_name": "push",
    "ref": MAIN,
    "workflow_ref": f"{WORKFLOW}@{MAIN}",
}
PULL = {
    **PUSH,
    "event_name": "pull_request",
    "ref": "refs/pull/7/merge",
    "workflow_ref": f"{WORKFLOW}@refs/pull/7/merge",
}


@cache
def declared(builder: str = "docker", *, watched: bool = False) -> Program:
    email = {"alertEmail": "oncall@example.com"} if watched else {}
    return run({**CONFIG, "builder": builder, **email})


def _holds(condition: str, assertion: Mapping[str, str]) -> bool:
    """The part of CEL that is used here: terms that all hold, each of alternatives."""

    def equal(comparison: str) -> bool:
        match = re.fullmatch(r"[( ]*assertion\.(\w+) == '([^']*)'[) ]*", comparison)
        assert match, comparison
        return assertion[match[1]] == match[2]

    return all(
        any(equal(alternative) for alternative in term.split("||"))
        for term in condition.split("&&")
    )


def _job(assertion: Mapping[str, str]) -> str:
    match = re.fullmatch(r"\((.*)\) \? '(\w+)' : \((.*) \? '(\w+)' : '(\w+)'\)", job(REPOSITORY))
    assert match
    if _holds(match[1], assertion):
        return match[2]
    return match[4] if _holds(match[3], assertion) else match[5]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "deploy"),
        ({"event_name": "workflow_dispatch"}, "deploy"),
        (PULL, "review"),
        # Another branch, and the main branch's name elsewhere.
        ({"workflow_ref": f"{WORKFLOW}@refs/heads/feature"}, "neither"),
        ({"workflow_ref": f"{WORKFLOW}@refs/tags/main"}, "neither"),
        ({"workflow_ref": f"{WORKFLOW}@refs/heads/main-2"}, "neither"),
        # Another workflow of the main branch, which may run what a stranger wrote.
        ({"workflow_ref": f"{REPOSITORY}/.github/workflows/ci.yml@{MAIN}"}, "neither"),
        (
            {
                "workflow_ref": f"{REPOSITORY}/.github/workflows/ci.yml@{MAIN}",
                "event_name": "pull_request_target",
            },
            "neither",
        ),
        ({"event_name": "pull_request_target"}, "neither"),
        ({"event_name": "issue_comment"}, "neither"),
        ({"event_name": "schedule"}, "neither"),
        # A reusable workflow's own place is in another claim.
        ({"workflow_ref": f"other/repo/.github/workflows/deploy.yml@{MAIN}"}, "neither"),
    ],
)
def test_a_run_is_for_one_job(changed: dict[str, str], expected: str) -> None:
    assert _job({**PUSH, **changed}) == expected


@pytest.mark.parametrize(
    ("changed", "trust"),
    [
        ({}, True),
        ({"repository": "my-org/mlflow-gcp-2"}, False),
        ({"repository": "evil/mlflow-gcp"}, False),
        # Somebody else under a name that has become free, and this one under another's.
        ({"repository_id": str(NUMBER + 1)}, False),
        ({"repository_id": f"{NUMBER}0"}, False),
    ],
)
def test_another_repository_is_nobody(changed: dict[str, str], trust: bool) -> None:
    assert _holds(trusted(OURS), {**PUSH, **changed}) is trust


def test_the_provider_asks_both() -> None:
    provider = declared().one(PROVIDER).inputs
    assert provider["oidc"] == {"issuerUri": "https://token.actions.githubusercontent.com"}
    assert provider["attributeCondition"] == trusted(OURS)
    assert provider["attributeMapping"] == {
        "google.subject": "assertion.repository_id + ':' + assertion.event_name",
        "attribute.job": job(REPOSITORY),
    }


def _grants(program: Program, account: str) -> set[tuple[str, Any]]:
    """Each role, and on what."""
    member = f"serviceAccount:mlflow-{account}@{PROJECT}.iam.gserviceaccount.com"
    keys = ("serviceAccountId", "secretId", "bucket", "repository", "project")
    return {
        (r.inputs["role"], next(r.inputs[key] for key in keys if key in r.inputs).split("@")[0])
        for r in program.created
        if r.inputs.get("member") == member
    }


DEPLOYS = {
    ("roles/run.developer", PROJECT),
    ("roles/cloudsql.editor", PROJECT),
    ("roles/artifactregistry.writer", "mlflow"),
    ("roles/iam.serviceAccountUser", f"projects/{PROJECT}/serviceAccounts/mlflow-server"),
    *(
        (role, f"mlflow_{key}")
        for key in (
            "artifact_url",
            "database_url",
            "tracking_username",
            "tracking_password",
            "kek_passphrase",
        )
        for role in (
            "roles/secretmanager.secretVersionAdder",
            "roles/secretmanager.viewer",
            "roles/secretmanager.secretAccessor",
        )
    ),
}
IN_CLOUD_BUILD = {
    ("roles/cloudbuild.builds.editor", PROJECT),
    ("roles/serviceusage.serviceUsageConsumer", PROJECT),
    ("roles/storage.admin", f"{PROJECT}-mlflow-source-ab12cd"),
    ("roles/iam.serviceAccountUser", f"projects/{PROJECT}/serviceAccounts/mlflow-build"),
}


def test_each_account_may_do_exactly_this() -> None:
    assert _grants(declared(), "deploy") == DEPLOYS
    assert _grants(declared(), "review") == {("roles/browser", PROJECT)}
    watched = declared(watched=True)
    assert _grants(watched, "deploy") - DEPLOYS == {("roles/monitoring.alertPolicyEditor", PROJECT)}
    assert _grants(declared("cloud-build"), "deploy") == DEPLOYS | IN_CLOUD_BUILD
    # An instance that isn't the stack's is not its to change.
    theirs = run({**CONFIG, "existingDatabaseInstance": f"{PROJECT}:us-central1:everybodys"})
    assert DEPLOYS ^ _grants(theirs, "deploy") == {
        ("roles/cloudsql.editor", PROJECT),
        ("roles/cloudsql.viewer", PROJECT),
    }


@pytest.mark.parametrize("account", ["deploy", "review"])
def test_github_is_an_account_for_its_job_alone(account: str) -> None:
    email = f"mlflow-{account}@{PROJECT}.iam.gserviceaccount.com"
    federated = [
        (r.inputs["role"], r.inputs["member"])
        for r in declared().created
        if r.inputs.get("serviceAccountId") == f"projects/{PROJECT}/serviceAccounts/{email}"
    ]
    member = f"principalSet://iam.googleapis.com/{POOL}/attribute.job/{account}"
    assert federated == [("roles/iam.workloadIdentityUser", member)]


def test_outputs_are_what_the_workflow_is_told() -> None:
    outputs = declared().outputs
    assert {key: outputs[key] for key in outputs if key.startswith("github_")} == {
        "github_provider": f"{POOL}/providers/actions",
        "github_deploy_account": f"mlflow-deploy@{PROJECT}.iam.gserviceaccount.com",
        "github_review_account": f"mlflow-review@{PROJECT}.iam.gserviceaccount.com",
    }


def test_without_a_repository_nobody_is_federated() -> None:
    program = run()
    assert not [r for r in program.created if "workloadIdentity" in r.type]
    assert [r.name for r in program.all(ACCOUNT)] == ["server"]
    assert not [key for key in program.outputs if key.startswith("github_")]


@pytest.mark.parametrize(
    "given",
    ["a/b", "my-org/mlflow.gcp_2-x", "A1/B", f"{'a' * 39}/{'b' * 100}"],
)
def test_a_repository_on_github(given: str) -> None:
    settings = load(
        {
            "gcp:project": PROJECT,
            "mlflow-gcp:githubRepository": given,
            "mlflow-gcp:githubRepositoryId": str(NUMBER),
        }
    )
    assert settings.github == GitHubRepository(name=given, number=NUMBER)


@pytest.mark.parametrize("given", ["-1", "1.5", "my-org/mlflow-gcp", "9" * 17, "９"])
def test_what_is_no_number_is_refused(given: str) -> None:
    config = {"gcp:project": PROJECT, "mlflow-gcp:githubRepositoryId": given}
    with pytest.raises(SettingsError) as refused:
        load(config)
    [problem] = refused.value.problems
    assert problem.key == "mlflow-gcp:githubRepositoryId"
    assert problem.example.startswith('pulumi config set githubRepositoryId "$(gh api repos/')


def test_a_long_name_fits_the_pool() -> None:
    """Its display name is part of what Google limits: to 32 characters."""
    program = run({**CONFIG, "name": "a" * 23})
    [pool] = program.all("gcp:iam/workloadIdentityPool:WorkloadIdentityPool")
    assert len(pool.inputs["displayName"]) == 32


@pytest.mark.parametrize(
    "given",
    [
        "mlflow-gcp",
        "my-org/",
        "/mlflow-gcp",
        "my-org/mlflow/gcp",
        "-my/mlflow",
        "my-/mlflow",
        "my--org/mlflow",
        "my_org/mlflow",
        "my-org/..",
        "https://github.com/my-org/mlflow-gcp",
        # It stands between quotes in the provider's condition.
        "my-org/x' || true || 'y",
        "my-org/x\n",
        f"{'a' * 40}/b",
    ],
)
def test_what_is_no_repository_is_refused(given: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"gcp:project": PROJECT, "mlflow-gcp:githubRepository": given})
    [problem] = refused.value.problems
    assert problem.key == "mlflow-gcp:githubRepository"
    assert "owner/name" in problem.wanted
    assert problem.example == "pulumi config set githubRepository my-org/mlflow-gcp"


@pytest.mark.parametrize(
    ("config", "wanted", "example"),
    [
        (
            {"githubRepository": REPOSITORY},
            "the number that GitHub has for my-org/mlflow-gcp",
            'pulumi config set githubRepositoryId "$(gh api repos/my-org/mlflow-gcp --jq .id)"',
        ),
        ({"githubRepositoryId": 74}, "nothing without", "pulumi config rm githubRepositoryId"),
    ],
)
def test_name_and_number_go_together(config: dict[str, Any], wanted: str, example: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"gcp:project": PROJECT, **{f"mlflow-gcp:{key}": v for key, v in config.items()}})
    [problem] = refused.value.problems
    assert problem.key == "mlflow-gcp:githubRepositoryId"
    assert wanted in problem.wanted
    assert problem.example == example
