"""Who deploys from GitHub Actions, without a key: Workload Identity Federation.

https://cloud.google.com/iam/docs/workload-identity-federation-with-deployment-pipelines

Two accounts, for the two jobs of `.github/workflows/deploy.yml`:

- `deploy`, for `pulumi up`, only for that workflow as the main branch has it. It changes what
  runs and how: the service, the image, the instance, the secrets' values. Two of its roles exist
  for a whole project only, as operations are asked after there. What it deploys may do
  what the server may; beyond that it can neither change who may do what nor delete what holds
  data, so whoever writes to the main branch is no owner of the project. What takes more (accounts
  and grants, the bucket, the network, another API, a new secret) is a person's `pulumi up`.
- `review`, for `pulumi preview` of pull requests: it sees that the project exists.
"""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from .component import Component
from .names import SUFFIX_BYTES, account_id
from .settings import GitHubRepository

ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = ".github/workflows/deploy.yml"
BRANCH = "refs/heads/main"

SERVICE_ROLE = "roles/run.developer"  # not who may call it
INSTANCE_ROLE = "roles/cloudsql.editor"  # its settings; not its users, and no deletion
EXISTING_INSTANCE_ROLE = "roles/cloudsql.viewer"
WATCHING_ROLES = ("roles/monitoring.alertPolicyEditor",)
CLOUD_BUILD_ROLES = (
    "roles/cloudbuild.builds.editor",
    "roles/serviceusage.serviceUsageConsumer",  # gcloud counts its calls for the project
)
# The provider reads back the version that it has made. None may be destroyed: the key is in one.
SECRET_ROLES = (
    "roles/secretmanager.secretVersionAdder",
    "roles/secretmanager.viewer",
    "roles/secretmanager.secretAccessor",
)
# https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools
DISPLAY_NAME_MAX = 32
# Google takes 127 bytes, which GitHub's own subject exceeds where names are long.
SUBJECT = "assertion.repository_id + ':' + assertion.event_name"


def trusted(repository: GitHubRepository) -> str:
    """The tokens that are looked at: GitHub gives them to everybody's workflows.

    By the number too: a name that its owner has given up may be taken by anybody.
    https://cloud.google.com/iam/docs/best-practices-for-using-workload-identity-federation#avoid-cybersquatting
    """
    return (
        f"assertion.repository_id == '{repository.number}' && "
        f"assertion.repository == '{repository.name}'"
    )


def job(repository: str) -> str:
    """Which of the two a token is for, as an attribute that the grants below name.

    The workflow as well as the branch: a `pull_request_target` of another workflow has the main
    branch as its ref, and runs what a stranger wrote.
    https://docs.github.com/en/actions/reference/security/oidc
    """
    deploys = (
        f"assertion.workflow_ref == '{repository}/{WORKFLOW}@{BRANCH}' && "
        "(assertion.event_name == 'push' || assertion.event_name == 'workflow_dispatch')"
    )
    return (
        f"({deploys}) ? 'deploy' : (assertion.event_name == 'pull_request' ? 'review' : 'neither')"
    )


class Deployer(Component):
    """`provider` and the two e-mail addresses are what the workflow is told."""

    provider: pulumi.Output[str]
    deploy_account: pulumi.Output[str]
    review_account: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        project: str,
        region: str,
        prefix: str,
        repository: GitHubRepository,
        # What it may change and act as, by a short name of each.
        secret_ids: Mapping[str, pulumi.Input[str]],
        accounts: Mapping[str, pulumi.Input[str]],
        images: pulumi.Input[str] | None,
        source_bucket: pulumi.Input[str] | None,
        watched: bool,
        existing_instance: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        self._project = project
        # The id of a deleted pool stays taken for a month.
        suffix = random.RandomId(
            self.named("github-suffix"), byte_length=SUFFIX_BYTES, opts=self.child()
        )
        pool = gcp.iam.WorkloadIdentityPool(
            self.named("github"),
            workload_identity_pool_id=pulumi.Output.concat("github-", suffix.hex),
            display_name=f"GitHub of {prefix}"[:DISPLAY_NAME_MAX],
            description=f"Deploys the MLflow server {prefix} from {repository.name}",
            opts=self.child(),
        )
        provider = gcp.iam.WorkloadIdentityPoolProvider(
            self.named("github"),
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id="actions",
            display_name="GitHub Actions",
            oidc=gcp.iam.WorkloadIdentityPoolProviderOidcArgs(issuer_uri=ISSUER),
            attribute_condition=trusted(repository),
            attribute_mapping={
                "google.subject": SUBJECT,
                "attribute.job": job(repository.name),
            },
            opts=self.child(),
        )
        deploy, self.deploy_account = self._account("deploy", prefix=prefix, pool=pool)
        review, self.review_account = self._account("review", prefix=prefix, pool=pool)
        self.provider = provider.name

        self._on_project("review", "roles/browser", review)
        roles = [SERVICE_ROLE, EXISTING_INSTANCE_ROLE if existing_instance else INSTANCE_ROLE]
        if watched:
            roles += WATCHING_ROLES
        if source_bucket is not None:
            roles += CLOUD_BUILD_ROLES
            gcp.storage.BucketIAMMember(
                self.named("deploy-brings-source"),
                bucket=source_bucket,
                role="roles/storage.admin",
                member=deploy,
                opts=self.child(),
            )
        for role in roles:
            self._on_project("deploy", role, deploy)
        if images is not None:
            gcp.artifactregistry.RepositoryIamMember(
                self.named("deploy-pushes-images"),
                repository=images,
                location=region,
                role="roles/artifactregistry.writer",
                member=deploy,
                opts=self.child(),
            )
        for key, email in accounts.items():
            gcp.serviceaccount.IAMMember(
                self.named(f"deploy-acts-as-{key}"),
                service_account_id=pulumi.Output.concat(
                    "projects/", project, "/serviceAccounts/", email
                ),
                role="roles/iam.serviceAccountUser",
                member=deploy,
                opts=self.child(),
            )
        for key, secret_id in secret_ids.items():
            for role in SECRET_ROLES:
                gcp.secretmanager.SecretIamMember(
                    self.named(f"deploy-{key}-{_short(role)}"),
                    secret_id=secret_id,
                    role=role,
                    member=deploy,
                    opts=self.child(),
                )
        self.register_outputs({"provider": self.provider})

    def _account(
        self, what: str, *, prefix: str, pool: gcp.iam.WorkloadIdentityPool
    ) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """Its name as a member, and its e-mail address."""
        account = gcp.serviceaccount.Account(
            self.named(what),
            account_id=account_id(prefix, what),
            display_name=f"GitHub Actions, {what} of {prefix}",
            opts=self.child(),
        )
        gcp.serviceaccount.IAMMember(
            self.named(f"github-is-{what}"),
            service_account_id=account.name,
            role="roles/iam.workloadIdentityUser",
            member=pulumi.Output.concat(
                "principalSet://iam.googleapis.com/", pool.name, f"/attribute.job/{what}"
            ),
            opts=self.child(),
        )
        return pulumi.Output.concat("serviceAccount:", account.email), account.email

    def _on_project(self, who: str, role: str, member: pulumi.Input[str]) -> None:
        gcp.projects.IAMMember(
            self.named(f"{who}-{_short(role)}"),
            project=self._project,
            role=role,
            member=member,
            opts=self.child(),
        )


def _short(role: str) -> str:
    return role.removeprefix("roles/").replace(".", "-")
