"""Alerts, metrics, uptime checks and budgets: recorded, with the names that others refer to.

https://cloud.google.com/monitoring/api/ref_v3/rest and
https://cloud.google.com/billing/docs/reference/budget/rest
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from fake_google.errors import NotFound, Refused
from fake_google.project import Inputs, Outputs, Project

CHANNEL = "gcp:monitoring/notificationChannel:NotificationChannel"
POLICY = "gcp:monitoring/alertPolicy:AlertPolicy"


def make_log_metric(_project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    return str(inputs["name"]), {}


def make_channel(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    name = f"projects/{project.id}/notificationChannels/{_number(inputs)}"
    return name, {"name": name}


def delete_channel(project: Project, olds: Inputs, _inputs: Inputs) -> None:
    for (token, _), live in project.live.items():
        if token == POLICY and olds["name"] in live.inputs["notificationChannels"]:
            raise Refused(
                f"Error 400: Notification channel {olds['name']} is used by the alert policy "
                f"{live.inputs['displayName']}."
            )


def make_policy(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_channels(project, inputs["notificationChannels"])
    name = f"projects/{project.id}/alertPolicies/{_number(inputs)}"
    return name, {"name": name}


def make_uptime_check(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    number = _number(inputs)
    name = f"projects/{project.id}/uptimeCheckConfigs/{number}"
    return name, {"name": name, "uptimeCheckId": number}


def make_budget(project: Project, _name: str, inputs: Inputs) -> tuple[str, Outputs]:
    _check_channels(project, inputs["allUpdatesRule"]["monitoringNotificationChannels"])
    name = f"billingAccounts/{inputs['billingAccount']}/budgets/{_number(inputs)}"
    return name, {"name": name}


def _number(inputs: Inputs) -> str:
    """Returns a number that stays the same as long as the name does."""
    return str(zlib.crc32(inputs["displayName"].encode()))


def _check_channels(project: Project, channels: Iterable[str]) -> None:
    for channel in channels:
        if not project.read(CHANNEL, channel):
            raise NotFound(f"Error 404: Notification channel {channel} does not exist.")
