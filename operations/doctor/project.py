"""Checks the project: that it exists, that billing is on, and which APIs are on."""

from __future__ import annotations

from collections.abc import Sequence

from .findings import Finding, fix, not_checked, ok
from .google import Answer, Google

# The most APIs in one request: https://cloud.google.com/service-usage/docs/reference/rest/v1/services/batchGet
BATCH = 30


def get_project(google: Google, project: str) -> Answer:
    return google.get("cloudresourcemanager", f"v3/projects/{project}")


def check_project(answer: Answer, project: str) -> Finding:
    if answer.ok:
        state = str(answer.body.get("state"))
        if state == "ACTIVE":
            return ok("project", project)
        return fix(
            "project",
            f"{project} is {state}",
            f"gcloud projects undelete {project}, or another: "
            "pulumi config set gcp:project my-project",
        )
    if answer.off or answer.status not in {401, 403, 404}:
        return not_checked("project", answer.trouble)
    if answer.status == 401:
        return fix("project", answer.trouble, "gcloud auth application-default login")
    # Google doesn't tell other users whether the project exists.
    return fix(
        "project",
        f"{project} does not exist, or the logged-in user may not see it",
        "gcloud projects list shows yours, and pulumi config set gcp:project my-project takes "
        "another (its id, not its name or number)",
    )


def get_billing(google: Google, project: str) -> Answer:
    return google.get("cloudbilling", f"v1/projects/{project}/billingInfo")


def check_billing(answer: Answer, project: str) -> Finding:
    if not answer.ok:
        return not_checked(
            "billing",
            answer.trouble,
            "https://console.cloud.google.com/billing/linkedaccount?project=" + project,
        )
    if answer.body.get("billingEnabled") is True:
        account = str(answer.body.get("billingAccountName", "")).removeprefix("billingAccounts/")
        return ok("billing", f"paid for by {account}")
    return fix(
        "billing",
        "no open billing account pays for the project",
        f"gcloud billing projects link {project} --billing-account 012345-6789AB-CDEF01 "
        "(gcloud billing accounts list shows yours)",
    )


def get_apis(google: Google, project: str, apis: Sequence[str]) -> Answer:
    names = [f"projects/{project}/services/{api}" for api in apis]
    if len(names) > BATCH:
        raise ValueError(f"{len(names)} APIs in one question, which takes {BATCH}")
    return google.get("serviceusage", f"v1/projects/{project}/services:batchGet", names=names)


def apis_off(answer: Answer, apis: Sequence[str]) -> list[str] | None:
    """Returns the APIs that are off, or None if unknown."""
    services = answer.body.get("services")
    if not answer.ok or not isinstance(services, list):
        return None
    on = {
        str(service.get("name")).rpartition("/")[2]
        for service in services
        if isinstance(service, dict) and service.get("state") == "ENABLED"
    }
    return [api for api in apis if api not in on]


ENABLE = "serviceusage.services.enable"


def check_apis(
    answer: Answer, *, project: str, apis: Sequence[str], granted: frozenset[str] | None
) -> Finding:
    """`granted` are the caller's permissions on the project; None: unknown."""
    off = apis_off(answer, apis)
    if off is None:
        return not_checked("APIs", answer.trouble or "Google's response names no services")
    if not off:
        return ok("APIs", f"all {len(apis)} are on")
    listed = ", ".join(api.removesuffix(".googleapis.com") for api in off)
    if granted is None:
        return not_checked("APIs", f"whether `pulumi up` may switch on {listed}")
    if ENABLE in granted:
        return ok("APIs", f"`pulumi up` switches on {listed}")
    return fix(
        "APIs",
        f"off, and you may not switch them on: {listed}",
        f"have somebody with the role Service Usage Admin run: gcloud services enable "
        f"{' '.join(off)} --project {project}",
    )
