"""The grants with which a program besides the server reaches the stack's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_gcp as gcp

from ..component import Component
from .database import grant_connect
from .scope import Scope


def grant_stores(
    what: str,
    *,
    scope: Scope,
    member: pulumi.Input[str],
    connection_name: pulumi.Output[str],
    bucket: pulumi.Input[str],
    secret_ids: Mapping[str, pulumi.Input[str]],
    reads: Sequence[str],
    of: Component,
) -> list[pulumi.Resource]:
    """Let a member read these secrets, use the bucket's objects and connect to the database."""
    return [
        *(
            gcp.secretmanager.SecretIamMember(
                of.named(f"{what}-reads-{key}"),
                secret_id=secret_ids[key],
                role="roles/secretmanager.secretAccessor",
                member=member,
                opts=of.child(),
            )
            for key in reads
        ),
        gcp.storage.BucketIAMMember(
            of.named(f"{what}-uses-artifacts"),
            bucket=bucket,
            role="roles/storage.objectUser",
            member=member,
            opts=of.child(),
        ),
        grant_connect(
            f"{what}-connects",
            scope=scope,
            instance=connection_name.apply(lambda name: name.rpartition(":")[2]),
            member=member,
            of=of,
        ),
    ]
