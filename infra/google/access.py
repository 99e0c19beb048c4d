"""Access to the server: which callers reach it, before it asks for the username and the password.

- `public`: anyone.
- `internal`: anyone in the project's VPC networks. These callers have no Google identity to show,
  and many organisations forbid grants to `allUsers`, so Cloud Run's check of callers is off:
  https://cloud.google.com/run/docs/securing/ingress
- `iam`: the invokers, with an ID token:
  https://cloud.google.com/run/docs/authenticating/overview
- `iap`: the invokers, through Identity-Aware Proxy, the only caller that the service accepts:
  https://cloud.google.com/run/docs/securing/identity-aware-proxy-cloud-run
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..settings.schema import AccessSettings
from .scope import Scope

IAP_APIS = ("iap",)


def ingress(access: AccessSettings, *, balanced: bool) -> str:
    if access.mode == "internal":
        return "INGRESS_TRAFFIC_INTERNAL_ONLY"
    # Callers could use Cloud Run's own address to avoid the load balancer and its rate limit.
    return "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" if balanced else "INGRESS_TRAFFIC_ALL"


def invoker_check_off(access: AccessSettings) -> bool:
    """Returns whether Cloud Run's check of callers is off."""
    public = access.mode == "public" and access.public_through == "invokerIamDisabled"
    return public or access.mode == "internal"


def audiences(access: AccessSettings, custom_domains: Sequence[str]) -> list[str] | None:
    """Returns the audiences that an ID token may have in addition to Cloud Run's own addresses.

    https://cloud.google.com/run/docs/configuring/custom-audiences
    """
    by_token = access.mode == "iam" and custom_domains
    return [f"https://{domain}" for domain in custom_domains] if by_token else None


def iap_audience(scope: Scope, project_number: pulumi.Input[str]) -> pulumi.Output[str]:
    """Returns the audience of the assertions with which IAP tells the service who calls it.

    https://cloud.google.com/iap/docs/signed-headers-howto#verifying_the_jwt_payload
    """
    return pulumi.Output.format(
        "/projects/{0}/locations/{1}/services/{2}", project_number, scope.region, scope.prefix
    )


def grant(
    *,
    access: AccessSettings,
    service: gcp.cloudrunv2.Service,
    project: str,
    project_number: pulumi.Input[str],
    of: Component,
) -> None:
    """Declares the grants that the access requires, as resources of the component `of`."""

    def invoker(name: str, member: pulumi.Input[str]) -> None:
        gcp.cloudrunv2.ServiceIamMember(
            of.named(name),
            name=service.name,
            location=service.location,
            role="roles/run.invoker",
            member=member,
            opts=of.child(),
        )

    if access.mode == "public" and not invoker_check_off(access):
        invoker("public", "allUsers")
    elif access.mode == "iam":
        for member in access.invokers:
            invoker(f"invoker-{member}", member)
    elif access.mode == "iap":
        # Google would create this agent at its first use, too late for the grants below.
        agent = gcp.projects.ServiceIdentity(
            of.named("iap-agent"),
            project=project,
            service="iap.googleapis.com",
            opts=of.child(),
        )
        invoker("iap", agent.member)
        for member in access.invokers:
            gcp.iap.WebCloudRunServiceIamMember(
                of.named(f"iap-{member}"),
                # The project's number, not its id:
                # https://github.com/hashicorp/terraform-provider-google/issues/23092
                project=project_number,
                location=service.location,
                cloud_run_service_name=service.name,
                role="roles/iap.httpsResourceAccessor",
                member=member,
                opts=of.child(),
            )
