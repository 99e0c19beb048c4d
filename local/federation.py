"""Workload identity pools: recorded, with what Google refuses of them.

https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from local.errors import NotFound, Refused
from local.kind import PROJECT_NUMBER, Inputs, Outputs

if TYPE_CHECKING:
    from local.cloud import Cloud

POOL = "gcp:iam/workloadIdentityPool:WorkloadIdentityPool"
_ID = re.compile(r"(?!gcp-)[a-z0-9-]{4,32}")


def pool_name(_cloud: Cloud, inputs: Inputs) -> str:
    pool = inputs["workloadIdentityPoolId"]
    return f"projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/{pool}"


def provider_name(cloud: Cloud, inputs: Inputs) -> str:
    return f"{pool_name(cloud, inputs)}/providers/{inputs['workloadIdentityPoolProviderId']}"


def make_pool(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name = pool_name(cloud, inputs)
    _check_id(inputs["workloadIdentityPoolId"])
    # A month: https://cloud.google.com/iam/docs/manage-workload-identity-pools-providers
    if name in cloud.retired:
        raise Refused(f"Error 409: Requested entity already exists: {name} is soft-deleted.")
    return name, {"name": name, "state": "ACTIVE"}


def delete_pool(cloud: Cloud, _olds: Inputs, inputs: Inputs) -> None:
    cloud.retired.add(pool_name(cloud, inputs))


def make_provider(cloud: Cloud, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_id(inputs["workloadIdentityPoolProviderId"])
    pool = pool_name(cloud, inputs)
    if not cloud.read(POOL, pool):
        raise NotFound(f"Error 404: Requested entity was not found: {pool}.")
    # Of a provider that everybody's workflows are given tokens of.
    if "github" in inputs["oidc"]["issuerUri"] and not inputs.get("attributeCondition"):
        raise Refused(
            "Error 400: The attribute condition must reference one of the provider's claims."
        )
    if "google.subject" not in inputs["attributeMapping"]:
        raise Refused("Error 400: google.subject must be mapped.")
    name = provider_name(cloud, inputs)
    return name, {"name": name, "state": "ACTIVE"}


def _check_id(given: str) -> None:
    if not _ID.fullmatch(given):
        raise Refused(f"Error 400: {given}: 4 to 32 of a-z, 0-9 and -, not starting with gcp-.")
