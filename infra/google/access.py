"""Who reaches the server, before it asks for the username and the password.

- `public`: anyone.
- `internal`: anyone in the project's VPC networks. They have no Google identity to show, and
  `allUsers` is what many organisations forbid, so Cloud Run's check of the caller is off:
  https://cloud.google.com/run/docs/securing/ingress
- `iam`: the invokers, by an ID token:
  https://cloud.google.com/run/docs/authenticating/overview
- `iap`: the invokers, by Identity-Aware Proxy, which alone may call the service:
  https://cloud.google.com/run/docs/securing/identity-aware-proxy-cloud-run
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..settings.model import AccessSettings


def ingress(access: AccessSettings, *, balanced: bool) -> str:
    if access.mode == "internal":
        return "INGRESS_TRAFFIC_INTERNAL_ONLY"
    # Cloud Run's own address would be a way past the load balancer and its limit.
    return "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" if balanced else "INGRESS_TRAFFIC_ALL"


def invoker_check_off(access: AccessSettings) -> bool:
    """Whether Cloud Run lets in whoever the network does."""
    public = access.mode == "public" and access.public_through == "invokerIamDisabled"
    return public or access.mode == "internal"


def audiences(access: AccessSettings, custom_domains: Sequence[str]) -> list[str] | None:
    """What an ID token may be made for, beside Cloud Run's own addresses.

    https://cloud.google.com/run/docs/configuring/custom-audiences
    """
    by_token = access.mode == "iam" and custom_domains
    return [f"https://{domain}" for domain in custom_domains] if by_token else None


def grant(
    *,
    access: AccessSettings,
    service: gcp.cloudrunv2.Service,
    project: str,
    project_number: pulumi.Input[str],
    of: Component,
) -> None:
    """The rights that the access takes. `of` is the component that they belong to."""

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
        # Google makes it at its first use, which is later than this program names it.
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
                # Its number, not its id:
                # https://github.com/hashicorp/terraform-provider-google/issues/23092
                project=project_number,
                location=service.location,
                cloud_run_service_name=service.name,
                role="roles/iap.httpsResourceAccessor",
                member=member,
                opts=of.child(),
            )
