"""Checks the project's quotas that the declared resources could exceed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infra.facts.limits import mebibytes
from infra.settings.schema import ServiceSettings

from .declared import Resource
from .findings import Finding, fix, not_checked, ok
from .google import Answer, Google

# Cloud Run refuses a service whose instances could together exceed these quotas, in thousandths of
# a CPU and in bytes. https://cloud.google.com/run/quotas
CPU = "CpuAllocPerProjectRegion"
MEMORY = "MemAllocPerProjectRegion"
MORE = "https://console.cloud.google.com/iam-admin/quotas?project={project}"

# The quota of each type: https://cloud.google.com/compute/docs/reference/rest/v1/projects.
# A quota that the project doesn't list isn't limited.
COMPUTE = {
    "gcp:compute/network:Network": "NETWORKS",
    "gcp:compute/subnetwork:Subnetwork": "SUBNETWORKS",
    "gcp:compute/backendService:BackendService": "BACKEND_SERVICES",
    "gcp:compute/uRLMap:URLMap": "URL_MAPS",
    "gcp:compute/targetHttpProxy:TargetHttpProxy": "TARGET_HTTP_PROXIES",
    "gcp:compute/targetHttpsProxy:TargetHttpsProxy": "TARGET_HTTPS_PROXIES",
    "gcp:compute/managedSslCertificate:ManagedSslCertificate": "SSL_CERTIFICATES",
    "gcp:compute/sSLPolicy:SSLPolicy": "SSL_POLICIES",
    "gcp:compute/securityPolicy:SecurityPolicy": "SECURITY_POLICIES",
}


def get_run_quota(google: Google, project: str, quota: str) -> Answer:
    """https://cloud.google.com/docs/quotas/reference/rest/v1/projects.locations.services.quotaInfos"""
    service = "services/run.googleapis.com"
    return google.get(
        "cloudquotas", f"v1/projects/{project}/locations/global/{service}/quotaInfos/{quota}"
    )


def limit_in(body: Mapping[str, Any], region: str) -> int | None:
    """Returns the limit, below 0 for no limit, or None if the response has none."""
    infos = body.get("dimensionsInfos")
    general: int | None = None
    for info in infos if isinstance(infos, list) else []:
        try:
            value = int(info["details"]["value"])
            named = (info.get("dimensions") or {}).get("region")
            places = info.get("applicableLocations") or []
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        if named == region:
            return value
        if named is None and (not places or region in places):
            general = value
    return general


def check_run_quota(
    answers: Mapping[str, Answer], *, project: str, region: str, service: ServiceSettings
) -> list[Finding]:
    each = {CPU: service.cpu * 1000, MEMORY: mebibytes(service.memory) * 2**20}
    shown = {CPU: f"{service.cpu} CPU", MEMORY: service.memory}
    found = []
    for quota, answer in answers.items():
        limit = limit_in(answer.body, region) if answer.ok else None
        if limit is None:
            why = answer.trouble or "Google's response names no limit"
            how = f"gcloud services enable {answer.off}" if answer.off else ""
            found.append(not_checked("quota", f"Cloud Run's {quota}: {why}", how))
        elif 0 <= limit < each[quota] * service.max_instances:
            fit = limit // each[quota]
            smaller = f"pulumi config set maxInstances {fit}, or " if fit else ""
            found.append(
                fix(
                    "quota",
                    f"maxInstances {service.max_instances} with {shown[quota]} each is more than "
                    f"Cloud Run allows in {region}: {quota} is {limit}",
                    f"{smaller}ask for more: {MORE.format(project=project)}",
                )
            )
        else:
            found.append(ok("quota", f"maxInstances {service.max_instances} fit {quota}"))
    return found


def get_compute_quota(google: Google, project: str) -> Answer:
    return google.get("compute", f"compute/v1/projects/{project}", fields="quotas")


def of_compute(resources: Iterable[Resource]) -> Counter[str]:
    return Counter(COMPUTE[each.type] for each in resources if each.type in COMPUTE)


def check_compute_quota(
    answer: Answer, *, project: str, wanted: Mapping[str, int]
) -> list[Finding]:
    quotas = answer.body.get("quotas")
    if not answer.ok or not isinstance(quotas, list):
        why = answer.trouble or "Google's response names none"
        return [not_checked("quota", f"Compute Engine's: {why}")]
    full = [
        fix(
            "quota",
            f"{wanted[metric]} more of Compute Engine's {metric} are needed, and {used:g} of "
            f"{limit:g} are used",
            f"ask for more: {MORE.format(project=project)}",
        )
        for metric, limit, used in _usage(quotas)
        if used + wanted.get(metric, 0) > limit and wanted.get(metric)
    ]
    return full or [ok("quota", "Compute Engine's quotas are large enough")]


def _usage(quotas: Sequence[Any]) -> list[tuple[str, float, float]]:
    found = []
    for quota in quotas:
        try:
            found.append((str(quota["metric"]), float(quota["limit"]), float(quota["usage"])))
        except (KeyError, TypeError, ValueError):
            continue
    return found
