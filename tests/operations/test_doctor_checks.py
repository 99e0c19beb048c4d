"""The doctor's single checks: policies, quotas, permissions; and its output."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_google.resource_types import KINDS
from infra.settings.reader import load
from infra.settings.schema import ServiceSettings
from operations.doctor import names, permissions, quota, stack, tools
from operations.doctor.declared import resources
from operations.doctor.findings import Finding, Verdict, fix, ok, printed, summary, warning
from operations.doctor.google import Answer, read
from operations.doctor.policies import CONSTRAINTS, ENCRYPTED, Declared, check_policies, looked_at
from operations.doctor.stack import State, settings_of
from tests.engine.engine import VERSION
from tests.operations.google_apis import PROJECT, REGION

PUBLIC = Declared(
    everyone_invokes=True,
    agents=False,
    invoker_check_off=False,
    ingress="all",
    locations=frozenset({REGION, "global"}),
    public_database=True,
    accounts=True,
)
CHECK_OFF = Declared(
    everyone_invokes=False,
    agents=True,
    invoker_check_off=True,
    ingress="internal",
    locations=frozenset({"europe-west1", "eu"}),
    public_database=False,
    accounts=False,
)
MADE = Declared(
    everyone_invokes=False,
    agents=False,
    invoker_check_off=False,
    ingress=None,
    locations=frozenset(),
    public_database=False,
    accounts=False,
)
EVERYTHING = replace(
    PUBLIC,
    services=frozenset({"run.googleapis.com", "sqladmin.googleapis.com"}),
    issuer="https://token.actions.githubusercontent.com",
    peering=True,
    vpc_egress="private-ranges-only",
    load_balancer=True,
    soft_delete="604800",
)
BALANCERS = "compute.restrictLoadBalancerCreationForTypes"
KEYED = replace(EVERYTHING, own_key=True)
TAGGED = {"condition": {"expression": "resource.matchTag('1/env', 'dev')"}}
ORGANISATION = {"parameters": {"allowedPrincipalSets": ["//…/organizations/1"]}}


def values(*allowed: str) -> dict[str, Any]:
    return {"values": {"allowedValues": [*allowed]}}


def without(*denied: str) -> dict[str, Any]:
    return {"values": {"deniedValues": [*denied]}}


FIX, WARNING = Verdict.FIX, Verdict.WARNING


@pytest.mark.parametrize(
    ("constraint", "rules", "declared", "verdicts"),
    [
        ("iam.allowedPolicyMemberDomains", [], PUBLIC, []),
        ("iam.allowedPolicyMemberDomains", [{"allowAll": True}], PUBLIC, []),
        ("iam.allowedPolicyMemberDomains", [{"denyAll": True}], PUBLIC, [FIX]),
        ("iam.allowedPolicyMemberDomains", [values("C03g5e3bc")], PUBLIC, [FIX]),
        ("iam.allowedPolicyMemberDomains", [values("C03g5e3bc")], CHECK_OFF, [WARNING]),
        ("iam.allowedPolicyMemberDomains", [values("C03g5e3bc")], MADE, []),
        ("iam.managed.allowedPolicyMembers", [{"enforce": False}], PUBLIC, []),
        ("iam.managed.allowedPolicyMembers", [{"enforce": True, **ORGANISATION}], PUBLIC, [FIX]),
        ("iam.managed.allowedPolicyMembers", [{"enforce": True}], PUBLIC, [FIX, WARNING]),
        ("run.managed.requireInvokerIam", [{"enforce": True}], PUBLIC, []),
        ("run.managed.requireInvokerIam", [{"enforce": True}], CHECK_OFF, [FIX]),
        ("run.allowedIngress", [values("is:internal")], PUBLIC, [FIX]),
        ("run.allowedIngress", [values("all", "internal")], PUBLIC, []),
        ("run.allowedIngress", [values("internal")], CHECK_OFF, []),
        ("run.allowedIngress", [{"values": {"deniedValues": ["all"]}}], PUBLIC, [FIX]),
        ("run.allowedIngress", [values("internal")], MADE, []),
        ("gcp.resourceLocations", [values(f"in:{REGION}-locations")], PUBLIC, [FIX]),
        ("gcp.resourceLocations", [values("in:us-locations", "global")], PUBLIC, []),
        ("gcp.resourceLocations", [values("in:us-locations")], CHECK_OFF, [FIX, FIX]),
        ("gcp.resourceLocations", [values("in:eu-locations")], CHECK_OFF, [WARNING]),
        ("gcp.resourceLocations", [values("is:europe-west1", "eu")], CHECK_OFF, []),
        (
            "gcp.resourceLocations",
            [{"values": {"deniedValues": ["in:europe-locations"]}}],
            CHECK_OFF,
            [FIX],
        ),
        ("sql.restrictPublicIp", [{"enforce": True}], PUBLIC, [FIX]),
        ("sql.restrictPublicIp", [{"enforce": True}], CHECK_OFF, []),
        ("iam.disableServiceAccountCreation", [{"enforce": True}], PUBLIC, [FIX]),
        ("iam.disableServiceAccountCreation", [{"enforce": True}], MADE, []),
        ("iam.workloadIdentityPoolProviders", [values("https://gitlab.com")], EVERYTHING, [FIX]),
        ("iam.workloadIdentityPoolProviders", [values("https://gitlab.com")], PUBLIC, []),
        ("iam.workloadIdentityPoolProviders", [values(EVERYTHING.issuer or "")], EVERYTHING, []),
        ("gcp.restrictNonCmekServices", [without("sqladmin.googleapis.com")], EVERYTHING, [FIX]),
        ("gcp.restrictNonCmekServices", [without("bigquery.googleapis.com")], EVERYTHING, []),
        ("gcp.restrictNonCmekServices", [without("sqladmin.googleapis.com")], KEYED, []),
        ("gcp.restrictServiceUsage", [without("run.googleapis.com")], EVERYTHING, [FIX]),
        ("gcp.restrictServiceUsage", [values(*EVERYTHING.services)], EVERYTHING, []),
        ("compute.restrictVpcPeering", [values("under:folders/1")], EVERYTHING, [WARNING]),
        ("compute.restrictVpcPeering", [values("under:folders/1")], PUBLIC, []),
        ("compute.restrictVpcPeering", [{"allowAll": True}], EVERYTHING, []),
        ("run.allowedVPCEgress", [values("all-traffic")], EVERYTHING, [FIX]),
        ("run.allowedVPCEgress", [values("private-ranges-only")], EVERYTHING, []),
        ("run.allowedVPCEgress", [values("all-traffic")], PUBLIC, []),
        (BALANCERS, [values("in:INTERNAL")], EVERYTHING, [FIX]),
        (BALANCERS, [values("in:EXTERNAL")], EVERYTHING, []),
        (BALANCERS, [without("in:EXTERNAL")], PUBLIC, []),
        (
            BALANCERS,
            [without("GLOBAL_EXTERNAL_MANAGED_HTTP_HTTPS")],
            EVERYTHING,
            [FIX],
        ),
        ("storage.softDeletePolicySeconds", [values("0")], EVERYTHING, [FIX]),
        ("storage.softDeletePolicySeconds", [values("0", "604800")], EVERYTHING, []),
        # A tag may lift or impose the constraint.
        ("sql.restrictPublicIp", [{"enforce": True}, {**TAGGED}], PUBLIC, [WARNING]),
        ("sql.restrictPublicIp", [{"enforce": True, **TAGGED}], PUBLIC, [Verdict.NOT_CHECKED]),
    ],
)  # fmt: skip
def test_policies(
    constraint: str,
    rules: list[Mapping[str, Any]],
    declared: Declared,
    verdicts: list[Verdict],
) -> None:
    answer = Answer(status=200, body={"spec": {"rules": rules}})
    found = check_policies({constraint: answer}, declared)
    assert [each.verdict for each in found] == (verdicts or [Verdict.OK])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, replace(PUBLIC, soft_delete="604800")),
        (
            {"githubRepository": "my-org/mlflow-gcp", "githubRepositoryId": 74},
            replace(PUBLIC, soft_delete="604800", issuer=EVERYTHING.issuer),
        ),
        (
            {"loadBalancer": True, "customDomains": ["mlflow.example.com"]},
            replace(
                PUBLIC,
                soft_delete="604800",
                load_balancer=True,
                ingress="internal-and-cloud-load-balancing",
            ),
        ),
        (
            {"access": "internal", "kmsKey": True, "network": "private"},
            Declared(
                everyone_invokes=False,
                agents=True,
                invoker_check_off=True,
                ingress="internal",
                locations=frozenset({REGION}),
                public_database=False,
                accounts=True,
                own_key=True,
                peering=True,
                vpc_egress="private-ranges-only",
                soft_delete="604800",
            ),
        ),
        (
            {"network": "private", "existingNetwork": "my-network"},
            replace(
                PUBLIC,
                public_database=False,
                vpc_egress="private-ranges-only",
                soft_delete="604800",
            ),
        ),
    ],
)
def test_policies_are_checked_against_the_declared_resources(
    config: Mapping[str, Any], expected: Declared
) -> None:
    key = f"projects/{PROJECT}/locations/{REGION}/keyRings/r/cryptoKeys/k"
    named = {f"mlflow-gcp:{name}": value for name, value in config.items()}
    if "mlflow-gcp:kmsKey" in named:
        named["mlflow-gcp:kmsKey"] = key
    found = looked_at(resources(load({"gcp:project": PROJECT, **named})))
    assert {"run.googleapis.com", "sqladmin.googleapis.com"} < found.services
    assert replace(found, services=frozenset()) == expected


def test_every_declarable_type_has_its_permissions() -> None:
    asks = {each for each in KINDS if not each.startswith(permissions.ASKS_NOBODY)}
    assert set(permissions.NEEDED) - {"pulumi:providers:gcp"} == asks
    assert set(names.LOOKUPS) < set(KINDS)
    assert set(quota.COMPUTE) < set(KINDS)


def test_all_permissions_fit_into_one_request() -> None:
    """Google checks at most a hundred permissions in one request."""
    asked = {each for type_ in permissions.NEEDED.values() for _, of in type_ for each in of}
    assert len(asked) < permissions.BATCH


def test_the_oldest_accepted_pulumi_is_the_tested_one() -> None:
    assert "v" + ".".join(map(str, stack.OLDEST_PULUMI)) == VERSION


# ---- quota ----


def service(*, cpu: int = 1, memory: str = "1Gi", instances: int = 20) -> ServiceSettings:
    return ServiceSettings(memory=memory, cpu=cpu, max_instances=instances)


def dimensions(*infos: Mapping[str, Any]) -> Answer:
    return Answer(status=200, body={"dimensionsInfos": [*infos]})


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (dimensions({"details": {"value": "20000"}}), Verdict.OK),
        (dimensions({"details": {"value": "19999"}}), FIX),
        (dimensions({"details": {"value": "-1"}}), Verdict.OK),
        (
            dimensions(
                {"details": {"value": "1"}},
                {"dimensions": {"region": REGION}, "details": {"value": "20000"}},
            ),
            Verdict.OK,
        ),
        (
            dimensions(
                {"dimensions": {"region": "us-east1"}, "details": {"value": "20000"}},
                {"details": {"value": "1"}, "applicableLocations": [REGION]},
            ),
            FIX,
        ),
        (
            dimensions({"details": {"value": "1"}, "applicableLocations": ["us-east1"]}),
            Verdict.NOT_CHECKED,
        ),
        (dimensions({"details": None}, {"details": {"value": "x"}}), Verdict.NOT_CHECKED),
        (Answer(status=200, body={"dimensionsInfos": 7}), Verdict.NOT_CHECKED),
        (Answer(status=403, trouble="not allowed to read it"), Verdict.NOT_CHECKED),
    ],
)
def test_the_regions_own_limit_or_the_general_one_applies(answer: Answer, verdict: Verdict) -> None:
    [found] = quota.check_run_quota(
        {quota.CPU: answer}, project=PROJECT, region=REGION, service=service()
    )
    assert found.verdict is verdict


def test_a_quota_below_one_instance_suggests_no_number() -> None:
    answer = dimensions({"details": {"value": "500"}})
    [found] = quota.check_run_quota(
        {quota.CPU: answer}, project=PROJECT, region=REGION, service=service()
    )
    assert "maxInstances" not in found.how


# ---- answers ----


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (200, None, "did not respond with JSON"),
        (200, [], "did not respond with JSON"),
        (403, None, "not allowed to read it: no reason given"),
        (403, {"error": "text"}, "not allowed to read it: no reason given"),
        (403, {"error": {"message": "m" * 500, "details": "x"}}, "m" * 200 + "…"),
        (403, {"error": {"details": [7, {"reason": "SERVICE_DISABLED"}]}}, "is off"),
        (418, {}, "responded with 418; try again"),
        (503, None, "responded with 503; try again"),
    ],
)
def test_every_failed_response_is_described_in_one_line(
    status: int, body: Any, trouble: str
) -> None:
    answer = read("run", status=status, body=body)
    assert not answer.ok
    assert answer.trouble.endswith(trouble) or trouble in answer.trouble


# ---- stacks ----


def test_settings_with_an_encrypted_value_are_checked(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_text(
        f"config:\n  gcp:project: {PROJECT}\n  mlflow-gcp:trackingPassword:\n    secure: v1:abc\n"
    )
    for name in ("dev", "my-org/mlflow-gcp/dev"):
        chosen = stack.choose(name, selected="", folder=tmp_path)
        assert not isinstance(settings_of(chosen), Exception), name


@pytest.mark.parametrize("content", ["", "config:", "config: 7", "- a", "config: {", "\x00"])
def test_an_empty_or_invalid_file_does_not_raise(tmp_path: Path, content: str) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_text(content)
    chosen = stack.choose("dev", selected="", folder=tmp_path)
    assert chosen.config == {}
    assert bool(chosen.trouble) is (content in {"config: {", "\x00"})


def test_the_name_local_is_the_stack_on_this_computer(tmp_path: Path) -> None:
    chosen = stack.choose("local", selected="", folder=tmp_path)
    assert chosen.trouble.startswith("is the stack on this computer: `make local`")
    (tmp_path / "Pulumi.local.yaml").write_text("config: {}")
    assert not stack.choose("local", selected="", folder=tmp_path).trouble


def test_a_stack_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.other.yaml").write_text("config: {}")
    (tmp_path / "inside").mkdir()
    chosen = stack.choose("../other", selected="", folder=tmp_path / "inside")
    assert chosen.trouble


def test_an_unknown_state_is_not_checked() -> None:
    chosen = stack.Stack(name="dev", why="", config={})
    assert stack.check_state(chosen, State(known=False)).verdict is Verdict.NOT_CHECKED
    made = frozenset({("gcp:run:Service", "a"), ("pulumi:pulumi:Stack", "b")})
    found = stack.check_state(chosen, State(known=True, exists=True, made=made))
    assert found.found == "resources created already: 1"


# ---- Python ----


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("3.11", Verdict.OK), ("3.14", Verdict.OK), ("3.10", FIX), ("3.15", FIX), ("", FIX)],
)
def test_python(version: str, verdict: Verdict) -> None:
    found = tools.check_python(tools.Python(command="python3", version=version))
    assert found.verdict is verdict


def test_an_existing_environments_python_is_the_one_checked(tmp_path: Path) -> None:
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.9\n")
    python.chmod(0o755)
    found = tools.check_python(tools.look_for_python(tmp_path))
    assert (found.verdict, found.how.split(",")[0]) == (FIX, "rm -r .venv")


# ---- printing ----

FOUND = [
    ok("stack", "dev"),
    warning("pulumi login", "an\x1b[31m old\none", "update it"),
    fix("docker", "none", "start it"),
]


def test_a_finding_is_a_line_in_columns_and_its_fix_another_line() -> None:
    assert printed(FOUND, coloured=False) == [
        "ok           stack         dev",
        "warning      pulumi login  an [31m old one",
        "                           → update it",
        "fix          docker        none",
        "                           → start it",
    ]


def test_colours_do_not_change_the_columns() -> None:
    coloured = printed(FOUND, coloured=True)
    assert "\x1b[1;31mfix" in coloured[3]
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in coloured]
    assert plain == printed(FOUND, coloured=False)


@pytest.mark.parametrize("verdict", [FIX, WARNING])
def test_a_finding_to_fix_must_say_how(verdict: Verdict) -> None:
    with pytest.raises(ValueError, match="how to fix it is missing"):
        Finding(what="docker", verdict=verdict, found="none")


def test_the_summary_counts_the_findings() -> None:
    assert summary(FOUND) == "1 to fix, 1 to note: `pulumi up` would fail."
    assert summary(FOUND[:2]) == "1 to note: nothing found that would stop `pulumi up`."
    assert summary(FOUND[:1]) == "Nothing found that would stop `pulumi up`."


def test_every_constraint_can_forbid_something() -> None:
    """A constraint that forbids nothing of ours would be read in vain."""
    every = [f"{name}.googleapis.com" for name in ENCRYPTED]
    rules = [{"enforce": True, "denyAll": True}, without(*every)]
    strict = Answer(status=200, body={"spec": {"rules": rules}})
    for constraint in CONSTRAINTS:
        both = [
            each.verdict
            for declared in (PUBLIC, CHECK_OFF, EVERYTHING)
            for each in check_policies({constraint: strict}, declared)
        ]
        assert {FIX, WARNING} & {*both}, constraint
