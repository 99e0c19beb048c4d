"""Artifact Registry and the server's image, built from `image/` and named by its digest."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path, PurePath

import pulumi
import pulumi_command as command
import pulumi_docker as docker
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.names import SUFFIX_BYTES, account_id, bucket_prefix
from .scope import Scope

# In the repository, `image/` is next to this package; an installed package contains it.
_HERE = Path(__file__).parents[1]
_INSTALLED = _HERE / "container"
SOURCE = _INSTALLED if _INSTALLED.is_dir() else _HERE.parent / "image"
PLATFORM = "linux/amd64"  # the platform of Cloud Run, whatever machine builds the image

CLOUD_BUILD_APIS = ("cloudbuild",)

KEPT_IMAGES = 10
KEPT_SECONDS = 30 * 24 * 3600

# The only line on stdout is the image's name with its digest. The script uses only sh and gcloud,
# so that it runs on any Unix. Cloud Build's docker reads .dockerignore; gcloud must not, because it
# can't re-include a file from an ignored folder.
CLOUD_BUILD = """set -eu
gcloud builds submit %(context)s --project "$PROJECT" --config %(context)s/cloudbuild.yaml \
  --substitutions "_IMAGE=$IMAGE,_ACCOUNT=$ACCOUNT" \
  --gcs-source-staging-dir "gs://$SOURCE_BUCKET/source" --quiet >&2
gcloud artifacts docker images describe "$IMAGE" --project "$PROJECT" \
  --format 'value(image_summary.fully_qualified_digest)'
"""
# How long the uploaded source is kept: a build reads it only once.
SOURCE_DAYS = 1


def context() -> str:
    """Returns the path from the program's folder, so that it is the same on every machine."""
    return Path(os.path.relpath(SOURCE)).as_posix()


