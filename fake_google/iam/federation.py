"""Workload identity pools: how Google checks their settings, and which tokens they accept.

https://cloud.google.com/iam/docs/reference/rest/v1/projects.locations.workloadIdentityPools
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fake_google.errors import NotFound, Refused
from fake_google.iam import cel
from fake_google.project import PROJECT_NUMBER, Inputs, Outputs, Project

POOL = "gcp:iam/workloadIdentityPool:WorkloadIdentityPool"
_ID = re.compile(r"(?!gcp-)[a-z0-9-]{4,32}")
_TARGET = re.compile(r"google\.(subject|groups)|attribute\.[a-z0-9_]{1,100}")
CONDITION_MAX, MAPPING_MAX, SUBJECT_MAX = 4096, 2048, 127


def pool_name(_project: Project, inputs: Inputs) -> str:
    pool = inputs["workloadIdentityPoolId"]
    return f"projects/{PROJECT_NUMBER}/locations/global/workloadIdentityPools/{pool}"


def provider_name(project: Project, inputs: Inputs) -> str:
    return f"{pool_name(project, inputs)}/providers/{inputs['workloadIdentityPoolProviderId']}"


def make_pool(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name = pool_name(project, inputs)
    _check_id(inputs["workloadIdentityPoolId"])
    # A month: https://cloud.google.com/iam/docs/manage-workload-identity-pools-providers
    if name in project.retired:
        raise Refused(f"Error 409: Requested entity already exists: {name} is soft-deleted.")
    return name, {"name": name, "state": "ACTIVE"}


def delete_pool(project: Project, _olds: Inputs, inputs: Inputs) -> None:
    project.retired.add(pool_name(project, inputs))


def make_provider(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_id(inputs["workloadIdentityPoolProviderId"])
    pool = pool_name(project, inputs)
    if not project.read(POOL, pool):
        raise NotFound(f"Error 404: Requested entity was not found: {pool}.")
    # GitHub issues tokens to everyone's workflows, so Google requires a condition.
    if "github" in inputs["oidc"]["issuerUri"] and not inputs.get("attributeCondition"):
        raise Refused(
            "Error 400: The attribute condition must reference one of the provider's claims."
        )
    if "google.subject" not in inputs["attributeMapping"]:
        raise Refused("Error 400: google.subject must be mapped.")
    _check_expressions(inputs)
    name = provider_name(project, inputs)
    return name, {"name": name, "state": "ACTIVE"}


def _check_expressions(inputs: Inputs) -> None:
    condition: str = inputs.get("attributeCondition") or "true"
    mapping: Mapping[str, str] = inputs["attributeMapping"]
    for target, source in mapping.items():
        if not _TARGET.fullmatch(target):
            raise Refused(f"Error 400: Invalid mapped attribute key: {target}.")
        if len(source) > MAPPING_MAX:
            raise Refused(f"Error 400: The mapping of {target} is over {MAPPING_MAX} characters.")
    if len(condition) > CONDITION_MAX:
        raise Refused(f"Error 400: The attribute condition is over {CONDITION_MAX} characters.")
    for expression in (condition, *mapping.values()):
        try:
            cel.parse(expression)
        except cel.Malformed as error:
            raise Refused(f"Error 400: Error compiling the CEL expression: {error}") from None


@dataclass(frozen=True)
class Federated:
    """The identity of an accepted token."""

    pool: str
    attributes: Mapping[str, str]

    @property
    def members(self) -> frozenset[str]:
        """Returns its names in grants: https://cloud.google.com/iam/docs/principal-identifiers"""
        start = f"://iam.googleapis.com/{self.pool}/"
        return frozenset(
            {
                f"principal{start}subject/{self.attributes['google.subject']}",
                f"principalSet{start}*",
                *(
                    f"principalSet{start}{target}/{value}"
                    for target, value in self.attributes.items()
                    if target.startswith("attribute.")
                ),
            }
        )


def exchange(pool: str, provider: Inputs, claims: Mapping[str, object]) -> Federated:
    """Accepts or refuses the claims of a token with a valid signature, as Google's STS does.

    https://cloud.google.com/iam/docs/workload-identity-federation#conditions
    """
    if claims.get("iss") != provider["oidc"]["issuerUri"]:
        raise Refused(f"Error 400: The issuer {claims.get('iss')} isn't the provider's.")
    allowed = provider["oidc"].get("allowedAudiences") or [
        f"https://iam.googleapis.com/{pool}/providers/{provider['workloadIdentityPoolProviderId']}"
    ]
    if claims.get("aud") not in allowed:
        raise Refused(f"Error 400: The audience {claims.get('aud')} isn't the provider's.")
    attributes: dict[str, str] = {}
    for target, source in provider["attributeMapping"].items():
        value = _value(source, {"assertion": claims}, what=f"The mapping of {target}")
        if not isinstance(value, str):
            raise Refused(f"Error 400: The mapping of {target} isn't a string.")
        attributes[target] = value
    if not 0 < len(attributes["google.subject"].encode()) <= SUBJECT_MAX:
        raise Refused(f"Error 400: google.subject has more than {SUBJECT_MAX} bytes, or none.")
    condition = provider.get("attributeCondition") or "true"
    mapped: dict[str, dict[str, str]] = {"google": {}, "attribute": {}}
    for target, value in attributes.items():
        kind, _, name = target.partition(".")
        mapped[kind][name] = value
    if _value(condition, {"assertion": claims, **mapped}, what="The condition") is not True:
        raise Refused("Error 400: The given credential is rejected by the attribute condition.")
    return Federated(pool, attributes)


def _value(expression: str, values: Mapping[str, object], *, what: str) -> object:
    try:
        return cel.parse(expression)(values)
    except cel.Failed as error:
        raise Refused(f"Error 400: {what} could not be evaluated: {error}.") from None


def _check_id(given: str) -> None:
    if not _ID.fullmatch(given):
        raise Refused(f"Error 400: {given}: 4 to 32 of a-z, 0-9 and -, not starting with gcp-.")
