"""The bucket of artifacts, and the server's right to use it."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from infra.component import Component
from infra.names import SUFFIX_BYTES, bucket_prefix

# How long what was deleted or overwritten can be brought back. Soft delete covers a deleted
# version, so the two add up.
NONCURRENT_DAYS = 30
SOFT_DELETE_SECONDS = 7 * 24 * 3600
ABANDONED_UPLOAD_DAYS = 7


class Artifacts(Component):
    bucket: pulumi.Output[str]
    url: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        project: str,
        prefix: str,
        location: str,
        force_destroy: bool,
        server: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        suffix = random.RandomId(
            "bucket-suffix",
            byte_length=SUFFIX_BYTES,
            keepers={"location": location},
            opts=self.child(),
        )
        bucket = gcp.storage.Bucket(
            "artifacts",
            name=pulumi.Output.concat(bucket_prefix(project, prefix), "-", suffix.hex),
            location=location,
            force_destroy=force_destroy,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning=gcp.storage.BucketVersioningArgs(enabled=True),
            soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(
                retention_duration_seconds=SOFT_DELETE_SECONDS
            ),
            lifecycle_rules=[
                gcp.storage.BucketLifecycleRuleArgs(
                    action=gcp.storage.BucketLifecycleRuleActionArgs(type="Delete"),
                    condition=gcp.storage.BucketLifecycleRuleConditionArgs(
                        with_state="ARCHIVED", days_since_noncurrent_time=NONCURRENT_DAYS
                    ),
                ),
                gcp.storage.BucketLifecycleRuleArgs(
                    action=gcp.storage.BucketLifecycleRuleActionArgs(
                        type="AbortIncompleteMultipartUpload"
                    ),
                    condition=gcp.storage.BucketLifecycleRuleConditionArgs(
                        age=ABANDONED_UPLOAD_DAYS
                    ),
                ),
            ],
            opts=self.child(),
        )
        # Objects only: the server can neither change the bucket nor who may use it.
        gcp.storage.BucketIAMMember(
            "server-uses-artifacts",
            bucket=bucket.name,
            role="roles/storage.objectUser",
            member=server,
            opts=self.child(),
        )
        self.bucket = bucket.name
        self.url = pulumi.Output.concat("gs://", bucket.name)
        self.register_outputs({"bucket": self.bucket})
