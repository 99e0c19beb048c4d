"""Deploying from GitHub: which workflow runs are trusted, and what each account may do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from fake_google.errors import Refused
from fake_google.iam import policy as iam
from fake_google.iam.federation import exchange
from fake_google.iam.policy import Condition, Grant, Policy, Resource
from infra.facts.limits import MAX_GITHUB_ID
from infra.google.github_deployer import condition
from infra.settings.reader import load
from infra.settings.refusals import SettingsError, command_line
from infra.settings.schema import GitHubRepository
from tests.infra.declared import POOL, PROJECT, REGION, Program, recorded

REPOSITORY, NUMBER = "my-org/mlflow-gcp", 1332519958
CONFIG = {"githubRepository": REPOSITORY, "githubRepositoryId": NUMBER}
WORKFLOW = f"{REPOSITORY}/.github/workflows/deploy.yml"
OTHER_WORKFLOW = f"{REPOSITORY}/.github/workflows/ci.yml"
MAIN = "refs/heads/main"

ACCOUNT = "gcp:serviceaccount/account:Account"
ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
PROVIDER = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"

# The claims of a workflow run: https://docs.github.com/en/actions/reference/security/oidc
Claims = Mapping[str, str | None]


def claims(event: str, ref: str, environment: str | None, **changed: str | None) -> Claims:
    """Returns the claims of a job in this repository's workflow, without those that are None."""
    return {
        "iss": "https://token.actions.githubusercontent.com",
        "aud": f"https://iam.googleapis.com/{POOL}/providers/actions",
        "sub": f"repo:{REPOSITORY}:environment:{environment}"
        if environment
        else f"repo:{REPOSITORY}:ref:{ref}",
        "repository": REPOSITORY,
        "repository_id": str(NUMBER),
        "repository_owner": "my-org",
        "repository_owner_id": "74",
        "repository_visibility": "private",
        "actor": "ada",
        "event_name": event,
        "ref": ref,
        "ref_type": "tag" if ref.startswith("refs/tags/") else "branch",
        "workflow_ref": f"{WORKFLOW}@{ref}",
        "job_workflow_ref": f"{WORKFLOW}@{ref}",
        "runner_environment": "github-hosted",
        "environment": environment,
        **changed,
    }


PUSH = claims("push", MAIN, "deploy")
PULL = claims("pull_request", "refs/pull/7/merge", "review", head_ref="feature", base_ref="main")
BRANCH = claims("push", "refs/heads/feature", "deploy")


def declared(builder: str = "docker", *, watched: bool = False, review: bool = False) -> Program:
    email = {"alertEmail": "oncall@example.com"} if watched else {}
    previews = {"githubReview": True} if review else {}
    return recorded({**CONFIG, "builder": builder, **email, **previews})


def policy(program: Program) -> Policy:
    """Returns everything that the program grants, as a policy."""
    found = Policy()
    for role in program.all(ROLE):
        name = f"projects/{PROJECT}/roles/{role.inputs['roleId']}"
        found.custom_roles[name] = frozenset(role.inputs["permissions"])
    for each in program.created:
        if "member" in each.inputs:
            condition = each.inputs.get("condition")
            found.add(
                Grant(
                    each.inputs["role"],
                    each.inputs["member"],
                    _resource(each.inputs),
                    Condition.parse(condition["expression"]) if condition else None,
                )
            )
    return found


def _resource(inputs: dict[str, Any]) -> Resource | None:
    match inputs:
        case {"serviceAccountId": name}:
            return Resource("iam.googleapis.com", name)
        case {"secretId": name}:
            return iam.secret(PROJECT, name.removesuffix("-id"))
        case {"bucket": name}:
            return iam.bucket(name)
        case {"repository": name, "location": location}:
            return iam.image_repository(PROJECT, location, name)
        case {"name": name, "location": location}:
            return iam.run_service(PROJECT, location, name)
        case {"project": _}:
            return None
    raise LookupError(str(inputs))


