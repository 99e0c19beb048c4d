"""Alerts by e-mail: log-based metrics, alert policies, the uptime check and the budget.

The stack creates them only if `alertEmail` is set.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from ..facts.connection_name import ConnectionName
from ..settings.schema import AlertSettings, DatabaseSettings
from .alert_rules import (
    Alert,
    database_alerts,
    denied_alert,
    service_alerts,
    upkeep_alert,
    uptime_alert,
)
from .console import Console
from .log_metrics import DENIED, LOG_METRICS, LogMetric
from .scope import Scope
from .service import HEALTH

BUDGET_APIS = ("billingbudgets",)

# Google charges for each evaluation, and Cloud SQL's metrics arrive once a minute.
EVALUATION = "60s"
# Closes an incident without data, for example when nobody calls and no instance runs.
AUTO_CLOSE = "3600s"
BUDGET_SHARES = (0.5, 0.9, 1.0)


class Alerts(Component):
    APIS = ("logging", "monitoring")

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        project_number: pulumi.Input[str],
        settings: AlertSettings,
        database: DatabaseSettings,
        max_instances: int,
        accounts: bool,
        upkeep: bool,
        connection_name: pulumi.Output[str],
        uri: pulumi.Output[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        self._scope = scope
        self._channel = gcp.monitoring.NotificationChannel(
            self.named("email"),
            display_name=f"On call for {scope.prefix}",
            type="email",
            labels={"email_address": settings.email},
            opts=self.child(),
        ).name
        for metric in (*LOG_METRICS, DENIED) if accounts else LOG_METRICS:
            self._metric(metric)

        console = Console(scope=scope)
        alerts = service_alerts(console)
        if accounts:
            alerts.append(denied_alert(console))
        if upkeep:
            alerts.append(upkeep_alert(console))
        # An existing instance is left to its owner, who knows what else uses it.
        if not database.existing_instance:
            alerts += database_alerts(
                console,
                database=database,
                max_instances=max_instances,
                database_id=connection_name.apply(
                    lambda name: ConnectionName.parse(name).database_id
                ),
            )
        if settings.uptime_check:
            alerts.append(uptime_alert(console, check_id=self._uptime_check(uri)))
        for alert in alerts:
            self._policy(alert)
        if settings.monthly_budget:
            self._budget(settings, project_number)
        self.register_outputs({})

    def _uptime_check(self, uri: pulumi.Output[str]) -> pulumi.Output[str]:
        host = uri.apply(lambda address: address.removeprefix("https://"))
        return gcp.monitoring.UptimeCheckConfig(
            self.named("health"),
            display_name=f"{self._scope.prefix} {HEALTH}",
            # A cold start may take as long.
            timeout="30s",
            period="300s",
            http_check=gcp.monitoring.UptimeCheckConfigHttpCheckArgs(
                path=HEALTH, port=443, use_ssl=True, validate_ssl=True
            ),
            monitored_resource=gcp.monitoring.UptimeCheckConfigMonitoredResourceArgs(
                type="uptime_url", labels={"project_id": self._scope.project, "host": host}
            ),
            opts=self.child(),
        ).uptime_check_id

    def _metric(self, metric: LogMetric) -> None:
        gcp.logging.Metric(
            self.named(metric.name),
            name=metric.metric_id(self._scope.prefix),
            description=metric.description,
            filter=metric.filter_for(self._scope.prefix),
            metric_descriptor=gcp.logging.MetricMetricDescriptorArgs(
                metric_kind="DELTA",
                value_type="DISTRIBUTION" if metric.value else "INT64",
                unit=metric.unit,
            ),
            value_extractor=f"EXTRACT({metric.value})" if metric.value else None,
            bucket_options=gcp.logging.MetricBucketOptionsArgs(
                explicit_buckets=gcp.logging.MetricBucketOptionsExplicitBucketsArgs(
                    bounds=[*metric.bounds]
                )
            )
            if metric.bounds
            else None,
            opts=self.child(),
        )

    def _policy(self, alert: Alert) -> None:
        title = f"{self._scope.prefix}: {alert.title}"
        gcp.monitoring.AlertPolicy(
            self.named(alert.name),
            display_name=title,
            severity=alert.severity,
            combiner="OR",
            conditions=[
                gcp.monitoring.AlertPolicyConditionArgs(
                    display_name=alert.title,
                    condition_prometheus_query_language=gcp.monitoring.AlertPolicyConditionConditionPrometheusQueryLanguageArgs(
                        query=alert.query,
                        duration=f"{alert.seconds}s",
                        evaluation_interval=EVALUATION,
                        # Google doesn't find a new metric for up to ten minutes:
                        # https://github.com/GoogleCloudPlatform/cloud-foundation-fabric/pull/3739
                        disable_metric_validation=True,
                    ),
                )
            ],
            alert_strategy=gcp.monitoring.AlertPolicyAlertStrategyArgs(auto_close=AUTO_CLOSE),
            documentation=gcp.monitoring.AlertPolicyDocumentationArgs(
                subject=title, content=alert.documentation, mime_type="text/markdown"
            ),
            notification_channels=[self._channel],
            opts=self.child(),
        )

    def _budget(self, settings: AlertSettings, project_number: pulumi.Input[str]) -> None:
        # The budget belongs to the billing account. When a user calls its API, rather than a
        # service account, the API requires a project to charge the call to:
        # https://github.com/hashicorp/terraform-provider-google/issues/7948
        # This provider doesn't read the stack's own settings for logging in.
        stack = pulumi.Config("gcp")
        caller = gcp.Provider(
            self.named("billing"),
            project=self._scope.project,
            billing_project=stack.get("billingProject") or self._scope.project,
            user_project_override=True,
            access_token=stack.get_secret("accessToken"),
            credentials=stack.get_secret("credentials"),
            impersonate_service_account=stack.get("impersonateServiceAccount"),
            impersonate_service_account_delegates=stack.get_object(
                "impersonateServiceAccountDelegates"
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        gcp.billing.Budget(
            self.named("monthly"),
            billing_account=settings.billing_account,
            display_name=f"{self._scope.prefix} in {self._scope.project}"[:60],
            budget_filter=gcp.billing.BudgetBudgetFilterArgs(
                projects=[pulumi.Output.concat("projects/", project_number)],
                calendar_period="MONTH",
            ),
            # Without a currency, this is the billing account's.
            amount=gcp.billing.BudgetAmountArgs(
                specified_amount=gcp.billing.BudgetAmountSpecifiedAmountArgs(
                    units=str(settings.monthly_budget)
                )
            ),
            threshold_rules=[
                *(
                    gcp.billing.BudgetThresholdRuleArgs(threshold_percent=share)
                    for share in BUDGET_SHARES
                ),
                gcp.billing.BudgetThresholdRuleArgs(
                    threshold_percent=1.0, spend_basis="FORECASTED_SPEND"
                ),
            ],
            all_updates_rule=gcp.billing.BudgetAllUpdatesRuleArgs(
                monitoring_notification_channels=[self._channel]
            ),
            opts=self.child(provider=caller),
        )
