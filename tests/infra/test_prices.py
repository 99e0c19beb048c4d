"""The monthly estimate, compared with sums calculated by hand from Google's price lists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from infra.facts import prices
from infra.facts.prices import Run, estimate, total
from infra.settings.reader import load
from infra.settings.schema import Settings
from tests.infra.declared import PROJECT, REGION, ROOT, recorded


def settings(**config: Any) -> Settings:
    keys = {key if ":" in key else f"mlflow-gcp:{key}": value for key, value in config.items()}
    return load({"gcp:project": PROJECT, **keys})


def dollars(what: str, of: Settings, **arguments: Any) -> float:
    found = [line.dollars for line in estimate(of, **arguments) if what in line.what]
    assert len(found) == 1
    return found[0]


PLUS = {"databaseEdition": "ENTERPRISE_PLUS"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Prices per hour, times 730.
        ({"databaseTier": "db-f1-micro"}, 7.67),  # 0.0105
        ({"databaseTier": "db-g1-small"}, 25.55),  # 0.035
        ({"databaseTier": "db-custom-1-3840"}, 49.31),  # 0.0413 + 3.75 x 0.007 = 0.06755
        # 4 x 0.0413 + 15 x 0.007 = 0.2702, which is also the SKU "4 vCPU + 15GB RAM in Americas"
        ({"databaseTier": "db-custom-4-15360"}, 197.25),
        ({"databaseTier": "db-custom-8-30720"}, 394.49),  # the SKU of 8 and 30: 0.5404
        # 8 x 0.0537 + 64 x 0.0091 = 1.0120
        ({"databaseTier": "db-perf-optimized-N-8", **PLUS}, 738.76),
        # A standby doubles the price: the SKU "Regional - Micro instance in Americas", 0.021
        ({"databaseTier": "db-f1-micro", "databaseAvailability": "REGIONAL"}, 15.33),
        # "Regional - vCPU in Americas" 0.0826 and "RAM" 0.014: 0.1652 + 7.5 x 0.014 = 0.2702
        ({"databaseTier": "db-custom-2-7680", "databaseAvailability": "REGIONAL"}, 197.25),
    ],
)
def test_the_databases_machine(config: dict[str, Any], expected: float) -> None:
    assert dollars("Cloud SQL", settings(**config)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 1.70),
        ({"databaseDiskGb": 100}, 17.00),
        ({"databaseDiskGb": 100, "databaseAvailability": "REGIONAL"}, 34.00),
    ],
)
def test_the_databases_disk(config: dict[str, Any], expected: float) -> None:
    assert dollars("SSD", settings(**config)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "runs_a_day", "expected"),
    [
        ({}, 0, 0),
        # 100 x 30.4167 x 200 = 608,333 requests, 60,833 CPU and GiB seconds: all free.
        ({}, 100, 0),
        # 6,083,333 requests, 608,333 seconds: (608,333 - 180,000) x 0.000024 = 10.28,
        # (608,333 - 360,000) x 0.0000025 = 0.62, 4,083,333 x 0.0000004 = 1.63
        ({}, 1000, 12.53),
        # Twice the CPU, four times the memory: 1,036,667 x 0.000024 = 24.88,
        # 2,073,333 x 0.0000025 = 5.18, and 1.63
        ({"cpu": 2, "memory": "4Gi"}, 1000, 31.70),
    ],
)
def test_requests(config: dict[str, Any], runs_a_day: float, expected: float) -> None:
    found = dollars("requests", settings(**config), runs_a_day=runs_a_day)
    assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # 2,628,000 s x (0.0000025 + 0.0000025)
        ({"minInstances": 1}, 13.14),
        # 2 x 2,628,000 x (2 x 0.0000025 + 2 x 0.0000025)
        ({"minInstances": 2, "cpu": 2, "memory": "2Gi"}, 52.56),
    ],
)
def test_warm_instances(config: dict[str, Any], expected: float) -> None:
    assert dollars("kept warm", settings(**config)) == pytest.approx(expected)


def test_the_load_balancer() -> None:
    balanced = {"customDomains": ["mlflow.example.com"], "loadBalancer": True}
    # 730 x 0.025
    assert dollars("load balancer", settings(**balanced)) == pytest.approx(18.25)
    # 5 + 2 x 1, and 6,083,333 requests at 0.75 a million
    limited = settings(**balanced, rateLimit=600)
    assert dollars("Armor", limited, runs_a_day=1000) == pytest.approx(11.56, abs=0.01)
    [policy] = recorded({**balanced, "rateLimit": 600}).all(
        "gcp:compute/securityPolicy:SecurityPolicy"
    )
    assert len(policy.inputs["rules"]) == prices.RULES


def test_an_existing_database_adds_no_cost() -> None:
    shared = settings(existingDatabaseInstance=f"{PROJECT}:us-central1:shared")
    assert total(estimate(settings())) - total(estimate(shared)) == pytest.approx(9.445)


def test_secrets_images_and_artifacts() -> None:
    assert dollars("secrets", settings()) == 0
    # Seven versions; six are free.
    assert dollars("secrets", settings(viewerUsername="viewer")) == pytest.approx(0.06)
    # A version in an existing secret adds no cost.
    there = f"projects/{PROJECT}/secrets/my-password/versions/1"
    assert dollars("6 secrets", settings(viewerUsername="viewer", viewerPasswordSecret=there)) == 0
    assert dollars("images", settings()) == pytest.approx(0.05)
    ready = settings(image="docker.io/my/server:1")
    assert not [line for line in estimate(ready) if line.what == "images"]
    # 100 x 30.4167 x 0.1 = 304.17 GB x 0.02
    assert dollars("artifacts", settings(), runs_a_day=100) == pytest.approx(6.08, abs=0.01)
    smaller = Run(artifacts_gb=0)
    assert dollars("artifacts", settings(), runs_a_day=100, run=smaller) == 0
    # 100 x 30.4167 x 0.01 = 30.42 GB x 0.12
    assert dollars("downloaded", settings(), runs_a_day=100) == pytest.approx(3.65, abs=0.01)


def test_archived_traces() -> None:
    # 12 x 50 GB x (0.17 + 0.08), against 600 x 0.02 and a million objects at 0.005 a thousand.
    year = {"traces": 1_000_000, "kilobytes": 50, "months": 12}
    assert prices.spans(settings(), **year) == pytest.approx((150, 17))
    standby = settings(databaseAvailability="REGIONAL")
    assert prices.spans(standby, **year) == pytest.approx((252, 17))


def test_the_upkeep_job_is_free_alone() -> None:
    assert dollars("upkeep", settings(cleanupAfterDays=30)) == 0
    assert dollars("upkeep", settings(archiveTracesAfterDays=30)) == 0


def test_the_worker_of_jobs_runs_all_the_time() -> None:
    # 2,628,000 seconds, less the free 240,000 of a CPU and 450,000 of a GiB.
    with_jobs = settings(jobs="true", databaseConnections="5")
    assert dollars("worker", with_jobs) == pytest.approx(42.98 + 4.36, abs=0.01)


def test_a_year_of_runs() -> None:
    # 304.17 GB x 12 x 0.02
    year = {"runs_a_day": 100, "months": 12}
    assert dollars("artifacts", settings(), **year) == pytest.approx(73.00, abs=0.01)
    assert dollars("downloaded", settings(), **year) == pytest.approx(3.65, abs=0.01)
    # 36,500 runs fit on the first disk and in the smallest backup; 3,650,000 are 36.5 GB.
    assert dollars("SSD", settings(), **year) == pytest.approx(1.70)
    much = {"runs_a_day": 10_000, "months": 12}
    assert dollars("SSD", settings(), **much) == pytest.approx(36.5 * 0.17)
    assert dollars("backups", settings(), **much) == pytest.approx(36.5 * 0.08)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"uptimeCheck": "true"},
        {"accounts": "true", "cleanupAfterDays": "30"},
        {"existingDatabaseInstance": f"{PROJECT}:us-central1:everybodys"},
    ],
)
def test_every_declared_alert_is_priced(config: dict[str, str]) -> None:
    watched = {"alertEmail": "oncall@example.com", **config}
    policies = recorded(watched).all("gcp:monitoring/alertPolicy:AlertPolicy")
    # Each policy costs 0.10, and 43,800 values cost 0.35 a million.
    assert dollars("alerts", settings(**watched)) == pytest.approx(len(policies) * 0.11533)
    assert not [line for line in estimate(settings()) if "alerts" in line.what]


def stack_files() -> dict[str, dict[str, Any]]:
    return {
        path.name: yaml.safe_load(path.read_text())["config"]
        for path in sorted(ROOT.glob("Pulumi.*.yaml"))
    }


def test_the_dev_stack_idles_for_less_than_12_dollars() -> None:
    dev = load({"gcp:project": PROJECT, **stack_files()["Pulumi.dev.yaml"]})
    assert 7 < total(estimate(dev)) < 12
    # The limit holds without the free amounts, which another project may have used up.
    versions_and_images = 5 * prices.SECRET_VERSION + prices.STORED_IMAGES_GB * prices.IMAGE_GB
    assert total(estimate(dev)) + versions_and_images < 12


@pytest.mark.parametrize("name", stack_files())
def test_the_summary_adds_up_every_line_of_a_stack_file(name: str) -> None:
    stack = load({"gcp:project": PROJECT, **stack_files()[name]})
    lines = estimate(stack, runs_a_day=1000)
    assert lines
    assert all(line.dollars >= 0 for line in lines)
    assert prices.summary(stack).startswith(f"{total(estimate(stack)):,.2f} USD idle")


def test_the_output_names_the_region_of_its_prices() -> None:
    assert "us-central1" not in prices.summary(settings())
    assert prices.summary(settings(**{"gcp:region": "europe-west1"})).endswith(
        ", at us-central1's prices"
    )
    there = prices.summary(settings(**{"gcp:region": REGION}))
    assert recorded().outputs["monthly_cost_estimate"] == there


def test_every_paid_resource_adds_to_the_sum() -> None:
    """An additional unit of each raises the sum."""
    cheap = settings()
    dear = [
        replace(cheap, database=replace(cheap.database, backup_retention=7, disk_gb=11)),
        replace(cheap, database=replace(cheap.database, tier="db-g1-small")),
        replace(cheap, database=replace(cheap.database, availability="REGIONAL")),
        replace(cheap, service=replace(cheap.service, min_instances=1)),
        replace(cheap, alerts=replace(cheap.alerts, email="oncall@example.com")),
    ]
    assert all(total(estimate(each)) > total(estimate(cheap)) for each in dear)
