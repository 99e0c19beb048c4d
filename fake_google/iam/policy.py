"""Decides who may do what, only from the IAM members that the program declares.

https://cloud.google.com/iam/docs/policies and https://cloud.google.com/iam/docs/roles-permissions
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_OBJECTS = "storage.objects."
_UPLOADS = "storage.multipartUploads."
_ACCOUNTS = "iam.serviceAccounts."
_OBJECT_USER = frozenset(
    {_OBJECTS + verb for verb in ("create", "delete", "get", "list", "update")}
    | {_UPLOADS + verb for verb in ("abort", "create", "list", "listParts")}
)

# Only roles that our program could sensibly grant, and similar ones. Others grant nothing.
ROLES: dict[str, frozenset[str]] = {
    "roles/secretmanager.secretAccessor": frozenset({"secretmanager.versions.access"}),
    "roles/storage.objectViewer": frozenset({_OBJECTS + "get", _OBJECTS + "list"}),
    "roles/storage.objectCreator": frozenset(
        {_OBJECTS + "create", _UPLOADS + "abort", _UPLOADS + "create", _UPLOADS + "listParts"}
    ),
    "roles/storage.objectUser": _OBJECT_USER,
    "roles/storage.objectAdmin": _OBJECT_USER,
    "roles/storage.admin": _OBJECT_USER | {"storage.buckets.get", "storage.objects.restore"},
    "roles/cloudsql.client": frozenset({"cloudsql.instances.connect", "cloudsql.instances.get"}),
    "roles/iam.serviceAccountTokenCreator": frozenset(
        _ACCOUNTS + verb for verb in ("getAccessToken", "getOpenIdToken", "signBlob", "signJwt")
    ),
    "roles/cloudkms.cryptoKeyEncrypterDecrypter": frozenset(
        {"cloudkms.cryptoKeyVersions.useToDecrypt", "cloudkms.cryptoKeyVersions.useToEncrypt"}
    ),
    "roles/run.invoker": frozenset({"run.jobs.run", "run.routes.invoke"}),
    "roles/iap.httpsResourceAccessor": frozenset({"iap.webServiceVersions.accessViaIAP"}),
    "roles/iam.workloadIdentityUser": frozenset({"iam.serviceAccounts.getAccessToken"}),
    "roles/iam.serviceAccountUser": frozenset({"iam.serviceAccounts.actAs"}),
    "roles/artifactregistry.writer": frozenset(
        {
            "artifactregistry.repositories.downloadArtifacts",
            "artifactregistry.repositories.uploadArtifacts",
        }
    ),
    # No stand-in checks these roles' permissions.
    "roles/logging.logWriter": frozenset(),
    "roles/run.serviceAgent": frozenset(),
}

EVERYONE = "allUsers"


class UnsupportedCondition(Exception):
    """An IAM condition that can't be evaluated here; it is refused rather than ignored."""

    def __init__(self, expression: str) -> None:
        super().__init__(
            f"IAM condition not understood: {expression!r}. Understood here: "
            'resource.name == "…" && resource.service == "…" (either order, either one alone).'
        )


@dataclass(frozen=True)
class Resource:
    """A resource under the names that IAM conditions use.

    https://cloud.google.com/iam/docs/conditions-resource-attributes
    """

    service: str
    name: str


@dataclass(frozen=True)
class Condition:
    """Attributes that must all be equal."""

    wanted: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, expression: str) -> Condition:
        wanted = []
        for term in expression.split("&&"):
            match = re.fullmatch(
                r"""\s*resource\.(name|service)\s*==\s*(["'])([^"'\\]+)\2\s*""", term
            )
            if match is None:
                raise UnsupportedCondition(expression)
            wanted.append((match[1], match[3]))
        return cls(tuple(wanted))

    def holds(self, resource: Resource) -> bool:
        return all(getattr(resource, attribute) == value for attribute, value in self.wanted)


@dataclass(frozen=True)
class Grant:
    role: str
    member: str
    # None: the whole project, as in a project's policy.
    resource: Resource | None = None
    condition: Condition | None = None

    def covers(self, resource: Resource) -> bool:
        return self.resource in (None, resource) and (
            self.condition is None or self.condition.holds(resource)
        )


@dataclass
class Policy:
    grants: list[Grant] = field(default_factory=list)
    # The project's custom roles that aren't deleted, by full name, projects/PROJECT/roles/ID.
    custom_roles: dict[str, frozenset[str]] = field(default_factory=dict)

    def add(self, grant: Grant) -> None:
        self.grants.append(grant)

    def remove(self, grant: Grant) -> None:
        if grant in self.grants:
            self.grants.remove(grant)

    def permissions(self, role: str) -> frozenset[str]:
        return self.custom_roles.get(role) or ROLES.get(role, frozenset())

    def allowed(self, identity: str | None, permission: str, resource: Resource) -> bool:
        """`identity` is an e-mail address, or None for a caller without credentials."""
        members = {EVERYONE}
        if identity is not None:
            members |= {f"serviceAccount:{identity}", f"user:{identity}", "allAuthenticatedUsers"}
        return not members.isdisjoint(self.holders(permission, resource))

    def holders(self, permission: str, resource: Resource) -> list[str]:
        """Returns the members with the permission, in the order of their grants."""
        return [
            grant.member
            for grant in self.grants
            if permission in self.permissions(grant.role) and grant.covers(resource)
        ]


def secret(project: str, secret_id: str) -> Resource:
    return Resource("secretmanager.googleapis.com", f"projects/{project}/secrets/{secret_id}")


def bucket(name: str) -> Resource:
    return Resource("storage.googleapis.com", f"projects/_/buckets/{name}")


def service_account(project: str, email: str) -> Resource:
    return Resource("iam.googleapis.com", f"projects/{project}/serviceAccounts/{email}")


def sql_instance(project: str, name: str) -> Resource:
    return Resource("sqladmin.googleapis.com", f"projects/{project}/instances/{name}")


def image_repository(project: str, location: str, repository: str) -> Resource:
    name = f"projects/{project}/locations/{location}/repositories/{repository}"
    return Resource("artifactregistry.googleapis.com", name)


def crypto_key(name: str) -> Resource:
    return Resource("cloudkms.googleapis.com", name)


def run_service(project: str, location: str, name: str) -> Resource:
    return Resource(
        "run.googleapis.com", f"projects/{project}/locations/{location}/services/{name}"
    )


def run_job(project: str, location: str, name: str) -> Resource:
    return Resource("run.googleapis.com", f"projects/{project}/locations/{location}/jobs/{name}")


def run_worker_pool(project: str, location: str, name: str) -> Resource:
    return Resource(
        "run.googleapis.com", f"projects/{project}/locations/{location}/workerPools/{name}"
    )


def web_service(number: str, location: str, name: str) -> Resource:
    """Returns a Cloud Run service as Identity-Aware Proxy names it, with the project's number.

    https://cloud.google.com/iap/docs/reference/rest/v1/v1/setIamPolicy
    """
    return Resource(
        "iap.googleapis.com", f"projects/{number}/iap_web/cloud_run-{location}/services/{name}"
    )
