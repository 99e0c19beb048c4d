"""Deploys from GitHub Actions without a key, by Workload Identity Federation.

https://cloud.google.com/iam/docs/workload-identity-federation-with-deployment-pipelines

Each of the two jobs of `.github/workflows/deploy.yml` has its GitHub environment and its account:

- `deploy` runs `pulumi up`, only with the main branch's version of that workflow. The account can
  change the service, the upkeep job, the worker, the image, the settings of the database instance
  and the secrets' values. Google's predefined roles for these also allow deletion, or apply to all
  such resources in the project, so the account has custom roles, most of them on a single resource.
  It can't change grants or delete the service or the instance. Other changes require a person's
  `pulumi up`.
- `review` runs `pulumi preview` for pull requests, and is optional. The account can only see that
  the project exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.names import SUFFIX_BYTES, account_id
from ..settings.schema import GitHubRepository
from .scope import Scope

ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = ".github/workflows/deploy.yml"
BRANCH = "refs/heads/main"
EVENTS = ("push", "workflow_dispatch")
# GitHub's environments, which the accounts are named after.
DEPLOY, REVIEW = "deploy", "review"

# What `pulumi up` calls, by the thing that it is granted on:
# https://cloud.google.com/iam/docs/roles-permissions
ON_SERVICE = ("run.services.get", "run.services.update")
ON_JOB = ("run.jobs.get", "run.jobs.update")
ON_WORKER_POOL = ("run.workerpools.get", "run.workerpools.update")
ON_INSTANCE = ("cloudsql.instances.get", "cloudsql.instances.update")
# The provider enables a version that it has added, and reads it back. It destroys none.
ON_SECRET = (
    "secretmanager.versions.access",
    "secretmanager.versions.add",
    "secretmanager.versions.enable",
    "secretmanager.versions.get",
)
ON_SOURCE = (
    "storage.buckets.get",
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.get",
    "storage.objects.list",
)
# Permissions that Google only grants on a whole project: to read the project's number, and the
# progress of a change, which isn't part of the changed resource.
ON_PROJECT = ("resourcemanager.projects.get", "run.operations.get")
OF_INSTANCES = ("cloudsql.instances.get", "cloudsql.instances.list")
OF_ALERTS = ("monitoring.alertPolicies.get", "monitoring.alertPolicies.update")
OF_BUILDS = (
    "cloudbuild.builds.create",
    "cloudbuild.builds.get",
    "serviceusage.services.use",  # gcloud counts its calls for the project
)
TO_REVIEW = ("resourcemanager.projects.get",)

# https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools
DISPLAY_NAME_MAX = 32
# At most 127 bytes, which GitHub's own subject exceeds where names are long.
SUBJECT = "assertion.repository_id + ':' + assertion.environment"


def condition(repository: GitHubRepository) -> str:
    """Returns which of GitHub's tokens Google accepts. GitHub issues them to everyone's workflows.

    A repository's name can be taken over once its owner has given it up; its number can't:
    https://cloud.google.com/iam/docs/best-practices-for-using-workload-identity-federation#avoid-cybersquatting

    A job gets the claim `environment` only if GitHub's rules for that environment let it run. The
    event, the branch and the workflow are required as well, so that an environment without rules
    grants no access: https://docs.github.com/en/actions/reference/security/oidc
    """
    jobs = [_deploys(repository.name)]
    if repository.review:
        jobs.append(_reviews(repository.name))
    return _all(
        f"assertion.repository_id == '{repository.number}'",
        f"assertion.repository == '{repository.name}'",
        f"({' || '.join(f'({job})' for job in jobs)})",
    )


def _deploys(repository: str) -> str:
    workflow = f"{repository}/{WORKFLOW}@{BRANCH}"
    events = ", ".join(f"'{event}'" for event in EVENTS)
    return _all(
        f"assertion.environment == '{DEPLOY}'",
        f"assertion.event_name in [{events}]",
        f"assertion.ref == '{BRANCH}'",
        # The workflow that was started, and the one that has the job, which may be a reusable one.
        f"assertion.workflow_ref == '{workflow}'",
        f"assertion.job_workflow_ref == '{workflow}'",
    )


def _reviews(repository: str) -> str:
    # The pull request may have changed the workflow: the environment's reviewers read it first.
    return _all(
        f"assertion.environment == '{REVIEW}'",
        "assertion.event_name == 'pull_request'",
        f"assertion.job_workflow_ref.startsWith('{repository}/{WORKFLOW}@refs/pull/')",
    )


def _all(*terms: str) -> str:
    return " && ".join(terms)


class Deployer(Component):
    """Lets GitHub deploy. The workflow needs `provider` and the accounts' e-mail addresses."""

    APIS = ("sts",)

    provider: pulumi.Output[str]
    deploy_account: pulumi.Output[str]
    # None: pull requests aren't previewed.
    review_account: pulumi.Output[str] | None

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        repository: GitHubRepository,
        # The resources that the account may change or act as; the keys are short names.
        service: pulumi.Input[str],
        instance: pulumi.Input[str] | None,
        secret_ids: Mapping[str, pulumi.Input[str]],
        accounts: Mapping[str, pulumi.Input[str]],
        job: pulumi.Input[str] | None,
        worker_pool: pulumi.Input[str] | None,
        images: pulumi.Input[str] | None,
        source_bucket: pulumi.Input[str] | None,
        watched: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        self._scope = scope
        # The id of a deleted pool or role stays taken for a month.
        self._suffix = random.RandomId(
            self.named("github-suffix"), byte_length=SUFFIX_BYTES, opts=self.child()
        ).hex
        pool = gcp.iam.WorkloadIdentityPool(
            self.named("github"),
            workload_identity_pool_id=pulumi.Output.concat("github-", self._suffix),
            display_name=f"GitHub of {scope.prefix}"[:DISPLAY_NAME_MAX],
            description=f"Deploys the MLflow server {scope.prefix} from {repository.name}",
            opts=self.child(),
        )
        self.provider = gcp.iam.WorkloadIdentityPoolProvider(
            self.named("github"),
            workload_identity_pool_id=pool.workload_identity_pool_id,
            workload_identity_pool_provider_id="actions",
            display_name="GitHub Actions",
            oidc=gcp.iam.WorkloadIdentityPoolProviderOidcArgs(issuer_uri=ISSUER),
            attribute_condition=condition(repository),
            attribute_mapping={
                "google.subject": SUBJECT,
                "attribute.environment": "assertion.environment",
            },
            opts=self.child(),
        ).name

        deploy, self.deploy_account = self._account(DEPLOY, pool=pool)
        self._changes_service(service, member=deploy)
        if job is not None:
            self._changes_job(job, member=deploy)
        if worker_pool is not None:
            self._changes_worker_pool(worker_pool, member=deploy)
        if instance is not None:
            self._changes_instance(instance, member=deploy)
        self._changes_secrets(secret_ids, member=deploy)
        self._acts_as(accounts, member=deploy)
        if images is not None:
            gcp.artifactregistry.RepositoryIamMember(
                self.named("deploy-pushes-images"),
                repository=images,
                location=scope.region,
                role="roles/artifactregistry.writer",
                member=deploy,
                opts=self.child(),
            )
        on_project = [*ON_PROJECT]
        if instance is not None:
            on_project += OF_INSTANCES
        if watched:
            on_project += OF_ALERTS
        if source_bucket is not None:
            on_project += OF_BUILDS
            self._brings_source(source_bucket, member=deploy)
        self._on_project("deploy", on_project, member=deploy)

        self.review_account = None
        if repository.review:
            review, self.review_account = self._account(REVIEW, pool=pool)
            self._on_project("review", TO_REVIEW, member=review)
        self.register_outputs({"provider": self.provider})

    def _account(
        self, what: str, *, pool: gcp.iam.WorkloadIdentityPool
    ) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """Returns the account as an IAM member, and its e-mail address."""
        account = gcp.serviceaccount.Account(
            self.named(what),
            account_id=account_id(self._scope.prefix, what),
            display_name=f"GitHub Actions, {what} of {self._scope.prefix}",
            opts=self.child(),
        )
        gcp.serviceaccount.IAMMember(
            self.named(f"github-is-{what}"),
            service_account_id=account.name,
            role="roles/iam.workloadIdentityUser",
            member=pulumi.Output.concat(
                "principalSet://iam.googleapis.com/", pool.name, f"/attribute.environment/{what}"
            ),
            opts=self.child(),
        )
        return pulumi.Output.concat("serviceAccount:", account.email), account.email

    def _role(self, name: str, permissions: Sequence[str]) -> pulumi.Output[str]:
        start = self._scope.prefix.replace("-", "_")
        return gcp.projects.IAMCustomRole(
            self.named(name),
            role_id=pulumi.Output.concat(f"{start}_{name.replace('-', '_')}_", self._suffix),
            title=f"{name} of {self._scope.prefix}",
            description=f"GitHub Actions, for the MLflow server {self._scope.prefix}",
            permissions=sorted(permissions),
            opts=self.child(),
        ).name

    def _changes_service(self, service: pulumi.Input[str], *, member: pulumi.Input[str]) -> None:
        gcp.cloudrunv2.ServiceIamMember(
            self.named("deploy-service"),
            name=service,
            location=self._scope.region,
            role=self._role("deploy-service", ON_SERVICE),
            member=member,
            opts=self.child(),
        )

    def _changes_job(self, job: pulumi.Input[str], *, member: pulumi.Input[str]) -> None:
        gcp.cloudrunv2.JobIamMember(
            self.named("deploy-upkeep"),
            name=job,
            location=self._scope.region,
            role=self._role("deploy-upkeep", ON_JOB),
            member=member,
            opts=self.child(),
        )

    def _changes_worker_pool(self, pool: pulumi.Input[str], *, member: pulumi.Input[str]) -> None:
        gcp.cloudrunv2.WorkerPoolIamMember(
            self.named("deploy-worker"),
            name=pool,
            location=self._scope.region,
            role=self._role("deploy-worker", ON_WORKER_POOL),
            member=member,
            opts=self.child(),
        )

    def _changes_instance(self, instance: pulumi.Input[str], *, member: pulumi.Input[str]) -> None:
        gcp.projects.IAMMember(
            self.named("deploy-database-primary"),
            project=self._scope.project,
            role=self._role("deploy-database", ON_INSTANCE),
            member=member,
            # Google has no policies on single instances:
            # https://cloud.google.com/sql/docs/postgres/iam-conditions
            condition=gcp.projects.IAMMemberConditionArgs(
                title="one instance, primary",
                description=f"The database of the MLflow server {self._scope.prefix}",
                expression=pulumi.Output.format(
                    'resource.name == "projects/{0}/instances/{1}" && '
                    'resource.service == "sqladmin.googleapis.com"',
                    self._scope.project,
                    instance,
                ),
            ),
            opts=self.child(),
        )

    def _changes_secrets(
        self, secret_ids: Mapping[str, pulumi.Input[str]], *, member: pulumi.Input[str]
    ) -> None:
        role = self._role("deploy-secrets", ON_SECRET)
        for key, secret_id in secret_ids.items():
            gcp.secretmanager.SecretIamMember(
                self.named(f"deploy-{key}"),
                secret_id=secret_id,
                role=role,
                member=member,
                opts=self.child(),
            )

    def _acts_as(
        self, accounts: Mapping[str, pulumi.Input[str]], *, member: pulumi.Input[str]
    ) -> None:
        for key, email in accounts.items():
            gcp.serviceaccount.IAMMember(
                self.named(f"deploy-acts-as-{key}"),
                service_account_id=pulumi.Output.concat(
                    "projects/", self._scope.project, "/serviceAccounts/", email
                ),
                role="roles/iam.serviceAccountUser",
                member=member,
                opts=self.child(),
            )

    def _brings_source(self, bucket: pulumi.Input[str], *, member: pulumi.Input[str]) -> None:
        gcp.storage.BucketIAMMember(
            self.named("deploy-brings-source"),
            bucket=bucket,
            role=self._role("deploy-source", ON_SOURCE),
            member=member,
            opts=self.child(),
        )

    def _on_project(
        self, who: str, permissions: Sequence[str], *, member: pulumi.Input[str]
    ) -> None:
        gcp.projects.IAMMember(
            self.named(f"{who}-project"),
            project=self._scope.project,
            role=self._role(f"{who}-project", permissions),
            member=member,
            opts=self.child(),
        )