def content_hash(folder: Path) -> str:
    """Returns a hash that changes if, and only if, Docker's build context changes.

    It covers names, contents and executable bits of the files that .dockerignore lets through, but
    not times, owners or the order of the listing.
    """
    ignored = _ignore_rules(folder / ".dockerignore")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
        relative = path.relative_to(folder)
        if ignored(relative):
            continue
        if path.is_symlink():
            kind, content = b"l", os.readlink(path).encode()
        elif path.is_file():
            kind = b"x" if path.stat().st_mode & 0o100 else b"f"
            content = path.read_bytes()
        else:
            continue
        for part in (kind, relative.as_posix().encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _ignore_rules(file: Path) -> Callable[[PurePath], bool]:
    """Returns .dockerignore as a function: the last rule that matches a path or its parents wins.

    https://docs.docker.com/build/concepts/context/#dockerignore-files, without `[a-z]` and `\\`.
    """
    lines = file.read_text().splitlines() if file.exists() else []
    rules = []
    for line in (line.strip() for line in lines):
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").strip().strip("/")
            rules.append((_regex(pattern), not line.startswith("!")))

    def ignored(path: PurePath) -> bool:
        names = [each.as_posix() for each in (path, *path.parents) if each.name]
        verdict = False
        for pattern, ignores in rules:
            if any(pattern.fullmatch(name) for name in names):
                verdict = ignores
        return verdict

    return ignored


def _regex(pattern: str) -> re.Pattern[str]:
    translated = {"**/": r"(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(translated.get(part, re.escape(part)) for part in parts))


class Image(Component):
    """Builds and pushes the image.

    `reference` names it by its digest: with a tag, Cloud Run wouldn't notice a new build.
    """

    APIS = ("artifactregistry",)

    reference: pulumi.Output[str]
    repository: pulumi.Output[str]
    # Only with Cloud Build: the bucket for the source, and the account that builds run as.
    source_bucket: pulumi.Output[str] | None = None
    builder_account: pulumi.Output[str] | None = None

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        builder: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        repository = gcp.artifactregistry.Repository(
            self.named("images"),
            repository_id=scope.prefix,
            location=scope.region,
            format="DOCKER",
            kms_key_name=scope.kms_key,
            description=f"Images of the MLflow server {scope.prefix}",
            # "Keep" wins over "delete". The image in use is the newest, or after a rollback one of
            # the last few.
            cleanup_policy_dry_run=False,
            cleanup_policies=[
                gcp.artifactregistry.RepositoryCleanupPolicyArgs(
                    id="keep-newest",
                    action="KEEP",
                    most_recent_versions=gcp.artifactregistry.RepositoryCleanupPolicyMostRecentVersionsArgs(
                        keep_count=KEPT_IMAGES
                    ),
                ),
                gcp.artifactregistry.RepositoryCleanupPolicyArgs(
                    id="delete-old",
                    action="DELETE",
                    condition=gcp.artifactregistry.RepositoryCleanupPolicyConditionArgs(
                        tag_state="ANY", older_than=f"{KEPT_SECONDS}s"
                    ),
                ),
            ],
            # Another key replaces the repository under the same name.
            opts=self.child(delete_before_replace=True),
        )
        self.repository = repository.repository_id
        host = f"{scope.region}-docker.pkg.dev"
        image = pulumi.Output.concat(
            host, "/", scope.project, "/", repository.repository_id, "/server"
        )
        if builder == "cloud-build":
            self.reference = self._build_in_cloud(scope, repository=repository, image=image)
        else:
            self.reference = self._build_here(repository, host=host, image=image)
        self.register_outputs({"reference": self.reference})

    def _build_here(
        self,
        repository: gcp.artifactregistry.Repository,
        *,
        host: str,
        image: pulumi.Output[str],
    ) -> pulumi.Output[str]:
        # Each run has a new token, but the provider compares only the server:
        # `diffUpdates` in pulumi-docker's provider/provider.go.
        token = gcp.organizations.get_client_config_output(
            opts=pulumi.InvokeOutputOptions(parent=self)
        ).access_token
        return docker.Image(
            self.named("server"),
            image_name=pulumi.Output.concat(image, ":latest"),
            build=docker.DockerBuildArgs(
                context=context(), dockerfile=f"{context()}/Dockerfile", platform=PLATFORM
            ),
            registry=docker.RegistryArgs(
                server=host,
                username="oauth2accesstoken",
                password=pulumi.Output.secret(token),
            ),
            # Images are deleted with their repository.
            opts=self.child(replace_with=[repository]),
        ).repo_digest

    def _build_in_cloud(
        self,
        scope: Scope,
        *,
        repository: gcp.artifactregistry.Repository,
        image: pulumi.Output[str],
    ) -> pulumi.Output[str]:
        """Builds as an account that can only read the source, push the image and write logs.

        https://cloud.google.com/build/docs/securing-builds/configure-user-specified-service-accounts
        The project's default account has too many permissions or, in newer projects, none.
        """
        suffix = random.RandomId(
            self.named("source-suffix"),
            byte_length=SUFFIX_BYTES,
            keepers={"region": scope.region},
            opts=self.child(),
        )
        bucket = gcp.storage.Bucket(
            self.named("source"),
            name=pulumi.Output.concat(
                bucket_prefix(scope.project, scope.prefix, "source"), "-", suffix.hex
            ),
            location=scope.region.upper(),
            # The bucket only holds copies, for a day.
            force_destroy=True,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=0),
            lifecycle_rules=[
                gcp.storage.BucketLifecycleRuleArgs(
                    action=gcp.storage.BucketLifecycleRuleActionArgs(type="Delete"),
                    condition=gcp.storage.BucketLifecycleRuleConditionArgs(age=SOURCE_DAYS),
                )
            ],
            encryption=gcp.storage.BucketEncryptionArgs(default_kms_key_name=scope.kms_key)
            if scope.kms_key
            else None,
            opts=self.child(),
        )
        account = gcp.serviceaccount.Account(
            self.named("builder"),
            account_id=account_id(scope.prefix, "build"),
            display_name=f"Builds the MLflow server {scope.prefix}",
            opts=self.child(),
        )
        member = pulumi.Output.concat("serviceAccount:", account.email)
        grants = [
            gcp.storage.BucketIAMMember(
                self.named("builder-reads-source"),
                bucket=bucket.name,
                role="roles/storage.objectViewer",
                member=member,
                opts=self.child(),
            ),
            gcp.artifactregistry.RepositoryIamMember(
                self.named("builder-pushes-images"),
                repository=repository.repository_id,
                location=scope.region,
                role="roles/artifactregistry.writer",
                member=member,
                opts=self.child(),
            ),
            gcp.projects.IAMMember(
                self.named("builder-logs"),
                project=scope.project,
                role="roles/logging.logWriter",
                member=member,
                opts=self.child(),
            ),
        ]
        self.source_bucket, self.builder_account = bucket.name, account.email
        source = content_hash(SOURCE)
        build = command.local.Command(
            self.named("server"),
            create=CLOUD_BUILD % {"context": shlex.quote(context())},
            interpreter=["/bin/sh", "-c"],
            environment={
                "PROJECT": scope.project,
                # A separate tag for each source, so that two concurrent runs don't mix up digests.
                "IMAGE": pulumi.Output.concat(image, f":src-{source[:16]}"),
                "ACCOUNT": account.email,
                "SOURCE_BUCKET": bucket.name,
            },
            triggers=[source],
            opts=pulumi.ResourceOptions.merge(
                self.child(replace_with=[repository]), pulumi.ResourceOptions(depends_on=grants)
            ),
        )
        return build.stdout.apply(str.strip)
