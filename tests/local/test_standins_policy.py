"""Access checks: members, roles, resources, conditions."""

from __future__ import annotations

import pytest

from fake_google.iam import policy as iam
from fake_google.iam.policy import Condition, Grant, Policy, UnsupportedCondition

SERVER = "server@p.iam.gserviceaccount.com"
INSTANCE = iam.sql_instance("p", "mlflow-1")
OTHER = iam.sql_instance("p", "mlflow-2")
CONNECT = "cloudsql.instances.connect"
NAME = 'resource.name == "projects/p/instances/mlflow-1"'
SERVICE = 'resource.service == "sqladmin.googleapis.com"'


@pytest.mark.parametrize(
    ("expression", "instance", "other"),
    [
        (f"{NAME} && {SERVICE}", True, False),
        (f"{SERVICE} && {NAME}", True, False),
        (f"  {SERVICE}&&{NAME.replace(chr(34), chr(39))} ", True, False),
        (NAME, True, False),
        (SERVICE, True, True),
        (f'{NAME} && resource.service == "run.googleapis.com"', False, False),
    ],
)
def test_a_condition_restricts_the_grant(expression: str, instance: bool, other: bool) -> None:
    grant = Grant(
        "roles/cloudsql.client", f"serviceAccount:{SERVER}", None, Condition.parse(expression)
    )
    policy = Policy([grant])
    assert policy.allowed(SERVER, CONNECT, INSTANCE) is instance
    assert policy.allowed(SERVER, CONNECT, OTHER) is other


@pytest.mark.parametrize(
    "expression",
    [
        "",
        f"{NAME} || {SERVICE}",
        f"!({NAME})",
        'resource.name.startsWith("projects/p/instances/")',
        'request.time < timestamp("2030-01-01T00:00:00Z")',
        f"{NAME} &&",
        'resource.type == "sqladmin.googleapis.com/Instance"',
    ],
)
def test_an_unknown_condition_is_refused(expression: str) -> None:
    with pytest.raises(UnsupportedCondition, match="not understood"):
        Condition.parse(expression)


BUCKET = iam.bucket("b")


@pytest.mark.parametrize(
    ("role", "member", "identity", "permission", "allowed"),
    [
        ("roles/storage.objectUser", f"serviceAccount:{SERVER}", SERVER, "objects.get", True),
        ("roles/storage.objectUser", f"serviceAccount:{SERVER}", SERVER, "objects.delete", True),
        ("roles/storage.objectUser", f"serviceAccount:{SERVER}", "other@p", "objects.get", False),
        ("roles/storage.objectUser", f"serviceAccount:{SERVER}", None, "objects.get", False),
        ("roles/storage.objectUser", f"serviceAccount:{SERVER}", SERVER, "buckets.get", False),
        ("roles/storage.objectViewer", f"serviceAccount:{SERVER}", SERVER, "objects.get", True),
        ("roles/storage.objectViewer", f"serviceAccount:{SERVER}", SERVER, "objects.create", False),
        ("roles/storage.objectViewer", "allUsers", None, "objects.get", True),
        ("roles/storage.objectViewer", "allAuthenticatedUsers", None, "objects.get", False),
        ("roles/owner", f"serviceAccount:{SERVER}", SERVER, "objects.get", False),
    ],
)
def test_a_role_grants_its_permissions(
    role: str, member: str, identity: str | None, permission: str, allowed: bool
) -> None:
    policy = Policy([Grant(role, member, BUCKET)])
    assert policy.allowed(identity, f"storage.{permission}", BUCKET) is allowed
    assert not policy.allowed(identity, f"storage.{permission}", iam.bucket("another"))
