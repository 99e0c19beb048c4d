"""The artifact bucket, and the grants of the server and its signer to use it."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp
import pulumi_random as random

from ..component import Component
from ..facts.names import SUFFIX_BYTES, bucket_prefix
from .scope import Scope

# How long deleted or overwritten objects can be restored. Soft delete starts when a version is
# deleted, so the two times add up.
NONCURRENT_DAYS = 30
SOFT_DELETE_SECONDS = 7 * 24 * 3600
ABANDONED_UPLOAD_DAYS = 7


class Artifacts(Component):
    APIS = ("storage",)

    bucket: pulumi.Output[str]
    url: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        scope: Scope,
        existing: str | None,
        location: str,
        force_destroy: bool,
        deletion_protection: bool,
        server: pulumi.Input[str],
        signer: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(name, opts)
        if existing:
            self.bucket = pulumi.Output.from_input(existing)
        else:
            self.bucket = self._bucket(
                scope,
                location=location,
                force_destroy=force_destroy,
                deletion_protection=deletion_protection,
            )
        # Objects only: neither account can change the bucket or its permissions. A signed URL has
        # the permissions of the account that signed it.
        for who, member in (("server", server), ("signer", signer)):
            gcp.storage.BucketIAMMember(
                self.named(f"{who}-uses-artifacts"),
                bucket=self.bucket,
                role="roles/storage.objectUser",
                member=member,
                opts=self.child(),
            )
        self.url = pulumi.Output.concat("gs://", self.bucket)
        self.register_outputs({"bucket": self.bucket})

    def _bucket(
        self, scope: Scope, *, location: str, force_destroy: bool, deletion_protection: bool
    ) -> pulumi.Output[str]:
        suffix = random.RandomId(
            self.named("bucket-suffix"),
            byte_length=SUFFIX_BYTES,
            keepers={"location": location},
            opts=self.child(),
        )
        return gcp.storage.Bucket(
            self.named("artifacts"),
            name=pulumi.Output.concat(bucket_prefix(scope.project, scope.prefix), "-", suffix.hex),
            location=location,
            force_destroy=force_destroy,
            encryption=gcp.storage.BucketEncryptionArgs(default_kms_key_name=scope.kms_key)
            if scope.kms_key
            else None,
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
            # Google refuses to delete a bucket with artifacts in it, but only after the server has
            # been moved to its replacement, which is empty.
            opts=self.child(protect=deletion_protection),
        ).name
