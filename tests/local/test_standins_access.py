"""The callers that would reach the server on Google Cloud, by the declared access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_google.errors import ApiNotEnabled, NotFound, Unreachable
from fake_google.project import PROJECT_NUMBER
from local import program
from local.supervise import DEFAULTS
from tests.local.conftest import ROOT
from tests.local.standins import PROJECT, SERVER, StandIns, project

Given = Callable[[StandIns], Any]

ADA = "user:ada@example.com"
AGENT = f"serviceAccount:service-{PROJECT_NUMBER}@gcp-sa-iap.iam.gserviceaccount.com"
WHERE = {"location": "us-central1"}


@pytest.fixture
def google(tmp_path: Path) -> Iterator[StandIns]:
    with project(tmp_path) as made:
        yield made


def service(**inputs: Any) -> Given:
    template = {"serviceAccount": SERVER, "containers": [{"image": "image"}]}
    everything = {"name": "mlflow", "template": template, **WHERE, **inputs}
    return lambda google: google.declare("cloudrunv2/service:Service", **everything)


def invoker(member: str) -> Given:
    return lambda google: google.declare(
        "cloudrunv2/serviceIamMember:ServiceIamMember",
        name="mlflow",
        role="roles/run.invoker",
        member=member,
        **WHERE,
    )


def accessor(member: str, *, of: str = PROJECT_NUMBER) -> Given:
    return lambda google: google.declare(
        "iap/webCloudRunServiceIamMember:WebCloudRunServiceIamMember",
        project=of,
        cloudRunServiceName="mlflow",
        role="roles/iap.httpsResourceAccessor",
        member=member,
        **WHERE,
    )


def agent(google: StandIns) -> None:
    google.enable("iap")
    google.declare("projects/serviceIdentity:ServiceIdentity", service="iap.googleapis.com")


IAP = service(iapEnabled=True)
INTERNAL = "INGRESS_TRAFFIC_INTERNAL_ONLY"
VPC = "everybody in the project's VPC networks"


@pytest.mark.parametrize(
    ("given", "callers"),
    [
        ([service(), invoker("allUsers")], ""),
        ([service(invokerIamDisabled=True)], ""),
        ([service(ingress=INTERNAL, invokerIamDisabled=True)], VPC),
        ([service(ingress=INTERNAL), invoker("allUsers")], VPC),
        ([service(), invoker(ADA), invoker("group:ml@example.com")], f"{ADA}, group:ml@example"),
        ([agent, IAP, invoker(AGENT), accessor(ADA)], ADA),
        ([agent, IAP, invoker("allUsers"), accessor(ADA)], ADA),
    ],
)
def test_callers_that_reach_the_server_are_named(
    google: StandIns, given: list[Given], callers: str
) -> None:
    for declare in given:
        declare(google)
    google.cloud.check_reachable()
    said = [line for line in google.said if "would" in line]
    assert len(said) == bool(callers)
    assert all(callers in line for line in said)


@pytest.mark.parametrize(
    "given",
    [
        [service()],
        [service(ingress=INTERNAL)],
        [agent, IAP, accessor(ADA)],
        [agent, IAP, invoker(ADA), accessor(ADA)],
        [agent, IAP, invoker(AGENT)],
        # Google accepts this grant, but never uses it.
        [agent, IAP, invoker(AGENT), accessor(ADA, of=PROJECT)],
    ],
)
def test_a_server_that_nobody_reaches_is_an_error(google: StandIns, given: list[Given]) -> None:
    for declare in given:
        declare(google)
    with pytest.raises(Unreachable, match="Forbidden"):
        google.cloud.check_reachable()


def test_a_service_agent_exists_once_it_is_declared(google: StandIns) -> None:
    service()(google)
    with pytest.raises(ApiNotEnabled, match=r"iap\.googleapis\.com"):
        google.declare("projects/serviceIdentity:ServiceIdentity", service="iap.googleapis.com")
    with pytest.raises(NotFound, match="gcp-sa-iap"):
        invoker(AGENT)(google)
    agent(google)
    invoker(AGENT)(google)
    # Accounts of other projects are not checked.
    invoker("serviceAccount:ci@another.iam.gserviceaccount.com")(google)
    with pytest.raises(NotFound, match="ci@"):
        invoker(f"serviceAccount:ci@{PROJECT}.iam.gserviceaccount.com")(google)


@pytest.mark.parametrize(
    ("access", "callers"),
    [("public", ""), ("internal", VPC), ("iam", ADA), ("iap", ADA)],
)
def test_the_programs_own_access_is_enough(google: StandIns, access: str, callers: str) -> None:
    invokers = f'["{ADA}"]' if access in {"iam", "iap"} else "[]"
    settings = {"mlflow-gcp:access": access, "mlflow-gcp:invokers": invokers}
    config = {**DEFAULTS, "gcp:project": PROJECT, **settings}
    program.run(main=ROOT / "__main__.py", cloud=google.cloud, config=config)
    google.cloud.check_reachable()
    said = [line for line in google.said if "would" in line]
    assert len(said) == bool(callers)
    assert all(line.endswith(f"{callers} would") for line in said)
