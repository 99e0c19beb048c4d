"""Alerts, uptime check and budget: none by default, then exactly those that are set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from infra.google.alert_rules import connections_limit
from infra.google.log_metrics import LOG_METRICS
from infra.settings.reader import load
from tests.infra.declared import NUMBER, PROJECT, UNKNOWN, Program, recorded

API = "gcp:projects/service:Service"
BUDGET = "gcp:billing/budget:Budget"
CHANNEL = "gcp:monitoring/notificationChannel:NotificationChannel"
INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
CHECK = "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig"
METRIC = "gcp:logging/metric:Metric"
POLICY = "gcp:monitoring/alertPolicy:AlertPolicy"
PROVIDER = "pulumi:providers:gcp"

EMAIL = {"alertEmail": "oncall@example.com"}
UPTIME = {**EMAIL, "uptimeCheck": True}
BUDGETED = {**EMAIL, "monthlyBudget": 50, "billingAccount": "012345-6789AB-CDEF01"}

WATCHING = {API: 2, CHANNEL: 1, METRIC: 5, POLICY: 5}
CHANNEL_NAME = f"projects/{PROJECT}/notificationChannels/1"
DATABASE = f"{PROJECT}:mlflow-ab12cd"

IN_SERVICE = 'monitored_resource="cloud_run_revision"'
IN_DATABASE = f'{{monitored_resource="cloudsql_database",database_id="{DATABASE}"}}'
# Each query was tried with Prometheus' own `promtool test rules`.
QUERIES = {
    "errors": f'sum(increase(run_googleapis_com:request_count{{{IN_SERVICE},service_name="mlflow",'
    'response_code_class="5xx"}[10m])) > 10 and '
    f'sum(increase(run_googleapis_com:request_count{{{IN_SERVICE},service_name="mlflow",'
    'response_code_class="5xx"}[10m])) / '
    f'sum(increase(run_googleapis_com:request_count{{{IN_SERVICE},service_name="mlflow"}}[10m])) '
    "> 0.05",
    "latency": "histogram_quantile(0.99, sum by (le) (increase("
    f"logging_googleapis_com:user_mlflow_latency_bucket{{{IN_SERVICE}}}[10m]))) > 5 and "
    f"sum(increase(logging_googleapis_com:user_mlflow_latency_count{{{IN_SERVICE}}}[10m])) > 20",
    "failed-logins": "(sum(increase(logging_googleapis_com:user_mlflow_failed_logins"
    f"{{{IN_SERVICE}}}[10m])) or vector(0)) + "
    "(sum(increase(logging_googleapis_com:user_mlflow_refused_logins_sum"
    f"{{{IN_SERVICE}}}[10m])) or vector(0)) > 50",
    "connections": f"sum(cloudsql_googleapis_com:database_postgresql_num_backends{IN_DATABASE}) "
    "> 19",
    "disk": f"max(cloudsql_googleapis_com:database_disk_bytes_used{IN_DATABASE}) > 85000000000",
}
UPTIME_QUERY = (
    "avg(avg_over_time(monitoring_googleapis_com:uptime_check_check_passed"
    '{monitored_resource="uptime_url",check_id="health-ab12cd"}[10m])) < 0.5'
)


def default() -> Program:
    return recorded()


def watched() -> Program:
    return recorded(EMAIL)


def uptime_watched() -> Program:
    return recorded(UPTIME)


def added(program: Program) -> dict[str, int]:
    before = default().counts()
    counts = {kind: count - before.get(kind, 0) for kind, count in program.counts().items()}
    return {kind: count for kind, count in counts.items() if count}


def apis(program: Program) -> set[str]:
    new = {api.inputs["service"] for api in program.all(API)}
    return new - {api.inputs["service"] for api in default().all(API)}


def conditions(program: Program) -> dict[str, dict[str, Any]]:
    found = {}
    for policy in program.all(POLICY):
        [condition] = policy.inputs["conditions"]
        found[policy.name] = condition["conditionPrometheusQueryLanguage"]
    return found


def test_without_an_address_nothing_is_monitored() -> None:
    assert not {BUDGET, CHANNEL, CHECK, METRIC, POLICY, PROVIDER} & default().counts().keys()
    assert "Alerts" not in {resource.kind for resource in default().resources}
    assert not {"logging", "monitoring", "billingbudgets"} & {
        api.inputs["service"].partition(".")[0] for api in default().all(API)
    }


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize(
    ("config", "more", "switched_on"),
    [
        (EMAIL, {}, set()),
        (UPTIME, {CHECK: 1, POLICY: 6}, set()),
        (BUDGETED, {API: 3, BUDGET: 1, PROVIDER: 1}, {"billingbudgets.googleapis.com"}),
        (
            {**UPTIME, **BUDGETED},
            {API: 3, CHECK: 1, POLICY: 6, BUDGET: 1, PROVIDER: 1},
            {"billingbudgets.googleapis.com"},
        ),
    ],
)
def test_exactly_the_chosen_resources_are_added(
    config: Mapping[str, Any], more: dict[str, int], switched_on: set[str], preview: bool
) -> None:
    program = recorded(config, preview=preview)
    assert added(program) == {**WATCHING, **more}
    assert apis(program) == {"logging.googleapis.com", "monitoring.googleapis.com"} | switched_on
    enabled = {api.urn for api in program.all(API)}
    ours = [r for kind in (BUDGET, CHANNEL, CHECK, METRIC, POLICY) for r in program.all(kind)]
    assert all(enabled <= program.before(resource) for resource in ours)
    assert {r.parent.rpartition("::")[2] for r in ours} == {"alerts"}
    # The service waits for none of these resources.
    assert not {resource.urn for resource in ours} & program.before(program.service)


def test_notification_channels() -> None:
    program = recorded({**UPTIME, **BUDGETED})
    assert program.one(CHANNEL).inputs == {
        "displayName": "On call for mlflow",
        "type": "email",
        "labels": {"email_address": "oncall@example.com"},
    }
    told = [policy.inputs["notificationChannels"] for policy in program.all(POLICY)]
    told.append(program.one(BUDGET).inputs["allUpdatesRule"]["monitoringNotificationChannels"])
    assert told == [[CHANNEL_NAME]] * 7


def test_conditions() -> None:
    found = conditions(watched())
    assert {name: condition["query"] for name, condition in found.items()} == QUERIES
    assert {name: condition["duration"] for name, condition in found.items()} == {
        "errors": "0s",
        "latency": "300s",
        "failed-logins": "0s",
        "connections": "300s",
        "disk": "0s",
    }
    # Every evaluation costs the same, and Google refuses one of a metric that is too new.
    assert {condition["evaluationInterval"] for condition in found.values()} == {"60s"}
    assert {condition["disableMetricValidation"] for condition in found.values()} == {True}


def test_with_accounts_denied_permissions_are_counted() -> None:
    program = recorded({**EMAIL, "accounts": True})
    assert added(program) == {**WATCHING, METRIC: 6, POLICY: 6}
    assert program.one(METRIC, "denied").inputs["filter"].endswith("jsonPayload.denied=true")
    assert conditions(program)["denied"]["query"] == (
        f"sum(increase(logging_googleapis_com:user_mlflow_denied{{{IN_SERVICE}}}[10m])) > 50"
    )


def test_a_failed_upkeep_job_is_reported() -> None:
    assert conditions(recorded({**EMAIL, "cleanupAfterDays": 30}))["upkeep-failed"]["query"] == (
        'sum(increase(run_googleapis_com:job_completed_execution_count{monitored_resource="'
        'cloud_run_job",job_name="mlflow-upkeep",result="failed"}[10m])) > 0'
    )


def test_a_query_that_waits_for_a_resource_is_unknown_before_it_exists() -> None:
    queries = {k: c["query"] for k, c in conditions(recorded(UPTIME, preview=True)).items()}
    unknown = {name for name, query in queries.items() if query == UNKNOWN}
    assert unknown == {"connections", "disk", "uptime"}


def test_metric_names_are_converted_as_promql_does() -> None:
    program = recorded({**EMAIL, "name": "ml-team-2"})
    names = {metric.inputs["name"] for metric in program.all(METRIC)}
    assert names == {f"ml-team-2/{metric.name}" for metric in LOG_METRICS}
    assert (
        "logging_googleapis_com:user_ml_team_2_latency_bucket"
        in (conditions(program)["latency"]["query"])
    )


def closes(text: str) -> bool:
    """Returns whether every bracket is closed by its counterpart."""
    open_: list[str] = []
    for character in text:
        if character in "([{":
            open_.append(character)
        elif character in ")]}" and (not open_ or open_.pop() + character not in "()[]{}"):
            return False
    return not open_


@pytest.mark.parametrize("config", [UPTIME, {**UPTIME, "name": "ml-team-2"}])
def test_every_filter_and_query_is_well_formed(config: Mapping[str, Any]) -> None:
    program = recorded(config)
    filters = [metric.inputs["filter"] for metric in program.all(METRIC)]
    queries = [condition["query"] for condition in conditions(program).values()]
    assert filters
    assert queries
    for text in filters + queries:
        outside = "".join(text.split('"')[::2])
        assert text.count('"') % 2 == 0
        assert closes(outside)
    name = config.get("name", "mlflow")
    ours = f'resource.type="cloud_run_revision" AND resource.labels.service_name="{name}" AND '
    assert all(text.startswith(ours) for text in filters)


def test_log_metrics() -> None:
    metrics = {metric.name: metric.inputs for metric in watched().all(METRIC)}
    kinds = {
        name: (metric["metricDescriptor"]["valueType"], metric.get("valueExtractor"))
        for name, metric in metrics.items()
    }
    assert kinds == {
        "failed_logins": ("INT64", None),
        "refused_logins": ("DISTRIBUTION", "EXTRACT(jsonPayload.refused)"),
        "server_errors": ("INT64", None),
        "latency": ("DISTRIBUTION", "EXTRACT(httpRequest.latency)"),
        "pool_in_use": ("DISTRIBUTION", "EXTRACT(jsonPayload.pool.in_use)"),
    }
    assert {metric["metricDescriptor"]["metricKind"] for metric in metrics.values()} == {"DELTA"}
    for metric in metrics.values():
        bounds = metric.get("bucketOptions", {}).get("explicitBuckets", {}).get("bounds", [])
        assert bounds == sorted(set(bounds))
        # Google accepts buckets for a distribution only, and requires them there.
        assert bool(bounds) == ("valueExtractor" in metric)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        # As many as all pools and Cloud SQL's agents hold, or nine tenths of the connections that
        # are not reserved for superusers, whichever is more.
        ({}, 2 * 8 + 3),
        ({"maxInstances": 1}, int(0.9 * (25 - 3))),
        ({"databaseTier": "db-g1-small"}, int(0.9 * (50 - 3))),
        ({"databaseTier": "db-custom-1-3840", "maxInstances": 11}, 11 * 8 + 3),
        ({"databaseTier": "db-custom-2-7680"}, int(0.9 * (400 - 3))),
    ],
)
def test_the_connection_threshold_follows_the_tier(config: dict[str, Any], limit: int) -> None:
    query = conditions(recorded({**EMAIL, **config}))["connections"]["query"]
    assert query.endswith(f" > {limit}")


@pytest.mark.parametrize(
    "tier", ["db-f1-micro", "db-g1-small", "db-custom-1-3840", "db-custom-20-122880"]
)
def test_the_connection_alert_fires_before_the_database_refuses(tier: str) -> None:
    """For every number of instances that the settings allow."""
    config = {"gcp:project": PROJECT, "mlflow-gcp:databaseTier": tier}
    accepted = {"db-f1-micro": 25, "db-g1-small": 50, "db-custom-1-3840": 100}.get(tier, 1000)
    for instances in range(1, (accepted - 8) // 8 + 1):
        settings = load({**config, "mlflow-gcp:maxInstances": str(instances)})
        limit = connections_limit(settings.database, max_instances=instances)
        assert instances * settings.database.connections < limit < accepted - 3


def test_the_disk_threshold_follows_the_limit_of_its_growth() -> None:
    query = conditions(recorded({**EMAIL, "databaseDiskLimitGb": 20}))["disk"]["query"]
    assert query.endswith(" > 17000000000")


@pytest.mark.parametrize("name", [*QUERIES, "uptime", "denied", "upkeep-failed"])
def test_every_alert_has_an_explanation_and_next_steps(name: str) -> None:
    config = {**UPTIME, "accounts": True, "cleanupAfterDays": 30}
    inputs = recorded(config).one(POLICY, name).inputs
    documentation = inputs["documentation"]
    assert documentation["mimeType"] == "text/markdown"
    assert documentation["subject"] == inputs["displayName"]
    assert inputs["displayName"].startswith("mlflow: ")
    meaning, _, steps = documentation["content"].partition("\n\n")
    assert meaning.endswith(".")
    assert [step[:3] for step in steps.splitlines()] == ["1. ", "2. "]
    assert f"project={PROJECT}" in steps or name == "disk"
    # Cloud Monitoring fills in its own values.
    assert "${" not in documentation["content"]
    assert inputs["severity"] in {"CRITICAL", "ERROR", "WARNING"}
    assert inputs["combiner"] == "OR"
    assert inputs["alertStrategy"] == {"autoClose": "3600s"}


def test_uptime_check() -> None:
    program = uptime_watched()
    assert program.one(CHECK).inputs == {
        "displayName": "mlflow /health",
        "timeout": "30s",
        "period": "300s",
        "httpCheck": {"path": "/health", "port": 443, "useSsl": True, "validateSsl": True},
        "monitoredResource": {
            "type": "uptime_url",
            "labels": {"project_id": PROJECT, "host": "mlflow-abc123-uc.a.run.app"},
        },
    }
    assert conditions(program)["uptime"]["query"] == UPTIME_QUERY


def test_budget() -> None:
    program = recorded(BUDGETED)
    budget, provider = program.one(BUDGET), program.one(PROVIDER)
    assert budget.inputs == {
        "billingAccount": "012345-6789AB-CDEF01",
        "displayName": f"mlflow in {PROJECT}",
        "budgetFilter": {"projects": [f"projects/{NUMBER}"], "calendarPeriod": "MONTH"},
        "amount": {"specifiedAmount": {"units": "50"}},
        "thresholdRules": [
            {"thresholdPercent": 0.5},
            {"thresholdPercent": 0.9},
            {"thresholdPercent": 1},
            {"thresholdPercent": 1, "spendBasis": "FORECASTED_SPEND"},
        ],
        "allUpdatesRule": {"monitoringNotificationChannels": [CHANNEL_NAME]},
    }
    # Calls count against this project, which a user's own credentials don't name.
    assert budget.provider.startswith(f"{provider.urn}::")
    assert provider.inputs["billingProject"] == PROJECT
    assert provider.inputs["userProjectOverride"] in (True, "true")


def test_the_budget_logs_in_as_the_stack_does() -> None:
    """A provider of the program's own doesn't read the settings of the default provider."""
    login = {
        "gcp:accessToken": "a canary token",
        "gcp:credentials": "a canary key",
        "gcp:impersonateServiceAccount": "deployer@my-project.iam.gserviceaccount.com",
        "gcp:impersonateServiceAccountDelegates": ["a@my-project.iam.gserviceaccount.com"],
        "gcp:billingProject": "quota-project",
    }
    inputs = recorded({**BUDGETED, **login}).one(PROVIDER).inputs
    assert inputs["impersonateServiceAccount"] == login["gcp:impersonateServiceAccount"]
    delegates = inputs["impersonateServiceAccountDelegates"]
    assert delegates == json.dumps(login["gcp:impersonateServiceAccountDelegates"])
    assert inputs["billingProject"] == "quota-project"
    assert inputs["userProjectOverride"] == "true"
    assert (inputs["accessToken"], inputs["credentials"]) == ("a canary token", "a canary key")
