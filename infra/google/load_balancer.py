"""The load balancer: an address for custom domains, their certificates and the rate limit.

It is a global external Application Load Balancer with the service as its backend, which is what
Google supports for domains in production: https://cloud.google.com/run/docs/mapping-custom-domains.
It allows requests as long and as large as Cloud Run does, up to 60 minutes:
https://cloud.google.com/load-balancing/docs/negs/serverless-neg-concepts#limitations
"""

from __future__ import annotations

from hashlib import sha256

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..settings.schema import LoadBalancerSettings
from .scope import Scope

SCHEME = "EXTERNAL_MANAGED"
# The priority of Cloud Armor's last rule, which each policy must have.
LAST = 2**31 - 1


class LoadBalancer(Component):
    """Google issues the domains' certificates once their A records point to `address`."""

    APIS = ("compute",)

    address: pulumi.Output[str]
    uri: str

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        settings: LoadBalancerSettings,
        service: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        prefix = self._prefix = scope.prefix
        address = gcp.compute.GlobalAddress(
            self.named("address"), name=prefix, opts=self.child()
        ).address
        group = gcp.compute.RegionNetworkEndpointGroup(
            self.named("service"),
            name=prefix,
            region=scope.region,
            network_endpoint_type="SERVERLESS",
            cloud_run=gcp.compute.RegionNetworkEndpointGroupCloudRunArgs(service=service),
            opts=self.child(),
        )
        backend = gcp.compute.BackendService(
            self.named("service"),
            name=prefix,
            load_balancing_scheme=SCHEME,
            protocol="HTTPS",
            backends=[gcp.compute.BackendServiceBackendArgs(group=group.id)],
            security_policy=self._limit(settings.rate_limit) if settings.rate_limit else None,
            opts=self.child(),
        )
        secure = gcp.compute.TargetHttpsProxy(
            self.named("https"),
            name=prefix,
            url_map=gcp.compute.URLMap(
                self.named("https"), name=prefix, default_service=backend.id, opts=self.child()
            ).id,
            ssl_certificates=[self._certificate(domain) for domain in settings.domains],
            # Google's default accepts TLS 1.0.
            ssl_policy=gcp.compute.SSLPolicy(
                self.named("tls"),
                name=prefix,
                profile="MODERN",
                min_tls_version="TLS_1_2",
                opts=self.child(),
            ).id,
            opts=self.child(),
        )
        redirecting = gcp.compute.TargetHttpProxy(
            self.named("http"),
            name=prefix,
            url_map=gcp.compute.URLMap(
                self.named("http"),
                name=f"{prefix}-redirect",
                default_url_redirect=gcp.compute.URLMapDefaultUrlRedirectArgs(
                    https_redirect=True, strip_query=False
                ),
                opts=self.child(),
            ).id,
            opts=self.child(),
        )
        for protocol, port, target in (("https", 443, secure.id), ("http", 80, redirecting.id)):
            gcp.compute.GlobalForwardingRule(
                self.named(protocol),
                name=f"{prefix}-{protocol}",
                load_balancing_scheme=SCHEME,
                ip_address=address,
                port_range=str(port),
                target=target,
                opts=self.child(),
            )
        self.address = address
        self.uri = f"https://{settings.domains[0]}"
        self.register_outputs({"address": address})

    def _certificate(self, domain: str) -> pulumi.Output[str]:
        """Declares one certificate per domain, so that a new domain doesn't affect the others."""
        digest = sha256(domain.encode()).hexdigest()[:8]
        return gcp.compute.ManagedSslCertificate(
            self.named(domain),
            name=f"{self._prefix}-{digest}",
            managed=gcp.compute.ManagedSslCertificateManagedArgs(domains=[domain]),
            opts=self.child(),
        ).id

    def _limit(self, requests: int) -> pulumi.Output[str]:
        everybody = gcp.compute.SecurityPolicyRuleMatchArgs(
            versioned_expr="SRC_IPS_V1",
            config=gcp.compute.SecurityPolicyRuleMatchConfigArgs(src_ip_ranges=["*"]),
        )
        return gcp.compute.SecurityPolicy(
            self.named("limit"),
            name=self._prefix,
            rules=[
                gcp.compute.SecurityPolicyRuleArgs(
                    description="So many requests a minute from one address",
                    priority=1000,
                    match=everybody,
                    action="throttle",
                    rate_limit_options=gcp.compute.SecurityPolicyRuleRateLimitOptionsArgs(
                        # The connecting address, not the addresses in X-Forwarded-For.
                        enforce_on_key="IP",
                        conform_action="allow",
                        exceed_action="deny(429)",
                        rate_limit_threshold=gcp.compute.SecurityPolicyRuleRateLimitOptionsRateLimitThresholdArgs(
                            count=requests, interval_sec=60
                        ),
                    ),
                ),
                gcp.compute.SecurityPolicyRuleArgs(
                    description="All others", priority=LAST, match=everybody, action="allow"
                ),
            ],
            opts=self.child(),
        ).id
