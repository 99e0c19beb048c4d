"""Checks for Cloud SQL instances of the stack that Pulumi's state doesn't have.

The provider adds an instance to the state only once its creation has succeeded, so an instance is
left out if its creation was interrupted or took too long.
"""

from __future__ import annotations

import re

from infra.facts.names import SUFFIX_BYTES

from .findings import Finding, fix, not_checked, ok, warning
from .google import Answer, Google
from .stack import INSTANCE, State

WHAT = "instances"


def get_instances(google: Google, project: str) -> Answer:
    """https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1/instances/list"""
    return google.get("sqladmin", f"v1/projects/{project}/instances")


def check_instances(answer: Answer, *, name: str, state: State) -> list[Finding]:
    if answer.off:
        return []
    if not answer.ok:
        return [not_checked(WHAT, answer.trouble)]
    ours = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{2 * SUFFIX_BYTES}}}")
    names = [str(each.get("name")) for each in answer.body.get("items") or ()]
    lost = sorted(each for each in names if ours.fullmatch(each) and each not in state.instances)
    if not lost:
        return [ok(WHAT, "none that Pulumi does not know of")]
    if not state.known:
        why = "whether Pulumi knows of them, it does not say"
        return [not_checked(WHAT, f"{', '.join(lost)}: {why}")]
    return [_lost(each, name, state) for each in lost]


def _lost(instance: str, name: str, state: State) -> Finding:
    delete = (
        f"gcloud sql instances patch {instance} --no-deletion-protection && "
        f"gcloud sql instances delete {instance}"
    )
    suffix = state.suffix
    if suffix is None or instance != f"{name}-{suffix.hex}" or state.instances:
        return warning(
            WHAT,
            f"{instance} has the stack's name and costs money, and is not in Pulumi's state",
            f"if nobody needs it: {delete}",
        )
    return fix(
        WHAT,
        f"{instance} exists but is not in Pulumi's state: its creation was interrupted",
        f"take it over: pulumi import {INSTANCE} instance {instance} "
        f"--parent database={suffix.parent} --generate-code=false; or delete it: {delete}",
    )
