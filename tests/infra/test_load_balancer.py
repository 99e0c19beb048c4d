"""A custom domain: the load balancer's address, its backend and its rate limit."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.declared import ADDRESS, REGION, Program, recorded, shown

COMPUTE = "gcp:compute/"
API = "gcp:projects/service:Service"
CHECK = "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig"
INVOKERS = {"access": "iam", "invokers": ["user:ada@example.com"]}
DOMAINS = ["mlflow.example.com", "ml.example.org"]
BALANCED: dict[str, Any] = {"loadBalancer": True, "customDomains": DOMAINS, "name": "ml"}


def compute(program: Program) -> dict[str, dict[str, Any]]:
    """Returns inputs by type and name; ids of other resources are `<name>-id`."""
    return {f"{r.kind} {r.name}": r.inputs for r in program.created if r.type.startswith(COMPUTE)}


def test_exactly_the_parts_of_a_load_balancer_are_declared() -> None:
    program, plain = recorded(BALANCED), recorded({"name": "ml", "customDomains": DOMAINS})
    assert compute(program) == {
        "GlobalAddress address": {"name": "ml"},
        "RegionNetworkEndpointGroup service": {
            "name": "ml",
            "region": REGION,
            "networkEndpointType": "SERVERLESS",
            "cloudRun": {"service": "ml"},
        },
        "BackendService service": {
            "name": "ml",
            "loadBalancingScheme": "EXTERNAL_MANAGED",
            "protocol": "HTTPS",
            "backends": [{"group": "service-id"}],
        },
        "URLMap https": {"name": "ml", "defaultService": "service-id"},
        "SSLPolicy tls": {"name": "ml", "profile": "MODERN", "minTlsVersion": "TLS_1_2"},
        "ManagedSslCertificate mlflow.example.com": {
            "name": "ml-b7f56a26",
            "managed": {"domains": ["mlflow.example.com"]},
        },
        "ManagedSslCertificate ml.example.org": {
            "name": "ml-e01dc843",
            "managed": {"domains": ["ml.example.org"]},
        },
        "TargetHttpsProxy https": {
            "name": "ml",
            "urlMap": "https-id",
            "sslCertificates": ["mlflow.example.com-id", "ml.example.org-id"],
            "sslPolicy": "tls-id",
        },
        "URLMap http": {
            "name": "ml-redirect",
            "defaultUrlRedirect": {"httpsRedirect": True, "stripQuery": False},
        },
        "TargetHttpProxy http": {"name": "ml", "urlMap": "http-id"},
        **{
            f"GlobalForwardingRule {protocol}": {
                "name": f"ml-{protocol}",
                "loadBalancingScheme": "EXTERNAL_MANAGED",
                "ipAddress": ADDRESS,
                "portRange": port,
                "target": f"{protocol}-id",
            }
            for protocol, port in (("https", "443"), ("http", "80"))
        },
    }
    others = {r.urn for r in plain.created}
    added = {r.type for r in program.created if r.urn not in others}
    assert {kind for kind in added if not kind.startswith(COMPUTE)} == {API}
    assert program.one(API, "compute").inputs["service"] == "compute.googleapis.com"


def test_the_server_is_only_reachable_at_the_first_domain() -> None:
    program, plain = recorded(BALANCED), recorded({"name": "ml", "customDomains": DOMAINS})
    assert program.outputs["tracking_uri"] == "https://mlflow.example.com"
    assert program.outputs["load_balancer_address"] == ADDRESS
    assert "load_balancer_address" not in plain.outputs
    assert program.service.inputs["ingress"] == "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    assert program.env == {**plain.env, "TRUSTED_PROXIES": "1"}
    group = program.one(f"{COMPUTE}regionNetworkEndpointGroup:RegionNetworkEndpointGroup")
    assert program.service.urn in program.before(group)


def test_the_uptime_check_requests_the_domain() -> None:
    program = recorded({**BALANCED, "alertEmail": "oncall@example.com", "uptimeCheck": True})
    labels = program.one(CHECK).inputs["monitoredResource"]["labels"]
    assert labels["host"] == "mlflow.example.com"


def test_the_domains_are_audiences_of_id_tokens() -> None:
    program = recorded({**BALANCED, **INVOKERS})
    assert program.service.inputs["customAudiences"] == [f"https://{name}" for name in DOMAINS]


def test_a_domain_given_twice_has_one_certificate() -> None:
    program = recorded({**BALANCED, "customDomains": ["ml.example.org", "ML.example.org"]})
    assert program.one(f"{COMPUTE}managedSslCertificate:ManagedSslCertificate")


def test_the_rate_limit_is_a_cloud_armor_rule() -> None:
    limited, free = recorded({**BALANCED, "rateLimit": 6000}), recorded(BALANCED)
    policy = limited.one(f"{COMPUTE}securityPolicy:SecurityPolicy").inputs
    everybody = {"versionedExpr": "SRC_IPS_V1", "config": {"srcIpRanges": ["*"]}}
    throttle, last = policy["rules"]
    assert policy["name"] == "ml"
    assert {key: throttle[key] for key in ("priority", "match", "action", "rateLimitOptions")} == {
        "priority": 1000,
        "match": everybody,
        "action": "throttle",
        "rateLimitOptions": {
            "enforceOnKey": "IP",
            "conformAction": "allow",
            "exceedAction": "deny(429)",
            "rateLimitThreshold": {"count": 6000, "intervalSec": 60},
        },
    }
    assert (last["priority"], last["match"], last["action"]) == (2147483647, everybody, "allow")
    backend = "BackendService service"
    assert compute(limited)[backend] == {**compute(free)[backend], "securityPolicy": "limit-id"}


@pytest.mark.parametrize("preview", [False, True])
def test_the_address_is_an_output(preview: bool) -> None:
    program = recorded(BALANCED, preview=preview)
    assert shown(program.outputs["tracking_uri"]) == "https://mlflow.example.com"
    assert (program.outputs["load_balancer_address"] == ADDRESS) is not preview
