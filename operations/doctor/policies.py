"""Checks for organisation policies that would refuse the declared resources.

Constraints: https://cloud.google.com/resource-manager/docs/organization-policy/org-policy-constraints
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.facts.regions import REGIONS

from .declared import Resource
from .findings import Finding, fix, not_checked, ok, warning
from .google import Answer, Google

ASK = "or ask the organisation's policy administrator for an exception for the project"

# The constraint's names for the ingress settings of Cloud Run's API:
# https://cloud.google.com/run/docs/securing/ingress#org-policy
INGRESS = {
    "INGRESS_TRAFFIC_ALL": "all",
    "INGRESS_TRAFFIC_INTERNAL_ONLY": "internal",
    "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER": "internal-and-cloud-load-balancing",
}
# The same for the traffic that Cloud Run sends through a network.
EGRESS = {"ALL_TRAFFIC": "all-traffic", "PRIVATE_RANGES_ONLY": "private-ranges-only"}
# The value for the stack's load balancer:
# https://cloud.google.com/load-balancing/docs/org-policy-constraints
BALANCER = "GLOBAL_EXTERNAL_MANAGED_HTTP_HTTPS"
# Services whose resources have a key with kmsKey.
ENCRYPTED = ("artifactregistry", "run", "secretmanager", "sqladmin", "storage")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """An effective policy's rules.

    Rules with a condition depend on the project's tags, so only their existence is recorded.
    """

    enforced: bool
    # None: everything except what is denied.
    allowed: frozenset[str] | None
    denied: frozenset[str]
    # Whether iam.managed.allowedPolicyMembers allows whole organisations or projects.
    principal_sets: bool
    conditional: bool

    def allows(self, value: str) -> bool:
        if value in self.denied:
            return False
        return self.allowed is None or value in self.allowed


def parse(body: Mapping[str, Any]) -> Rules:
    """https://cloud.google.com/resource-manager/docs/reference/orgpolicy/rest/v2/projects.policies"""
    spec = body.get("spec")
    listed = spec.get("rules") if isinstance(spec, dict) else None
    rules = [rule for rule in listed or [] if isinstance(rule, dict)]
    always = [rule for rule in rules if not rule.get("condition")]
    allowed: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    for rule in always:
        values = rule.get("values") or {}
        if values.get("allowedValues"):
            allowed = (allowed or frozenset()) | _values(values["allowedValues"])
        denied |= _values(values.get("deniedValues", []))
        if rule.get("denyAll") is True:
            allowed = allowed or frozenset()
    if any(rule.get("allowAll") is True for rule in always):
        allowed = None
    return Rules(
        enforced=any(rule.get("enforce") is True for rule in always),
        allowed=allowed,
        denied=denied,
        principal_sets=any(
            (rule.get("parameters") or {}).get("allowedPrincipalSets") for rule in always
        ),
        conditional=len(always) < len(rules),
    )


def _values(given: Sequence[Any]) -> frozenset[str]:
    return frozenset(str(value).removeprefix("is:") for value in given)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    why: str
    how: str
    sure: bool = True


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The declared properties that policies restrict."""

    everyone_invokes: bool
    # Whether service agents, which are Google's own accounts, get grants.
    agents: bool
    invoker_check_off: bool
    # None: the service exists already.
    ingress: str | None
    locations: frozenset[str]
    public_database: bool
    accounts: bool
    # The services that the stack uses, such as `run.googleapis.com`.
    services: frozenset[str] = frozenset()
    # Whether the stack's data has a key in Cloud KMS.
    own_key: bool = False
    # The issuer of tokens for GitHub's workflow; None: none.
    issuer: str | None = None
    # Whether a network is peered with Google's services.
    peering: bool = False
    # What Cloud Run sends through a network; None: nothing.
    vpc_egress: str | None = None
    load_balancer: bool = False
    # How many seconds the bucket keeps deleted objects; None: no bucket is created.
    soft_delete: str | None = None


def looked_at(resources: Sequence[Resource]) -> Declared:
    """Returns the properties of resources that don't exist yet; policies ignore existing ones."""
    by_type: dict[str, list[Resource]] = {}
    for resource in resources:
        by_type.setdefault(resource.type, []).append(resource)

    def inputs(type_: str) -> list[Mapping[str, Any]]:
        return [resource.inputs for resource in by_type.get(type_, [])]

    services = inputs("gcp:cloudrunv2/service:Service")
    places = {str(service["location"]) for service in services}
    for bucket in inputs("gcp:storage/bucket:Bucket"):
        places.add(str(bucket["location"]).lower())
    for secret in inputs("gcp:secretmanager/secret:Secret"):
        # https://cloud.google.com/secret-manager/docs/choosing-replication
        if "auto" in secret["replication"]:
            places.add("global")
    invokers = inputs("gcp:cloudrunv2/serviceIamMember:ServiceIamMember")
    instances = inputs("gcp:sql/databaseInstance:DatabaseInstance")
    return Declared(
        everyone_invokes=any(each.get("member") == "allUsers" for each in invokers),
        agents=bool(by_type.get("gcp:projects/serviceIdentity:ServiceIdentity")),
        invoker_check_off=any(each.get("invokerIamDisabled") is True for each in services),
        ingress=next((INGRESS[str(service["ingress"])] for service in services), None),
        locations=frozenset(places),
        public_database=any(_has_public_address(instance) for instance in instances),
        accounts=bool(by_type.get("gcp:serviceaccount/account:Account")),
        services=frozenset(str(each["service"]) for each in inputs("gcp:projects/service:Service")),
        own_key=any("encryptionKeyName" in instance for instance in instances),
        issuer=next(
            (
                str(provider["oidc"]["issuerUri"])
                for provider in inputs(
                    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"
                )
            ),
            None,
        ),
        peering=bool(by_type.get("gcp:servicenetworking/connection:Connection")),
        vpc_egress=next(
            (
                EGRESS[str(access["egress"])]
                for service in services
                if (access := (service.get("template") or {}).get("vpcAccess"))
            ),
            None,
        ),
        load_balancer=bool(by_type.get("gcp:compute/globalForwardingRule:GlobalForwardingRule")),
        soft_delete=next(
            (
                f"{bucket['softDeletePolicy']['retentionDurationSeconds']:.0f}"
                for bucket in inputs("gcp:storage/bucket:Bucket")
                if bucket.get("softDeletePolicy")
            ),
            None,
        ),
    )


