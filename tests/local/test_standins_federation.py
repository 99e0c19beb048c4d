"""Workload identity pools, tokens and custom roles that Google refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_google.errors import NotFound, Refused
from fake_google.iam import cel
from fake_google.iam.federation import POOL, exchange
from tests.local.standins import StandIns, project

PROVIDER = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"
POOL_INPUTS = {"workloadIdentityPoolId": "github-ab12cd"}
PROVIDER_INPUTS: dict[str, Any] = {
    **POOL_INPUTS,
    "workloadIdentityPoolProviderId": "actions",
    "oidc": {"issuerUri": "https://token.actions.githubusercontent.com"},
    "attributeCondition": "assertion.repository == 'my-org/mlflow-gcp'",
    "attributeMapping": {"google.subject": "assertion.sub"},
}


@pytest.fixture
def google(tmp_path: Path) -> Iterator[StandIns]:
    with project(tmp_path) as made:
        made.cloud.project.enabled.add("iam.googleapis.com")
        yield made


def test_a_deleted_pools_id_stays_taken(google: StandIns) -> None:
    made, outputs = google.cloud.create(POOL, "github", POOL_INPUTS)
    assert made == outputs["name"]
    assert made.endswith("/locations/global/workloadIdentityPools/github-ab12cd")
    with pytest.raises(Refused, match="already exists"):
        google.cloud.create(POOL, "github", POOL_INPUTS)
    google.cloud.delete(POOL, made, olds=outputs)
    with pytest.raises(Refused, match="already exists"):
        google.cloud.create(POOL, "github", POOL_INPUTS)


@pytest.mark.parametrize("given", ["abc", "gcp-github", "GitHub", "a" * 33])
def test_an_invalid_id_is_refused(google: StandIns, given: str) -> None:
    with pytest.raises(Refused, match="4 to 32"):
        google.cloud.create(POOL, "github", {"workloadIdentityPoolId": given})


def test_a_provider_has_a_pool(google: StandIns) -> None:
    with pytest.raises(NotFound, match="github-ab12cd"):
        google.cloud.create(PROVIDER, "github", PROVIDER_INPUTS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attributeCondition": None}, "attribute condition"),
        ({"attributeMapping": {"attribute.job": "assertion.ref"}}, "google.subject"),
    ],
)
def test_an_incomplete_provider_is_refused(
    google: StandIns, changed: dict[str, Any], said: str
) -> None:
    pool, _ = google.cloud.create(POOL, "github", POOL_INPUTS)
    with pytest.raises(Refused, match=said):
        google.cloud.create(PROVIDER, "github", {**PROVIDER_INPUTS, **changed})
    _, outputs = google.cloud.create(PROVIDER, "github", PROVIDER_INPUTS)
    assert outputs["name"] == f"{pool}/providers/actions"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attributeCondition": "assertion.repository = 'x'"}, "compiling the CEL expression"),
        ({"attributeCondition": "assertion.repository == 'x' &&"}, "compiling"),
        ({"attributeCondition": f"assertion.repository == '{'x' * 4096}'"}, "over 4096"),
        ({"attributeMapping": {"google.subject": "assertion.sub +"}}, "compiling"),
        ({"attributeMapping": {"google.subject": f"'{'x' * 2048}'"}}, "over 2048"),
        (
            {"attributeMapping": {"google.subject": "assertion.sub", "attribute.Job": "'x'"}},
            "Invalid mapped attribute key",
        ),
    ],
)
def test_an_invalid_provider_is_refused(
    google: StandIns, changed: dict[str, Any], said: str
) -> None:
    google.cloud.create(POOL, "github", POOL_INPUTS)
    with pytest.raises(Refused, match=said):
        google.cloud.create(PROVIDER, "github", {**PROVIDER_INPUTS, **changed})


CLAIMS = {
    "iss": "https://token.actions.githubusercontent.com",
    "aud": "https://iam.googleapis.com/my-pool/providers/actions",
    "sub": "repo:my-org/mlflow-gcp:ref:refs/heads/main",
    "repository": "my-org/mlflow-gcp",
    "event_name": "push",
}


def test_an_accepted_token_has_its_attributes_as_principals() -> None:
    mapping = {"google.subject": "assertion.sub", "attribute.event": "assertion.event_name"}
    provider = {**PROVIDER_INPUTS, "attributeMapping": mapping}
    start = "://iam.googleapis.com/my-pool/"
    assert exchange("my-pool", provider, CLAIMS).members == {
        f"principal{start}subject/{CLAIMS['sub']}",
        f"principalSet{start}*",
        f"principalSet{start}attribute.event/push",
    }


@pytest.mark.parametrize(
    ("claims", "changed", "said"),
    [
        ({"iss": "https://example.com"}, {}, "issuer"),
        ({"aud": "https://github.com/my-org"}, {}, "audience"),
        ({"aud": None}, {}, "audience"),
        ({"repository": "my-org/another"}, {}, "rejected by the attribute condition"),
        ({"repository": None}, {}, "condition could not be evaluated: no such key: repository"),
        ({"sub": None}, {}, "mapping of google.subject could not be evaluated"),
        ({"sub": "x" * 128}, {}, "more than 127 bytes"),
        ({"sub": ""}, {}, "or none"),
        ({"sub": 7}, {}, "a string"),
        ({}, {"attributeCondition": "assertion.sub"}, "rejected"),
        ({}, {"attributeCondition": "attribute.event == 'push'"}, "no such key: event"),
    ],
)
def test_a_token_that_does_not_match_is_refused(
    claims: dict[str, Any], changed: dict[str, Any], said: str
) -> None:
    given = {claim: value for claim, value in {**CLAIMS, **claims}.items() if value is not None}
    with pytest.raises(Refused, match=said):
        exchange("my-pool", {**PROVIDER_INPUTS, **changed}, given)


VALUES = {"a": {"yes": True, "no": False, "word": "push", "list": ["x", "push"], "map": {"k": "v"}}}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a.word == 'push'", True),
        ('a.word != "push"', False),
        ("a.word in ['pull', 'push']", True),
        ("a.word in a.list", True),
        ("'k' in a.map && !('word' in a.map)", True),
        ("a.word + ':' + a.word", "push:push"),
        ("a.word.startsWith('pu') && a.word.endsWith('sh')", True),
        # && binds more tightly than ||, and both more than ?:
        ("a.yes || a.yes && a.no", True),
        ("(a.yes || a.yes) && a.no", False),
        ("a.no ? 'x' : a.yes ? 'y' : 'z'", "y"),
        ("a.word == 'push' ? 'x' : 'y'", "x"),
        # An error is ignored if the other side decides alone.
        ("a.gone == 'x' || a.yes", True),
        ("a.yes || a.gone == 'x'", True),
        ("a.gone == 'x' && a.no", False),
        ("a.no && a.gone == 'x'", False),
        # Values of different types are never equal.
        ("a.yes == 'true'", False),
    ],
)
def test_expressions(expression: str, value: object) -> None:
    assert cel.parse(expression)(VALUES) == value


@pytest.mark.parametrize(
    "expression",
    [
        "a.gone",
        "b.word",
        "a.word.deeper",
        "!a.gone",
        "a.gone != 'x'",
        "a.gone in ['x']",
        "a.gone == 'x' || a.no",
        "a.yes && a.gone == 'x'",
        "a.gone ? 'x' : 'x'",
        "a.word && a.yes",
        "a.word ? 'x' : 'y'",
        "!a.word",
        "a.word + a.yes",
        "'x' in a.word",
        "a.yes.startsWith('t')",
    ],
)
def test_expressions_without_a_value(expression: str) -> None:
    with pytest.raises(cel.Failed):
        cel.parse(expression)(VALUES)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "a.word =",
        "a.word == ",
        "a..word",
        "(a.word",
        "a.word)",
        "['x'",
        "a.word == 'x' 'y'",
        "a ? 'x'",
        "'x",
        "'x\\'y'",
        "a.word.matches('p.*')",
        "a.word < 'x'",
        "1 == 1",
    ],
)
def test_invalid_expressions_are_refused(expression: str) -> None:
    with pytest.raises(cel.Malformed):
        cel.parse(expression)
