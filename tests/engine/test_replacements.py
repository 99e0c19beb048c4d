"""Changes that replace resources, as runs of `up`, with Google's rules for names and for use.

Google refuses a name that is taken, and refuses to delete what something else uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fake_google.network import release_addresses
from tests.engine.deployment import INSTANCE, SERVICE, Deployment, Run, kinds
from tests.engine.test_settings import IMAGE, KEY, PROJECT_MEMBER, REPLACED, SECRET, UPDATED

REPOSITORY = "gcp:artifactregistry/repository:Repository"
BUILD = "command:local:Command"
OTHER_KEY = f"{KEY}-2"
# Cloud Run's agent keeps its role, which other services of the project need.
KEPT = {PROJECT_MEMBER: 1}
DOMAINS = {"loadBalancer": True, "customDomains": ["ml.example.com"]}
IAM = {"access": "iam", "invokers": ["user:ada@example.com"]}
IAP = {"access": "iap", "invokers": ["user:ada@example.com"]}

# Each sequence starts from an unprotected stack with its first settings.
SEQUENCES: dict[str, list[dict[str, Any]]] = {
    "name": [
        {"network": "private", "rateLimit": 600, "alertEmail": "a@example.com", **DOMAINS},
        {"name": "second"},
        {"name": "mlflow"},
    ],
    "region": [
        {"network": "private", "rateLimit": 600, **DOMAINS},
        # With the same name, the new subnetwork would be in the same network as the old one.
        {"gcp:region": "europe-west1", "bucketLocation": "EU", "name": "second"},
        {"gcp:region": "us-central1", "name": "mlflow"},
    ],
    "domains": [
        {**DOMAINS, "rateLimit": 600},
        {"customDomains": ["ml.example.com", "ml.example.org"]},
        {"customDomains": ["ml.example.org", "ml.example.com"]},
        {"customDomains": ["ml.example.net", "ml.example.com"], "rateLimit": None},
        {"customDomains": ["ml.example.net"], "rateLimit": 900},
        {"loadBalancer": None, "rateLimit": None},
        {"loadBalancer": True},
    ],
    "builder and access": [
        {**IAM},
        {"builder": "cloud-build"},
        {**IAP},
        {"access": "public", "invokers": None},
        {"builder": "docker", "access": "internal"},
        {"builder": "cloud-build", **IAM},
        {"builder": None, "access": None, "invokers": None},
    ],
    "access, then builder": [
        {},
        {**IAP},
        {"access": "internal", "invokers": None},
        {**IAM},
        {**IAP},
        {"builder": "cloud-build"},
        {"access": "internal", "invokers": None},
        {"access": "public"},
        {"builder": "docker"},
    ],
}


def wait_for_addresses(stack: Deployment, run: Callable[..., Run]) -> None:
    """Runs a command that a subnetwork stops, until Cloud Run has released its addresses."""
    assert "addresses/serverless-ipv4-" in run(fails=True).errors
    release_addresses(stack.cloud.project)


def change(stack: Deployment, settings: Mapping[str, Any]) -> dict[str, set[str]]:
    stack.configure(**settings)
    return dict(kinds(stack.up().touched))


@pytest.mark.parametrize("changed", SEQUENCES)
def test_settings_change_one_after_the_other(fresh: Deployment, changed: str) -> None:
    first, *rest = SEQUENCES[changed]
    fresh.init(deletionProtection=False, bucketForceDestroy=True, **first)
    fresh.up()
    private = "network" in first
    for settings in rest:
        if private:
            fresh.configure(**settings)
            wait_for_addresses(fresh, fresh.up)
        change(fresh, settings)
    assert fresh.preview().touched == set()
    if private:
        wait_for_addresses(fresh, fresh.destroy)
    fresh.destroy()
    assert not fresh.cloud.project.live


@pytest.mark.parametrize(
    ("builder", "image", "keys"),
    [("docker", IMAGE, (KEY, OTHER_KEY, None)), ("cloud-build", BUILD, (KEY,))],
)
def test_key_can_be_added_exchanged_and_removed(
    fresh: Deployment, builder: str, image: str, keys: tuple[str | None, ...]
) -> None:
    fresh.init(deletionProtection=False, builder=builder)
    fresh.up()
    for key in keys:
        touched = change(fresh, {"kmsKey": key})
        for token in (INSTANCE, SECRET, REPOSITORY, image):
            assert touched[token] == REPLACED
        assert fresh.cloud.one(INSTANCE).get("encryptionKeyName") == key
    # The image was pushed to the new repository, so another revision can start.
    assert change(fresh, {"requestTimeout": 60}) == {SERVICE: UPDATED}
    assert fresh.preview().touched == set()
    fresh.destroy()
    assert fresh.cloud.counts() == KEPT
