"""Each access mode's declared resources: who can reach the server, and the order of creation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.declared import IAP_AGENT, NUMBER, REGION, UNKNOWN, Declared, Program, recorded

API = "gcp:projects/service:Service"
AGENT = "gcp:projects/serviceIdentity:ServiceIdentity"
INVOKER = "gcp:cloudrunv2/serviceIamMember:ServiceIamMember"
ACCESSOR = "gcp:iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember"
ACCESS = {AGENT, INVOKER, ACCESSOR}

INVOKERS = [
    "user:ada@example.com",
    "group:ml@example.com",
    "serviceAccount:train@my-project.iam.gserviceaccount.com",
    "domain:example.com",
]
MODES: dict[str, dict[str, Any]] = {
    "public": {},
    "public, the check off": {"publicThrough": "invokerIamDisabled"},
    "internal": {"access": "internal"},
    "iam": {"access": "iam", "invokers": INVOKERS},
    "iap": {"access": "iap", "invokers": INVOKERS},
}
# Ingress, whether the invoker check is off, whether Identity-Aware Proxy is on.
DOORS = {
    "public": ("INGRESS_TRAFFIC_ALL", False, False),
    "public, the check off": ("INGRESS_TRAFFIC_ALL", True, False),
    "internal": ("INGRESS_TRAFFIC_INTERNAL_ONLY", True, False),
    "iam": ("INGRESS_TRAFFIC_ALL", False, False),
    "iap": ("INGRESS_TRAFFIC_ALL", False, True),
}
GRANTS = {
    "public": {(INVOKER, "roles/run.invoker", "allUsers")},
    "public, the check off": set(),
    "internal": set(),
    "iam": {(INVOKER, "roles/run.invoker", member) for member in INVOKERS},
    "iap": {
        (INVOKER, "roles/run.invoker", f"serviceAccount:{IAP_AGENT}"),
        *((ACCESSOR, "roles/iap.httpsResourceAccessor", member) for member in INVOKERS),
    },
}


def declared(mode: str) -> Program:
    return recorded(MODES[mode])


def of_access(program: Program) -> list[Declared]:
    return [resource for resource in program.created if resource.type in ACCESS]


@pytest.mark.parametrize("mode", MODES)
def test_service_has_the_ingress_and_checks_of_the_access_mode(mode: str) -> None:
    service = declared(mode).service.inputs
    door = (service["ingress"], service["invokerIamDisabled"], service["iapEnabled"])
    assert door == DOORS[mode]


@pytest.mark.parametrize("mode", MODES)
def test_exactly_the_invokers_get_access(mode: str) -> None:
    resources = of_access(declared(mode))
    grants = [(r.type, r.inputs["role"], r.inputs["member"]) for r in resources if r.type != AGENT]
    assert len(grants) == len(set(grants))
    assert set(grants) == GRANTS[mode]
    for resource in resources:
        if resource.type == INVOKER:
            assert (resource.inputs["name"], resource.inputs["location"]) == ("mlflow", REGION)


def test_iap_grants_name_the_service_by_the_projects_number() -> None:
    accessors = declared("iap").all(ACCESSOR)
    assert accessors
    for resource in accessors:
        inputs = resource.inputs
        assert (inputs["project"], inputs["location"]) == (NUMBER, REGION)
        assert inputs["cloudRunServiceName"] == "mlflow"


@pytest.mark.parametrize("mode", MODES)
def test_access_modes_differ_in_nothing_else(mode: str) -> None:
    """The password is the same too: callers that Google admits still need it."""

    def rest(program: Program) -> dict[str, Any]:
        return {
            str(resource): resource.inputs
            for resource in program.created
            if resource.type not in {*ACCESS, "gcp:cloudrunv2/service:Service"}
            and resource.inputs.get("service") != "iap.googleapis.com"
        }

    program, public = declared(mode), declared("public")
    assert rest(program) == rest(public)
    assert program.service.inputs["template"] == public.service.inputs["template"]
    assert program.outputs.keys() == public.outputs.keys()


@pytest.mark.parametrize("mode", MODES)
def test_iap_gets_its_api_and_its_agent(mode: str) -> None:
    program = declared(mode)
    apis = {api.inputs["service"] for api in program.all(API)}
    agents = [(agent.inputs["service"], agent.inputs["project"]) for agent in program.all(AGENT)]
    assert ("iap.googleapis.com" in apis) == (mode == "iap")
    assert agents == ([("iap.googleapis.com", "my-project")] if mode == "iap" else [])


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_grants_come_after_what_they_need(mode: str, preview: bool) -> None:
    program = recorded(MODES[mode], preview=True) if preview else declared(mode)
    apis = {api.urn for api in program.all(API)}
    for resource in [program.service, *of_access(program)]:
        assert apis <= program.before(resource), resource
    for resource in of_access(program):
        before = program.before(resource)
        assert (program.service.urn in before) == (resource.type != AGENT), resource
        if resource.inputs.get("member") in (f"serviceAccount:{IAP_AGENT}", UNKNOWN):
            assert program.one(AGENT).urn in before


def test_id_tokens_for_a_custom_domain_are_accepted() -> None:
    domains = {"customDomains": ["mlflow.example.com"]}
    by_token = recorded({**MODES["iam"], **domains}).service.inputs
    assert by_token["customAudiences"] == ["https://mlflow.example.com"]
    assert "customAudiences" not in recorded(domains).service.inputs
    assert "customAudiences" not in declared("iam").service.inputs


@pytest.mark.parametrize("access", ["iam", "iap"])
def test_removing_an_invoker_does_not_affect_the_others(access: str) -> None:
    def members(invokers: list[str]) -> set[tuple[str, Any]]:
        program = recorded({"access": access, "invokers": invokers})
        return {(r.urn, r.inputs.get("member")) for r in of_access(program)}

    everybody, without = members(INVOKERS), members(INVOKERS[1:])
    assert without < everybody
    assert len(everybody - without) == 1


def test_only_with_accounts_does_the_server_sign_people_in_with_google() -> None:
    people = {"accountsAdministrators": ["Ada@Example.com"], "accountsDomains": ["example.com"]}
    on = recorded({**MODES["iap"], "accounts": True, **people}).env
    assert on["IAP_AUDIENCE"] == f"/projects/{NUMBER}/locations/{REGION}/services/mlflow"
    assert on["ACCOUNTS_ADMINISTRATORS"] == "ada@example.com"
    assert on["ACCOUNTS_DOMAINS"] == "example.com"
    for other in (declared("iap"), recorded({**MODES["iam"], "accounts": True})):
        assert not {"IAP_AUDIENCE", "ACCOUNTS_ADMINISTRATORS"} & other.env.keys()
