"""Properties whose change replaces a resource under the same name.

Google refuses a second resource with that name, so the old one must be deleted first.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from fake_google.project import Project
from fake_google.resource_types import KINDS
from tests.infra.declared import PROJECT, REGION, Declared, run

EVERYTHING: dict[str, Any] = {
    "network": "private",
    "kmsKey": f"projects/my-keys/locations/{REGION}/keyRings/ring/cryptoKeys/mlflow",
    "builder": "cloud-build",
    "loadBalancer": True,
    "customDomains": ["mlflow.example.com"],
    "rateLimit": 600,
    "alertEmail": "oncall@example.com",
    "githubRepository": "my-org/mlflow-gcp",
    "githubRepositoryId": 74,
    "githubReview": True,
}
DELETED_FIRST = {
    "gcp:artifactregistry/repository:Repository": "kmsKeyName",
    "gcp:secretmanager/secret:Secret": "replication",
    "gcp:sql/databaseInstance:DatabaseInstance": "encryptionKeyName",
}
# The program never changes these alone: they are constant, or the name follows from the same value.
NEVER_ALONE = {
    ("gcp:compute/backendService:BackendService", "loadBalancingScheme"),
    ("gcp:compute/globalAddress:GlobalAddress", "addressType"),
    ("gcp:compute/globalAddress:GlobalAddress", "network"),
    ("gcp:compute/globalAddress:GlobalAddress", "prefixLength"),
    ("gcp:compute/globalAddress:GlobalAddress", "purpose"),
    ("gcp:compute/globalForwardingRule:GlobalForwardingRule", "ipAddress"),
    ("gcp:compute/globalForwardingRule:GlobalForwardingRule", "portRange"),
    ("gcp:compute/managedSslCertificate:ManagedSslCertificate", "managed"),
    ("gcp:compute/network:Network", "autoCreateSubnetworks"),
    ("gcp:compute/network:Network", "description"),
    ("gcp:compute/regionNetworkEndpointGroup:RegionNetworkEndpointGroup", "cloudRun"),
    ("gcp:compute/subnetwork:Subnetwork", "network"),
    ("gcp:storage/bucket:Bucket", "location"),
}


def same_name(resource: Declared) -> set[str]:
    """Returns the properties whose change replaces a resource under the same name."""
    kind = KINDS[resource.type]
    if kind.taken is None:
        return set()
    project = cast("Project", SimpleNamespace(id=PROJECT, region=REGION))
    inputs = resource.inputs
    immutable = inputs.keys() if kind.immutable is None else kind.immutable & inputs.keys()
    name = kind.taken(project, inputs)
    return {key for key in immutable if kind.taken(project, {**inputs, key: "another"}) == name}


def test_resources_with_fixed_names_are_deleted_before_their_replacement() -> None:
    created_first, deleted_first = set(), set()
    for resource in run(EVERYTHING).created:
        if resource.type not in KINDS:
            continue
        found = deleted_first if resource.delete_before_replace else created_first
        found |= {(resource.type, key) for key in same_name(resource)}
    assert created_first == NEVER_ALONE
    assert {token for token, _ in deleted_first} == DELETED_FIRST.keys()
    assert DELETED_FIRST.items() <= deleted_first