def _has_public_address(instance: Mapping[str, Any]) -> bool:
    """Returns whether an instance has a public address."""
    address = (instance.get("settings") or {}).get("ipConfiguration") or {}
    return address.get("ipv4Enabled") is True


EVERYONE = (
    "pulumi config set publicThrough invokerIamDisabled (the server still asks for the password)"
)
AGENTS = "may forbid what kmsKey and access iap grant to Google's own service agents"
TELLS = (
    "`pulumi up` will show it; if so, ask the organisation's policy administrator for an exception"
)


def _domains(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if rules.allowed is None:
        return
    if declared.everyone_invokes:
        yield Refusal(why="forbids the grant to allUsers", how=EVERYONE)
    if declared.agents:
        # https://cloud.google.com/resource-manager/docs/organization-policy/domain-restricted-sharing
        yield Refusal(why=AGENTS, how=TELLS, sure=False)


def _members(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if not rules.enforced:
        return
    # The policy lists allowed members in a format that can't contain allUsers.
    if declared.everyone_invokes:
        yield Refusal(why="forbids the grant to allUsers", how=EVERYONE)
    if declared.agents:
        yield Refusal(why=AGENTS, how=TELLS, sure=False)
    if not rules.principal_sets:
        yield Refusal(
            why="lists single accounts, probably not the server's",
            how=TELLS,
            sure=False,
        )


def _invoker_check(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if rules.enforced and declared.invoker_check_off:
        yield Refusal(
            why="forbids turning off Cloud Run's invoker check, which publicThrough "
            "invokerIamDisabled and access internal require",
            how="pulumi config set access iam, with invokers, or publicThrough allUsers where that "
            f"is allowed, {ASK}",
        )


def _ingress(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if declared.ingress is None or rules.allows(declared.ingress):
        return
    ways = [
        setting
        for value, setting in (
            ("internal", "pulumi config set access internal"),
            (
                "internal-and-cloud-load-balancing",
                "pulumi config set loadBalancer true, with customDomains",
            ),
        )
        if rules.allows(value)
    ]
    yield Refusal(why=f"forbids the ingress {declared.ingress}", how=", or ".join([*ways, ASK[3:]]))


def _locations(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    for place in sorted(declared.locations):
        answer = _allows_place(rules, place)
        if answer is True:
            continue
        how = (
            "pulumi config set kmsKey with a key of the region, which keeps the secrets there, "
            f"{ASK}"
            if place == "global"
            else f"pulumi config set gcp:region, and bucketLocation, to an allowed one, {ASK}"
        )
        what = "secrets replicated automatically, which are global" if place == "global" else place
        if answer is False:
            yield Refusal(why=f"forbids {what}", how=how)
        else:
            yield Refusal(
                why=f"names groups of locations, which may exclude {what}",
                how=f"`pulumi up` will show it; if so, {how}",
                sure=False,
            )


def _allows_place(rules: Rules, place: str) -> bool | None:
    """Returns whether the rules allow the place; None if that depends on a group of locations.

    https://cloud.google.com/resource-manager/docs/organization-policy/defining-locations
    """
    if place in rules.denied or _in_groups(rules.denied, place):
        return False
    if rules.allowed is None or place in rules.allowed or _in_groups(rules.allowed, place):
        return True
    groups = {value for value in rules.allowed if value.startswith("in:")}
    others = {group for group in groups if not _of_regions(group)}
    return None if others and place != "global" else False


def _group(value: str) -> str:
    """`in:us-central1-locations` -> `us-central1`"""
    return value.removeprefix("in:").removesuffix("-locations")


def _of_regions(value: str) -> bool:
    """Returns whether the value is the group of a region, or of all regions with that prefix."""
    group = _group(value)
    return any(region == group or region.startswith(f"{group}-") for region in REGIONS)


def _in_groups(values: frozenset[str], place: str) -> bool:
    return any(
        place == _group(value) or (place in REGIONS and place.startswith(f"{_group(value)}-"))
        for value in values
        if value.startswith("in:")
    )


def _public_database(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if rules.enforced and declared.public_database:
        yield Refusal(
            why="forbids databases with a public address", how="pulumi config set network private"
        )


def _accounts(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if rules.enforced and declared.accounts:
        yield Refusal(why="forbids new service accounts, and the server runs as one", how=ASK[3:])


def _issuers(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if declared.issuer and not rules.allows(declared.issuer):
        yield Refusal(
            why=f"forbids tokens of {declared.issuer}",
            how=f"pulumi config rm githubRepository, {ASK}",
        )


def _keys(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    demanded = [name for name in ENCRYPTED if f"{name}.googleapis.com" in rules.denied]
    if demanded and not declared.own_key:
        yield Refusal(
            why=f"requires a key of Cloud KMS for {', '.join(demanded)}",
            how="pulumi config set kmsKey with a key in the stack's region",
        )


def _peering(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    # The values are networks and folders, and the other side is a project of Google's.
    if declared.peering and (rules.allowed is not None or rules.denied):
        yield Refusal(
            why="limits which networks may be peered, which network private needs",
            how="pulumi config set network public, or existingNetwork with a peered network, "
            f"{ASK}",
            sure=False,
        )


def _vpc_egress(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if declared.vpc_egress and not rules.allows(declared.vpc_egress):
        yield Refusal(why=f"forbids the egress {declared.vpc_egress}", how=ASK[3:])


def _balancers(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    allowed = rules.allowed is None or {BALANCER, "in:EXTERNAL"} & rules.allowed
    if declared.load_balancer and (not allowed or {BALANCER, "in:EXTERNAL"} & rules.denied):
        yield Refusal(
            why="forbids global external load balancers",
            how=f"pulumi config set loadBalancer false, {ASK}",
        )


def _soft_delete(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    if declared.soft_delete and not rules.allows(declared.soft_delete):
        yield Refusal(
            why=f"forbids to keep deleted objects for {declared.soft_delete} seconds",
            how=f"pulumi config set existingBucket with a bucket of yours, {ASK}",
        )


def _services(rules: Rules, declared: Declared) -> Iterator[Refusal]:
    forbidden = sorted(name for name in declared.services if not rules.allows(name))
    if forbidden:
        yield Refusal(why=f"forbids {', '.join(forbidden)}", how=ASK[3:])


CONSTRAINTS = {
    "iam.allowedPolicyMemberDomains": _domains,
    "iam.managed.allowedPolicyMembers": _members,
    "run.managed.requireInvokerIam": _invoker_check,
    "run.allowedIngress": _ingress,
    "gcp.resourceLocations": _locations,
    "sql.restrictPublicIp": _public_database,
    "iam.disableServiceAccountCreation": _accounts,
    "iam.workloadIdentityPoolProviders": _issuers,
    "gcp.restrictNonCmekServices": _keys,
    "gcp.restrictServiceUsage": _services,
    "compute.restrictVpcPeering": _peering,
    "run.allowedVPCEgress": _vpc_egress,
    "compute.restrictLoadBalancerCreationForTypes": _balancers,
    "storage.softDeletePolicySeconds": _soft_delete,
}


def get_policy(google: Google, project: str, constraint: str) -> Answer:
    path = f"v2/projects/{project}/policies/{constraint}:getEffectivePolicy"
    return google.get("orgpolicy", path)


def check_policies(answers: Mapping[str, Answer], declared: Declared) -> list[Finding]:
    found: list[Finding] = []
    unknown: dict[str, list[str]] = {}
    fine = 0
    for constraint, answer in answers.items():
        if not answer.ok:
            unknown.setdefault(answer.trouble, []).append(constraint)
            continue
        rules = parse(answer.body)
        refusals = list(CONSTRAINTS[constraint](rules, declared))
        if rules.conditional and not refusals:
            unknown.setdefault("it depends on the project's tags", []).append(constraint)
        fine += not refusals and not rules.conditional
        for refusal in refusals:
            lifted = ", unless a tag of the project lifts it" if rules.conditional else ""
            verdict = fix if refusal.sure and not rules.conditional else warning
            found.append(verdict("policies", f"{constraint} {refusal.why}{lifted}", refusal.how))
    if fine:
        found.insert(0, ok("policies", f"{fine} of {len(answers)} policies forbid none of it"))
    off = {answer.trouble: answer.off for answer in answers.values() if answer.off}
    for trouble, constraints in unknown.items():
        how = f"gcloud services enable {off[trouble]}" if trouble in off else ""
        found.append(not_checked("policies", f"{', '.join(constraints)}: {trouble}", how))
    return found
