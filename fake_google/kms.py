"""The user's keys in Cloud KMS: which of Google's services may encrypt with them.

https://cloud.google.com/kms/docs/cmek and https://cloud.google.com/iam/docs/service-agents
"""

from __future__ import annotations

from fake_google.errors import Refused
from fake_google.iam import policy as iam
from fake_google.project import PROJECT_NUMBER, Project

# The domains of service agents that aren't named after their API.
_DOMAINS = {
    "sqladmin": "gcp-sa-cloud-sql",
    "run": "serverless-robot-prod",
    "storage": "gs-project-accounts",
}


def service_agent(api: str) -> str:
    """Returns the account of one of Google's own services in this project."""
    domain = _DOMAINS.get(api, f"gcp-sa-{api}")
    return f"service-{PROJECT_NUMBER}@{domain}.iam.gserviceaccount.com"


def check_key(project: Project, key: str | None, *, api: str, location: str) -> None:
    """Checks a key as the service does before it first encrypts with it."""
    if key is None:
        return
    if f"/locations/{location.lower()}/" not in key:
        raise Refused(
            f"Error 400: The Cloud KMS key {key} can't be used in {location}: key and resource "
            "must be in the same location."
        )
    agent, permission = service_agent(api), "cloudkms.cryptoKeyVersions.useToEncrypt"
    if not project.policy.allowed(agent, permission, iam.crypto_key(key)):
        raise Refused(
            f"Error 403: Permission {permission!r} denied on resource {key!r} (or it may not "
            f"exist) for {agent}."
        )
