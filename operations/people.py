"""`make people`: lists and changes people's accounts, through MLflow's REST API."""

from __future__ import annotations

import secrets
from typing import Any

from operations.env import AUTH
from operations.errors import OperationError
from operations.stack import CloudStack, Stack
from operations.tracking import Refused, Tracking

API, API_3 = "/api/2.0/mlflow/users", "/api/3.0/mlflow/users"
ACTIONS = ("list", "add", "remove", "reset", "promote", "demote", "grant", "revoke")
PERMISSIONS = ("READ", "USE", "EDIT", "MANAGE", "DENY")
# Bytes of a generated password, which has a third more letters and digits.
_PASSWORD_BYTES = 24


def people(stack: Stack, *, what: str, person: str, resource: str, permission: str) -> None:
    """Do what `what` says with the account `person`; see docs/accounts.md."""
    if what not in ACTIONS:
        raise OperationError(
            f"WHAT={what!r} isn't known: one of {', '.join(ACTIONS)}, for example WHAT=add."
        )
    if what != "list" and not (person and person.isprintable() and ":" not in person):
        raise OperationError(
            f"PERSON={person!r} isn't an account's name: any text without a colon, for example "
            f"make people WHAT={what} PERSON=ada@example.com."
        )
    _ = stack.outputs
    _check(stack)
    tracking = Tracking(stack)
    match what:
        case "list":
            _list(tracking)
        case "add":
            password = secrets.token_urlsafe(_PASSWORD_BYTES)
            tracking.send("POST", f"{API}/create", username=person, password=password)
            access = stack.setting("access") if isinstance(stack, CloudStack) else ""
            print(onboarding(tracking.address, person, password, access))
        case "reset":
            password = secrets.token_urlsafe(_PASSWORD_BYTES)
            tracking.send("PATCH", f"{API}/update-password", username=person, password=password)
            print(f"The new password of {person}, which is shown only now: {password}")
        case "remove":
            tracking.send("DELETE", f"{API}/delete", username=person)
            print(f"{person} is removed, and locked out everywhere within 30 seconds.")
        case "promote" | "demote":
            is_admin = what == "promote"
            tracking.send("PATCH", f"{API}/update-admin", username=person, is_admin=is_admin)
            print(f"{person} is {'an' if is_admin else 'no longer an'} administrator.")
        case _:
            _change_permission(tracking, what, person, resource, permission)


def onboarding(address: str, person: str, password: str, access: str) -> str:
    """Returns what the administrator needs to know, and a text to send to the account's owner."""
    google = f"\n  export MLFLOW_TRACKING_AUTH={AUTH[access]}" if access in AUTH else ""
    return f"""\
The account {person} exists. Its password, which is shown only now: {password}

Send the password to its owner, and in another way this text:

You have an account on our MLflow server. Open {address} in a browser,
and log in as {person} with the password that you have been sent. In a shell, before a
program that logs runs:

  export MLFLOW_TRACKING_URI={address}
  export MLFLOW_TRACKING_USERNAME={person}
  read -rs MLFLOW_TRACKING_PASSWORD && export MLFLOW_TRACKING_PASSWORD{google}

You may create experiments and models, and share yours on the page. Ask an administrator for
access to others', or for another password."""


def _check(stack: Stack) -> None:
    if stack.setting("accounts") != "true":
        raise OperationError(
            f"{stack} has no accounts: `pulumi config set accounts true`, then `pulumi up`; or "
            "`make local-up CONFIG=accounts=true` on this computer."
        )


def _list(tracking: Tracking) -> None:
    users: list[dict[str, Any]] = tracking.get(f"{API}/list")["users"]
    width = max(len(user["username"]) for user in users)
    for user in sorted(users, key=lambda user: str(user["username"])):
        # Each person's own permissions are a role with such a name.
        roles = [role["name"] for role in user["roles"] if not role["name"].startswith("__user_")]
        about = ["administrator"] if user["is_admin"] else []
        print(f"{user['username']:{width}}  {', '.join(about + sorted(roles))}".rstrip())


def _change_permission(
    tracking: Tracking, what: str, person: str, resource: str, permission: str
) -> None:
    kind, slash, name = resource.partition("/")
    if not (kind and slash and name):
        raise OperationError(
            f"RESOURCE={resource!r} isn't known: a type and an id or name, for example "
            "RESOURCE=experiment/12, RESOURCE=registered_model/churn or RESOURCE='experiment/*'."
        )
    if what == "grant" and permission not in PERMISSIONS:
        raise OperationError(
            f"PERMISSION={permission!r} isn't known: one of {', '.join(PERMISSIONS)}, for example "
            "PERMISSION=EDIT."
        )
    target = {"username": person, "resource_type": kind, "resource_id": name}
    if what == "revoke":
        tracking.send("POST", f"{API_3}/permissions/revoke", **target)
        print(f"The permission of {person} on {resource} is withdrawn; roles may still grant one.")
        return
    try:
        tracking.send("POST", f"{API_3}/permissions/grant", **target, permission=permission)
    except Refused as refused:
        if refused.kind != "RESOURCE_ALREADY_EXISTS":
            raise
        _replace(tracking, person, kind, name, permission)
    print(f"{person} has {permission} on {resource}.")


def _replace(tracking: Tracking, person: str, kind: str, name: str, permission: str) -> None:
    """Change a permission in one step, so that the person never has less than before or after.

    MLflow's own call to grant a permission refuses to change one.
    """
    found = [
        given["id"]
        for user in tracking.get(f"{API}/list")["users"]
        if user["username"] == person
        for role in user["roles"]
        if role["name"] == f"__user_{user['id']}__"
        for given in role["permissions"]
        if (given["resource_type"], given["resource_pattern"]) == (kind, name)
    ]
    if not found:
        raise OperationError("The permission changed meanwhile: run the same command again.")
    path = "/api/3.0/mlflow/roles/permissions/update"
    tracking.send("PATCH", path, role_permission_id=found[0], permission=permission)
