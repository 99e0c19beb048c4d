"""Checks that the names that the stack needs aren't taken already.

Names with a random suffix (bucket, instance, pool) are free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .declared import Resource
from .findings import Finding, fix, not_checked, ok
from .google import Answer, Google

Inputs = Mapping[str, Any]


def _global(collection: str) -> tuple[str, str, Callable[[str, Inputs], str]]:
    return (
        collection,
        "compute",
        lambda project, own: f"compute/v1/projects/{project}/global/{collection}/{own['name']}",
    )


def _regional(collection: str) -> tuple[str, str, Callable[[str, Inputs], str]]:
    return (
        collection,
        "compute",
        lambda project, own: (
            f"compute/v1/projects/{project}/regions/{own['region']}/{collection}/{own['name']}"
        ),
    )


def _account(project: str, own: Inputs) -> str:
    email = f"{own['accountId']}@{project}.iam.gserviceaccount.com"
    return f"v1/projects/{project}/serviceAccounts/{email}"


# By type: what messages call it, its API, and its path.
LOOKUPS: Mapping[str, tuple[str, str, Callable[[str, Inputs], str]]] = {
    "gcp:cloudrunv2/service:Service": (
        "Cloud Run services",
        "run",
        lambda project, own: (
            f"v2/projects/{project}/locations/{own['location']}/services/{own['name']}"
        ),
    ),
    "gcp:cloudrunv2/job:Job": (
        "Cloud Run jobs",
        "run",
        lambda project, own: (
            f"v2/projects/{project}/locations/{own['location']}/jobs/{own['name']}"
        ),
    ),
    "gcp:cloudrunv2/workerPool:WorkerPool": (
        "Cloud Run worker pools",
        "run",
        lambda project, own: (
            f"v2/projects/{project}/locations/{own['location']}/workerPools/{own['name']}"
        ),
    ),
    "gcp:cloudscheduler/job:Job": (
        "Cloud Scheduler jobs",
        "cloudscheduler",
        lambda project, own: f"v1/projects/{project}/locations/{own['region']}/jobs/{own['name']}",
    ),
    "gcp:serviceaccount/account:Account": ("service accounts", "iam", _account),
    "gcp:secretmanager/secret:Secret": (
        "secrets",
        "secretmanager",
        lambda project, own: f"v1/projects/{project}/secrets/{own['secretId']}",
    ),
    "gcp:artifactregistry/repository:Repository": (
        "image repositories",
        "artifactregistry",
        lambda project, own: (
            f"v1/projects/{project}/locations/{own['location']}/repositories/{own['repositoryId']}"
        ),
    ),
    # Known only for an existing instance.
    "gcp:sql/database:Database": (
        "databases",
        "sqladmin",
        lambda project, own: (
            f"v1/projects/{project}/instances/{own['instance']}/databases/{own['name']}"
        ),
    ),
    "gcp:logging/metric:Metric": (
        "log metrics",
        "logging",
        lambda project, own: f"v2/projects/{project}/metrics/{quote(own['name'], safe='')}",
    ),
    "gcp:compute/network:Network": _global("networks"),
    "gcp:compute/subnetwork:Subnetwork": _regional("subnetworks"),
    "gcp:compute/globalAddress:GlobalAddress": _global("addresses"),
    "gcp:compute/regionNetworkEndpointGroup:RegionNetworkEndpointGroup": _regional(
        "networkEndpointGroups"
    ),
    "gcp:compute/backendService:BackendService": _global("backendServices"),
    "gcp:compute/uRLMap:URLMap": _global("urlMaps"),
    "gcp:compute/targetHttpProxy:TargetHttpProxy": _global("targetHttpProxies"),
    "gcp:compute/targetHttpsProxy:TargetHttpsProxy": _global("targetHttpsProxies"),
    "gcp:compute/managedSslCertificate:ManagedSslCertificate": _global("sslCertificates"),
    "gcp:compute/sSLPolicy:SSLPolicy": _global("sslPolicies"),
    "gcp:compute/securityPolicy:SecurityPolicy": _global("securityPolicies"),
    "gcp:compute/globalForwardingRule:GlobalForwardingRule": _global("forwardingRules"),
}


@dataclass(frozen=True, kw_only=True)
class Lookup:
    kind: str
    api: str
    path: str


def lookups(resources: Sequence[Resource], project: str) -> list[Lookup]:
    found = []
    for resource in resources:
        if resource.type not in LOOKUPS:
            continue
        kind, api, path = LOOKUPS[resource.type]
        try:
            found.append(Lookup(kind=kind, api=api, path=path(project, resource.inputs)))
        except KeyError:
            continue  # A part of the path isn't known before the resource is created.
    return found


def get_resource(google: Google, lookup: Lookup) -> Answer:
    return google.get(lookup.api, lookup.path)


def check_names(
    answers: Sequence[tuple[Lookup, Answer]], *, name: str, state_known: bool
) -> list[Finding]:
    taken = [lookup for lookup, answer in answers if answer.ok]
    free = [lookup for lookup, answer in answers if answer.missing]
    off = [(lookup, answer.off) for lookup, answer in answers if answer.off]
    unknown: dict[str, list[str]] = {}
    for lookup, answer in answers:
        if not (answer.ok or answer.missing or answer.off):
            unknown.setdefault(answer.trouble, []).append(lookup.kind)
    found = []
    if taken and state_known:
        found += [
            fix(
                "names",
                f"taken, and not by this stack: {lookup.path.partition('/')[2]}",
                f"pulumi config set name {name}-2, or take it over: pulumi import, docs/moving.md",
            )
            for lookup in taken
        ]
    elif taken:
        found.append(
            not_checked(
                "names",
                f"{_kinds(taken)} with its names exist; whether they are this stack's, Pulumi "
                "does not say",
            )
        )
    elif free:
        found.append(ok("names", f"{len(free)} free"))
    if off:
        apis = " ".join(dict.fromkeys(api for _, api in off))
        found.append(
            not_checked(
                "names",
                f"{_kinds([lookup for lookup, _ in off])}: their APIs are still off",
                f"to have them checked: gcloud services enable {apis}",
            )
        )
    for trouble, kinds in unknown.items():
        found.append(not_checked("names", f"{', '.join(dict.fromkeys(kinds))}: {trouble}"))
    return found or [ok("names", "all belong to the stack already")]


def _kinds(of: Sequence[Lookup]) -> str:
    return ", ".join(dict.fromkeys(lookup.kind for lookup in of))
