"""Load balancing: checked as Compute Engine does and recorded; nothing is balanced here.

https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from fake_google.errors import NotFound, Refused
from fake_google.project import Inputs, Outputs, Project
from fake_google.resource_type import Delete, Kind, Make

# https://cloud.google.com/compute/docs/naming-resources
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_CERTIFICATES = 15
_LAST_RULE = 2**31 - 1
# The collection that each type has in a resource's full name.
_COLLECTIONS = {
    "regionNetworkEndpointGroup:RegionNetworkEndpointGroup": "networkEndpointGroups",
    "backendService:BackendService": "backendServices",
    "uRLMap:URLMap": "urlMaps",
    "managedSslCertificate:ManagedSslCertificate": "sslCertificates",
    "sSLPolicy:SSLPolicy": "sslPolicies",
    "targetHttpsProxy:TargetHttpsProxy": "targetHttpsProxies",
    "targetHttpProxy:TargetHttpProxy": "targetHttpProxies",
    "globalForwardingRule:GlobalForwardingRule": "forwardingRules",
    "securityPolicy:SecurityPolicy": "securityPolicies",
}
# Properties that can't be changed in place: https://github.com/hashicorp/terraform-provider-google.
_IMMUTABLE = {
    "regionNetworkEndpointGroup:RegionNetworkEndpointGroup": {"region", "cloudRun"},
    "backendService:BackendService": {"loadBalancingScheme"},
    "managedSslCertificate:ManagedSslCertificate": {"managed"},
    "globalForwardingRule:GlobalForwardingRule": {"ipAddress", "portRange"},
}


def _used(inputs: Inputs) -> Iterator[str]:
    """Yields the full names of the resources that a resource uses."""
    for key in ("defaultService", "securityPolicy", "urlMap", "sslPolicy", "target"):
        if inputs.get(key):
            yield inputs[key]
    yield from inputs.get("sslCertificates") or ()
    yield from (backend["group"] for backend in inputs.get("backends") or ())


def _full_name(collection: str) -> Callable[[Project, Inputs], str]:
    def name(project: Project, inputs: Inputs) -> str:
        where = f"regions/{inputs['region']}" if "region" in inputs else "global"
        return f"projects/{project.id}/{where}/{collection}/{inputs['name']}"

    return name


def _make(collection: str) -> Make:
    def make(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
        made = _full_name(collection)(project, inputs)
        if not _NAME.fullmatch(inputs["name"]):
            raise Refused(f"Error 400: Invalid value for field 'resource.name': {inputs['name']!r}")
        existing = {name for _, name in project.live}
        for used in _used(inputs):
            if used not in existing:
                raise NotFound(f"Error 404: The resource {used!r} was not found, notFound")
        if len(inputs.get("sslCertificates") or ()) > _CERTIFICATES:
            raise Refused("Error 400: Too many SSL certificates, SSL_CERTIFICATES_PER_PROXY")
        rules = inputs.get("rules")
        if rules is not None and _LAST_RULE not in {int(rule["priority"]) for rule in rules}:
            raise Refused("Error 400: A security policy must have a default rule")
        return made, {"selfLink": f"https://www.googleapis.com/compute/v1/{made}"}

    return make


def _delete(collection: str) -> Delete:
    def delete(project: Project, _olds: Inputs, inputs: Inputs) -> None:
        name = _full_name(collection)(project, inputs)
        for (_, user), live in project.live.items():
            if name in _used(live.inputs):
                raise Refused(
                    f"Error 400: The resource {name!r} is already being used by {user!r}, "
                    "resourceInUseByAnotherResource"
                )

    return delete


KINDS = {
    f"gcp:compute/{kind}": Kind(
        _make(collection),
        delete=_delete(collection),
        taken=_full_name(collection),
        immutable=frozenset({"name", "project"} | _IMMUTABLE.get(kind, set())),
        api="compute",
    )
    for kind, collection in _COLLECTIONS.items()
}