def accounts(program: Program, token: Claims) -> set[str]:
    """Returns the accounts that a job with these claims may impersonate."""
    given = {claim: value for claim, value in token.items() if value is not None}
    try:
        federated = exchange(POOL, program.one(PROVIDER).inputs, given)
    except Refused:
        return set()
    granted = policy(program)
    names = [each.inputs["accountId"] for each in program.all(ACCOUNT)]
    return {
        name.removeprefix("mlflow-")
        for name in names
        if federated.members
        & {
            *granted.holders(
                "iam.serviceAccounts.getAccessToken",
                iam.service_account(PROJECT, f"{name}@{PROJECT}.iam.gserviceaccount.com"),
            )
        }
    }


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (PUSH, {"deploy"}),
        ({**PUSH, "event_name": "workflow_dispatch"}, {"deploy"}),
        # Each repository chooses the format of its subjects, so the condition doesn't use it.
        ({**PUSH, "sub": f"repo:my-org@74/mlflow-gcp@{NUMBER}:environment:deploy"}, {"deploy"}),
        (PULL, {"review"}),
    ],
)
def test_a_run_can_impersonate_exactly_one_account(token: Claims, expected: set[str]) -> None:
    assert accounts(declared(review=True), token) == expected


@pytest.mark.parametrize("review", [False, True], ids=["alone", "with review"])
@pytest.mark.parametrize(
    "token",
    [
        # Another branch, and the main branch's name in other refs.
        BRANCH,
        {**BRANCH, "event_name": "workflow_dispatch"},
        claims("push", "refs/tags/main", "deploy"),
        claims("push", "refs/heads/main-2", "deploy"),
        claims("push", "refs/heads/refs/heads/main", "deploy"),
        # The main branch's workflow started for another ref, and the other way round.
        {**PUSH, "ref": "refs/heads/feature"},
        {**PUSH, "workflow_ref": f"{WORKFLOW}@refs/heads/feature"},
        {**PUSH, "job_workflow_ref": f"{WORKFLOW}@refs/heads/feature"},
        # Other events. Some run untrusted code with the main branch's ref.
        *(
            {**PUSH, "event_name": event}
            for event in ("pull_request", "pull_request_target", "issue_comment", "schedule")
        ),
        *({**PULL, "event_name": event} for event in ("push", "pull_request_target")),
        # A job without an environment, in another one, or in the other job's.
        *({**PUSH, "environment": each} for each in (None, "", "Deploy", "deploy-2", "production")),
        {**PUSH, "environment": "review"},
        {**PULL, "environment": "deploy"},
        {**PULL, "environment": None},
        claims("push", "refs/heads/feature", "review"),
        # Another workflow, and a reusable workflow that it calls.
        {**PUSH, "workflow_ref": f"{OTHER_WORKFLOW}@{MAIN}"},
        {**PUSH, "job_workflow_ref": f"{OTHER_WORKFLOW}@{MAIN}"},
        {**PUSH, "job_workflow_ref": f"evil/x/.github/workflows/deploy.yml@{MAIN}"},
        {**PULL, "job_workflow_ref": f"{OTHER_WORKFLOW}@refs/pull/7/merge"},
        {**PULL, "job_workflow_ref": f"evil/{WORKFLOW}@refs/pull/7/merge"},
        *(
            {**token, **changed}
            for token in (PUSH, PULL)
            for changed in (
                # A fork, another repository, this repository under another name, and another one
                # under this one's name.
                {"repository": "eve/mlflow-gcp", "repository_id": "666"},
                {"repository": "my-org/mlflow-gcp-2"},
                {"repository": "my-org/renamed"},
                {"repository": REPOSITORY.upper()},
                {"repository_id": str(NUMBER + 1)},
                {"repository_id": f"{NUMBER}0"},
                # Another issuer, and a token for another audience.
                {"iss": "https://token.actions.example.com"},
                {"aud": "https://github.com/my-org"},
                # A missing claim is an error.
                *({claim: None} for claim in ("repository", "repository_id", "event_name")),
                {"job_workflow_ref": None},
            )
        ),
        {**PUSH, "ref": None},
        {**PUSH, "workflow_ref": None},
    ],
)
def test_no_other_run_can_impersonate_an_account(token: Claims, review: bool) -> None:
    assert accounts(declared(review=review), token) == set()


def test_without_review_a_pull_request_has_no_account() -> None:
    assert accounts(declared(), PULL) == set()


