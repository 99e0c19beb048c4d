"""The project's custom roles, and how Google and the provider handle deleted ones.

https://cloud.google.com/iam/docs/creating-custom-roles
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from fake_google.errors import NotFound, Refused
from fake_google.iam.policy import ROLES
from fake_google.project import Inputs, Outputs, Project

# https://cloud.google.com/iam/docs/reference/rest/v1/projects.roles
_ID = re.compile(r"[a-zA-Z0-9_.]{3,64}")
_PERMISSION = re.compile(r"[a-z]+\.[A-Za-z]+\.[A-Za-z]+")
_TITLE_BYTES = 100
# https://cloud.google.com/iam/docs/creating-custom-roles#deleting-custom-role
UNDELETED_FOR = timedelta(days=7)
TAKEN_FOR = timedelta(days=37)


def role_name(project: Project, inputs: Inputs) -> str:
    return f"projects/{inputs.get('project') or project.id}/roles/{inputs['roleId']}"


def make_role(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name = role_name(project, inputs)
    if not _ID.fullmatch(inputs["roleId"]):
        raise Refused(
            f"Error 400: The role_id {inputs['roleId']} is not valid: 3 to 64 letters, digits, "
            "underscores and periods."
        )
    if len(inputs["title"].encode()) > _TITLE_BYTES:
        raise Refused(f"Error 400: The title has more than {_TITLE_BYTES} bytes.")
    permissions = frozenset(inputs["permissions"])
    if unknown := [each for each in permissions if not _is_permission(each)]:
        raise Refused(f"Error 400: Permission {unknown[0]} is not valid.")
    if not permissions:
        raise Refused("Error: Not enough list items: permissions requires at least 1.")
    if deleted := project.deleted_roles.get(name):
        # Before that, the provider undeletes the role and then updates it.
        # https://github.com/hashicorp/terraform-provider-google/blob/main/google/services/resourcemanager/resource_google_project_iam_custom_role.go
        if UNDELETED_FOR <= datetime.now(UTC) - deleted < TAKEN_FOR:
            raise Refused(
                f"Error 400: You can't create a role with role_id ({inputs['roleId']}) where there "
                "is an existing role with that role_id in a deleted state."
            )
        del project.deleted_roles[name]
    project.policy.custom_roles[name] = permissions
    return name, {"name": name, "deleted": False}


def _is_permission(text: str) -> bool:
    """Returns whether the permission exists; only IAM's own permissions are checked here."""
    known = text in frozenset[str]().union(*ROLES.values())
    return known or (_PERMISSION.fullmatch(text) is not None and not text.startswith("iam."))


def delete_role(project: Project, _olds: Inputs, inputs: Inputs) -> None:
    """Deletes a role. Its grants stay, without effect until the role is undeleted."""
    name = role_name(project, inputs)
    project.policy.custom_roles.pop(name, None)
    project.deleted_roles[name] = datetime.now(UTC)


def check_exists(project: Project, role: str) -> None:
    """Checks that a custom role exists. Google's own roles aren't all known here."""
    if role.startswith("projects/") and role not in project.policy.custom_roles:
        raise NotFound(f"Error 400: Role ({role}) does not exist in the resource's hierarchy.")
