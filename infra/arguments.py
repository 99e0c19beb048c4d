"""The arguments of `TrackingServer`. `make docs` writes this file from settings/schema.py."""

# package.py reads these annotations at run time, so they aren't postponed.
from collections.abc import Sequence
from typing import TypedDict

import pulumi


class Arguments(TypedDict, total=False):
    """The settings of `Pulumi.yaml`, in snake case and with the same defaults."""

    access: str
    invokers: Sequence[str]
    public_through: str
    load_balancer: bool
    rate_limit: int
    custom_domains: Sequence[str]
    tracking_username: str
    tracking_password: pulumi.Output[str]
    tracking_password_version: int
    previous_tracking_password: str
    tracking_password_secret: str
    viewer_username: str
    viewer_password: pulumi.Output[str]
    viewer_password_version: int
    previous_viewer_password: str
    viewer_password_secret: str
    encryption_key_version: int
    accounts: bool
    accounts_default_permission: str
    accounts_administrators: Sequence[str]
    accounts_domains: Sequence[str]
    existing_database_instance: str
    database_version: int
    database_tier: str
    database_edition: str
    database_disk_gb: int
    database_disk_limit_gb: int
    database_availability: str
    database_connections: int
    database_password_version: int
    backup_retention: int
    cleanup_after_days: int
    archive_traces_after_days: int
    network: str
    existing_network: str
    existing_subnetwork: str
    internal_networks: Sequence[str]
    memory: str
    cpu: int
    concurrency: int
    min_instances: int
    max_instances: int
    request_timeout: int
    jobs: bool
    mlflow_telemetry: bool
    artifacts: str
    existing_bucket: str
    bucket_location: str
    bucket_force_destroy: bool
    alert_email: str
    uptime_check: bool
    monthly_budget: int
    billing_account: str
    image: str
    builder: str
    kms_key: str
    deletion_protection: bool
    github_repository: str
    github_repository_id: int
    github_review: bool