ON_PROJECT = ("cloudresourcemanager.googleapis.com", f"projects/{PROJECT}")
OURS = {
    "service": iam.run_service(PROJECT, REGION, "mlflow"),
    "instance": iam.sql_instance(PROJECT, "mlflow-ab12cd"),
    "secret": iam.secret(PROJECT, "mlflow_database_url"),
    "images": iam.image_repository(PROJECT, REGION, "mlflow"),
    "source": iam.bucket(f"{PROJECT}-mlflow-source-ab12cd"),
    "artifacts": iam.bucket(f"{PROJECT}-mlflow-artifacts-ab12cd"),
    "server": iam.service_account(PROJECT, f"mlflow-server@{PROJECT}.iam.gserviceaccount.com"),
    "builder": iam.service_account(PROJECT, f"mlflow-build@{PROJECT}.iam.gserviceaccount.com"),
    "project": Resource(*ON_PROJECT),
}
THEIRS = {
    "service": iam.run_service(PROJECT, REGION, "others"),
    "instance": iam.sql_instance(PROJECT, "others"),
    "secret": iam.secret(PROJECT, "others"),
    "images": iam.image_repository(PROJECT, REGION, "others"),
    "source": iam.bucket("others"),
    "server": iam.service_account(PROJECT, f"others@{PROJECT}.iam.gserviceaccount.com"),
}
# The permissions that `pulumi up` needs, by the resource that it changes.
NEEDED: dict[str, tuple[str, ...]] = {
    "service": ("run.services.get", "run.services.update"),
    "instance": ("cloudsql.instances.get", "cloudsql.instances.update"),
    "secret": tuple(
        f"secretmanager.versions.{verb}" for verb in ("access", "add", "enable", "get")
    ),
    "images": tuple(
        f"artifactregistry.repositories.{what}Artifacts" for what in ("download", "upload")
    ),
    "server": ("iam.serviceAccounts.actAs",),
    # For the project's number, the progress of a change and the size of the database's disk.
    "project": (
        "resourcemanager.projects.get",
        "run.operations.get",
        "cloudsql.instances.get",
        "cloudsql.instances.list",
    ),
}
ALSO: dict[str, dict[str, tuple[str, ...]]] = {
    "watched": {
        "project": ("monitoring.alertPolicies.get", "monitoring.alertPolicies.update"),
    },
    "cloud-build": {
        "project": (
            "cloudbuild.builds.create",
            "cloudbuild.builds.get",
            "serviceusage.services.use",
        ),
        "source": ("storage.buckets.get", "storage.objects.create"),
        "builder": ("iam.serviceAccounts.actAs",),
    },
}
# Permissions to delete data, to copy it elsewhere or to pass on a permission.
NEVER = re.compile(
    r".*\.(delete|destroy|disable|setIamPolicy|create|export|connect|getAccessToken|signBlob)"
)
# The exceptions: new versions, builds and copies of the source.
MADE = {
    "cloudbuild.builds.create",
    "storage.objects.create",
    "storage.objects.delete",
}


def _may(program: Program, permission: str, resource: Resource, *, account: str) -> bool:
    email = f"mlflow-{account}@{PROJECT}.iam.gserviceaccount.com"
    return policy(program).allowed(email, permission, resource)


@pytest.mark.parametrize("shape", ["plain", *ALSO])
def test_the_deploy_account_has_the_permissions_that_up_needs(shape: str) -> None:
    program = declared(
        "cloud-build" if shape == "cloud-build" else "docker", watched=shape == "watched"
    )
    for needed in (NEEDED, ALSO.get(shape, {})):
        for thing, permissions in needed.items():
            for permission in permissions:
                assert _may(program, permission, OURS[thing], account="deploy"), permission
    others = [also for name, also in ALSO.items() if name != shape]
    for also in others:
        for permission in also["project"]:
            assert not _may(program, permission, OURS["project"], account="deploy"), permission


def test_the_deploy_account_cannot_change_other_resources() -> None:
    program = declared("cloud-build", watched=True)
    for thing, resource in THEIRS.items():
        asked = {*NEEDED.get(thing, ()), *ALSO["cloud-build"].get(thing, ())}
        allowed = {each for each in asked if _may(program, each, resource, account="deploy")}
        # Reading is project-wide, as `up` follows the operations on its own instance.
        assert allowed == ({"cloudsql.instances.get"} if thing == "instance" else set()), thing


def test_the_deploy_account_cannot_delete_or_grant() -> None:
    program = declared("cloud-build", watched=True)
    granted = policy(program)
    deploy = f"serviceAccount:mlflow-deploy@{PROJECT}.iam.gserviceaccount.com"
    has = {
        permission
        for grant in granted.grants
        if grant.member == deploy
        for permission in granted.permissions(grant.role)
    }
    assert {each for each in has if NEVER.fullmatch(each)} == MADE
    assert not _may(program, "storage.objects.delete", OURS["artifacts"], account="deploy")


