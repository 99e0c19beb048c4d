"""Artifact Registry and the server's image, built from `image/` and named by its digest."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePath

import pulumi
import pulumi_command as command
import pulumi_docker as docker
import pulumi_gcp as gcp

from infra.component import Component

CONTEXT = Path("image")
PLATFORM = "linux/amd64"  # what Cloud Run runs, whatever the machine that builds

KEPT_IMAGES = 10
KEPT_SECONDS = 30 * 24 * 3600

# The only line on stdout is the image by its digest. sh and gcloud alone, for any Unix. The
# build there reads .dockerignore; gcloud must not: to it, a file in an ignored folder stays so.
CLOUD_BUILD = f"""set -eu
gcloud builds submit {CONTEXT} --project "$PROJECT" --tag "$IMAGE" --quiet >&2
gcloud artifacts docker images describe "$IMAGE" --project "$PROJECT" \
  --format 'value(image_summary.fully_qualified_digest)'
"""


def content_hash(folder: Path) -> str:
    """Changes if, and only if, what Docker would be given does.

    Names, contents and executable bits of what .dockerignore lets through; not times, owners
    or the order of listing.
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
    """.dockerignore as a function: the last rule that matches a file or a folder of it wins.

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
    """`reference` is the pushed image by digest: by tag, a new build would not roll out."""

    reference: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        project: str,
        region: str,
        prefix: str,
        builder: str,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        repository = gcp.artifactregistry.Repository(
            "images",
            repository_id=prefix,
            location=region,
            format="DOCKER",
            description=f"Images of the MLflow server {prefix}",
            # Keep wins over delete, and the image in use is the newest, or one of the last
            # after a rollback.
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
            opts=self.child(),
        )
        host = f"{region}-docker.pkg.dev"
        image = pulumi.Output.concat(host, "/", project, "/", repository.repository_id, "/server")
        if builder == "cloud-build":
            self.reference = self._build_in_cloud(project=project, image=image)
        else:
            self.reference = self._build_here(host=host, image=image)
        self.register_outputs({"reference": self.reference})

    def _build_here(self, *, host: str, image: pulumi.Output[str]) -> pulumi.Output[str]:
        # The token is another one at each run. The provider compares only the server:
        # `diffUpdates` in pulumi-docker's provider/provider.go.
        token = gcp.organizations.get_client_config_output(
            opts=pulumi.InvokeOutputOptions(parent=self)
        ).access_token
        return docker.Image(
            "server",
            image_name=pulumi.Output.concat(image, ":latest"),
            build=docker.DockerBuildArgs(
                context=str(CONTEXT), dockerfile=str(CONTEXT / "Dockerfile"), platform=PLATFORM
            ),
            registry=docker.RegistryArgs(
                server=host,
                username="oauth2accesstoken",
                password=pulumi.Output.secret(token),
            ),
            opts=self.child(),
        ).repo_digest

    def _build_in_cloud(self, *, project: str, image: pulumi.Output[str]) -> pulumi.Output[str]:
        source = content_hash(CONTEXT)
        build = command.local.Command(
            "server",
            create=CLOUD_BUILD,
            interpreter=["/bin/sh", "-c"],
            environment={
                "PROJECT": project,
                # A tag of its own: two runs at once can't take each other's digest.
                "IMAGE": pulumi.Output.concat(image, f":src-{source[:16]}"),
            },
            triggers=[source],
            opts=self.child(),
        )
        return build.stdout.apply(str.strip)