def test_the_deploy_account_has_no_permission_on_an_existing_instance() -> None:
    theirs = recorded({**CONFIG, "existingDatabaseInstance": f"{PROJECT}:us-central1:others"})
    for permission in NEEDED["instance"]:
        for resource in (THEIRS["instance"], OURS["project"]):
            assert not _may(theirs, permission, resource, account="deploy")


def test_the_review_account_can_only_read_the_project() -> None:
    program = declared(review=True)
    review = f"serviceAccount:mlflow-review@{PROJECT}.iam.gserviceaccount.com"
    [grant] = [each for each in policy(program).grants if each.member == review]
    assert grant.resource is None
    assert policy(program).permissions(grant.role) == {"resourcemanager.projects.get"}


def test_outputs_are_the_values_that_the_workflow_needs() -> None:
    told = {
        "github_provider": f"{POOL}/providers/actions",
        "github_deploy_account": f"mlflow-deploy@{PROJECT}.iam.gserviceaccount.com",
    }
    for review in (False, True):
        outputs = declared(review=review).outputs
        if review:
            told["github_review_account"] = f"mlflow-review@{PROJECT}.iam.gserviceaccount.com"
        assert {key: outputs[key] for key in outputs if key.startswith("github_")} == told


def test_the_review_account_is_optional() -> None:
    named = [each.name for each in declared().created if "review" in each.name]
    assert named == []


def test_without_a_repository_there_is_no_federation() -> None:
    program = recorded()
    assert not [r for r in program.created if "workloadIdentity" in r.type]
    assert sorted(r.name for r in program.all(ACCOUNT)) == ["server", "signer"]
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
    assert settings.github == GitHubRepository(name=given, number=NUMBER, review=False)


@pytest.mark.parametrize("given", ["-1", "1.5", "my-org/mlflow-gcp", "9" * 17, "９"])
def test_a_repository_id_must_be_a_number(given: str) -> None:
    config = {"gcp:project": PROJECT, "mlflow-gcp:githubRepositoryId": given}
    with pytest.raises(SettingsError) as refused:
        load(config)
    [refusal] = refused.value.refusals
    assert refusal.key == "mlflow-gcp:githubRepositoryId"
    assert command_line(refusal.remedy).startswith(
        'pulumi config set githubRepositoryId "$(gh api repos/'
    )


def test_a_long_name_fits_the_pool() -> None:
    """Google limits the pool's display name, which includes it, to 32 characters."""
    program = recorded({**CONFIG, "name": "a" * 23})
    [pool] = program.all("gcp:iam/workloadIdentityPool:WorkloadIdentityPool")
    assert len(pool.inputs["displayName"]) == 32


def test_the_longest_name_fits_the_condition() -> None:
    """Google accepts at most 4096 characters."""
    longest = f"{'a' * 39}/{'b' * 100}"
    repository = GitHubRepository(name=longest, number=MAX_GITHUB_ID, review=True)
    assert len(condition(repository)) <= 4096


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
        # It would end the quoted string in the provider's condition.
        "my-org/x' || true || 'y",
        "my-org/x\n",
        f"{'a' * 40}/b",
    ],
)
def test_an_invalid_repository_is_refused(given: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"gcp:project": PROJECT, "mlflow-gcp:githubRepository": given})
    [refusal] = refused.value.refusals
    assert refusal.key == "mlflow-gcp:githubRepository"
    assert "owner/name" in refusal.expected
    assert command_line(refusal.remedy) == "pulumi config set githubRepository my-org/mlflow-gcp"


@pytest.mark.parametrize(
    ("config", "example"),
    [
        (
            {"githubRepository": REPOSITORY},
            'pulumi config set githubRepositoryId "$(gh api repos/my-org/mlflow-gcp --jq .id)"',
        ),
        ({"githubRepositoryId": 74}, "pulumi config rm githubRepositoryId"),
        ({"githubReview": True}, "pulumi config rm githubReview"),
    ],
)
def test_settings_that_need_each_other(config: dict[str, Any], example: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"gcp:project": PROJECT, **{f"mlflow-gcp:{key}": v for key, v in config.items()}})
    [refusal] = refused.value.refusals
    assert refusal.key == f"mlflow-gcp:{example.split()[3]}"
    assert command_line(refusal.remedy) == example
