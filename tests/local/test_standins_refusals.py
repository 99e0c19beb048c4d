"""Creations, changes and deletions that Google refuses, for clients that keep a state."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fake_google.errors import ApiNotEnabled, NotFound, Refused
from fake_google.sql import instances
from tests.local.standins import BUCKET, PROJECT, SERVER, StandIns, project

INSTANCE: dict[str, Any] = {
    "name": "mlflow-1",
    "region": "us-central1",
    "databaseVersion": "POSTGRES_17",
    "deletionProtection": False,
    "settings": {"tier": "db-f1-micro", "edition": "ENTERPRISE", "diskSize": 10},
}
SERVICE = {
    "name": "mlflow",
    "location": "us-central1",
    "deletionProtection": False,
    "template": {"serviceAccount": SERVER, "containers": [{"image": "image"}]},
}
JOB = {**SERVICE, "template": {"template": SERVICE["template"]}}
SCHEDULE = {
    "name": "mlflow",
    "region": "us-central1",
    "schedule": "30 7 * * *",
    "httpTarget": {"oauthToken": {"serviceAccountEmail": SERVER}},
}
IMAGE = {
    "imageName": "registry/server:latest",
    "build": {"context": "image"},
    "registry": {"server": "registry", "password": "first"},
}
SECRET = {"secretId": "password", "replication": {"auto": {}}}
MEMBER = {"secretId": "password", "role": "roles/run.invoker", "member": "allUsers"}


@pytest.fixture
def google(tmp_path: Path) -> Iterator[StandIns]:
    with project(tmp_path) as made:
        made.enable("cloudscheduler")
        yield made


def create(google: StandIns, kind: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return google.cloud.create(f"gcp:{kind}", "test", inputs)


def changed(inputs: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(dict(inputs))
    *parents, last = path.split(".")
    inner = made
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return made


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("sql/databaseInstance:DatabaseInstance", INSTANCE),
        ("cloudrunv2/service:Service", SERVICE),
        ("cloudrunv2/job:Job", JOB),
        ("cloudrunv2/workerPool:WorkerPool", SERVICE),
        ("cloudscheduler/job:Job", SCHEDULE),
        ("secretmanager/secret:Secret", SECRET),
        ("serviceaccount/account:Account", {"accountId": "another"}),
        ("storage/bucket:Bucket", {"name": "another-bucket", "location": "EU"}),
    ],
)
def test_a_name_can_only_be_used_once(
    google: StandIns, kind: str, inputs: Mapping[str, Any]
) -> None:
    made, outputs = create(google, kind, inputs)
    with pytest.raises(Refused, match="Error 409"):
        create(google, kind, inputs)
    google.cloud.delete(f"gcp:{kind}", made, outputs)
    # The same holds for Cloud SQL: https://cloud.google.com/sql/docs/postgres/delete-instance
    assert create(google, kind, inputs)[0] == made


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("settings.tier", "db-f1-mikro", "Invalid Tier"),
        ("settings.edition", "ENTERPRISE_PLUS", "Invalid Tier"),
        # The default edition for PostgreSQL 17.
        ("settings.edition", None, r"Invalid Tier .*\(ENTERPRISE_PLUS\)"),
        ("region", "us-central9", "Invalid value for region"),
    ],
)
def test_an_instance_that_google_does_not_offer_is_refused(
    google: StandIns, path: str, value: Any, message: str
) -> None:
    with pytest.raises(Refused, match=message):
        create(google, "sql/databaseInstance:DatabaseInstance", changed(INSTANCE, path, value))


def test_unknown_locations_are_refused(google: StandIns) -> None:
    with pytest.raises(Refused, match="location constraint"):
        create(google, "storage/bucket:Bucket", {"name": "another", "location": "MOON"})
    with pytest.raises(Refused, match="Location moon"):
        create(google, "cloudrunv2/service:Service", {**SERVICE, "location": "moon"})


def test_a_schedule_needs_an_existing_account_and_a_valid_time(google: StandIns) -> None:
    nobody = changed(SCHEDULE, "httpTarget.oauthToken.serviceAccountEmail", "nobody@example.com")
    with pytest.raises(NotFound, match="actAs"):
        create(google, "cloudscheduler/job:Job", nobody)
    with pytest.raises(Refused, match="Schedule or time zone is invalid"):
        create(google, "cloudscheduler/job:Job", {**SCHEDULE, "schedule": "daily"})


def test_a_major_version_can_only_be_raised(google: StandIns) -> None:
    token = "gcp:sql/databaseInstance:DatabaseInstance"
    made, _ = create(google, "sql/databaseInstance:DatabaseInstance", INSTANCE)
    newer = {**INSTANCE, "databaseVersion": "POSTGRES_18"}
    google.cloud.update(token, made, "test", olds=INSTANCE, news=newer)
    with pytest.raises(Refused, match="downgrade"):
        google.cloud.update(token, made, "test", olds=newer, news=INSTANCE)


@pytest.mark.parametrize(
    ("kind", "inputs", "path", "message"),
    [
        (
            "sql/databaseInstance:DatabaseInstance",
            INSTANCE,
            "deletionProtection",
            "deletion_protection is set to true",
        ),
        (
            "sql/databaseInstance:DatabaseInstance",
            INSTANCE,
            "settings.deletionProtectionEnabled",
            "The instance is protected",
        ),
        ("cloudrunv2/service:Service", SERVICE, "deletionProtection", "deletion_protection=false"),
        ("cloudrunv2/job:Job", JOB, "deletionProtection", "deletion_protection=false"),
        (
            "cloudrunv2/workerPool:WorkerPool",
            SERVICE,
            "deletionProtection",
            "deletion_protection=false",
        ),
    ],
)
def test_a_protected_resource_is_not_deleted(
    google: StandIns, kind: str, inputs: Mapping[str, Any], path: str, message: str
) -> None:
    made, outputs = create(google, kind, changed(inputs, path, True))
    with pytest.raises(Refused, match=message):
        google.cloud.delete(f"gcp:{kind}", made, outputs)
    assert google.cloud.project.read(f"gcp:{kind}", made)
    outputs = google.cloud.update(
        f"gcp:{kind}", made, "test", olds=inputs, news=changed(inputs, path, False)
    )
    google.cloud.delete(f"gcp:{kind}", made, outputs)
    assert google.cloud.project.read(f"gcp:{kind}", made) is None


def test_a_bucket_with_objects_is_not_deleted(google: StandIns) -> None:
    token = "gcp:storage/bucket:Bucket"
    file = google.cloud.project.store.files / "file"
    file.write_bytes(b"precious")
    google.cloud.project.store.put({"bucket": BUCKET, "name": "object"}, [file])
    with pytest.raises(Refused, match="without `force_destroy` set to true"):
        google.cloud.delete(token, BUCKET, {})
    assert google.cloud.project.store.get(BUCKET, "object")
    google.cloud.delete(token, BUCKET, {"forceDestroy": True})
    assert google.cloud.project.store.bucket(BUCKET) is None
    assert not file.exists()


def test_a_version_is_destroyed_unless_it_is_abandoned(google: StandIns) -> None:
    create(google, "secretmanager/secret:Secret", SECRET)
    version = {"secret": f"projects/{PROJECT}/secrets/password", "secretData": "value"}
    kind = "secretmanager/secretVersion:SecretVersion"
    for policy, state in (("DELETE", "DESTROYED"), ("ABANDON", "ENABLED")):
        made, outputs = create(google, kind, {**version, "deletionPolicy": policy})
        google.cloud.delete(f"gcp:{kind}", made, outputs)
        versions = google.cloud.project.secrets.versions("password")
        assert versions is not None
        assert versions[outputs["version"]]["state"] == state


def test_a_service_without_its_secrets_fails_to_boot(google: StandIns) -> None:
    """The service is created anyway, as on Google Cloud."""
    env = {"name": "PASSWORD_SECRET", "value": "password/versions/1"}
    inputs = changed(SERVICE, "template.containers", [{"image": "image", "envs": [env]}])
    with pytest.raises(Exception, match=r"versions\.access' denied for PASSWORD_SECRET"):
        create(google, "cloudrunv2/service:Service", inputs)
    google.secret("password", "value")
    google.declare(
        "secretmanager/secretIamMember:SecretIamMember",
        secretId="password",
        role="roles/secretmanager.secretAccessor",
        member=f"serviceAccount:{SERVER}",
    )
    [made] = [key for token, key in google.cloud.project.live if "cloudrunv2" in token]
    google.cloud.update("gcp:cloudrunv2/service:Service", made, "test", olds=inputs, news=inputs)


def test_a_grant_needs_an_existing_member_and_ends_when_deleted(google: StandIns) -> None:
    kind = "storage/bucketIAMMember:BucketIAMMember"
    grant = {"bucket": BUCKET, "role": "roles/storage.objectUser"}
    with pytest.raises(NotFound, match="nobody@.* does not exist"):
        create(google, kind, {**grant, "member": f"serviceAccount:nobody@{PROJECT}"})
    before = list(google.cloud.project.policy.grants)
    made, outputs = create(google, kind, {**grant, "member": "allUsers"})
    assert len(google.cloud.project.policy.grants) == len(before) + 1
    google.cloud.delete(f"gcp:{kind}", made, outputs)
    assert google.cloud.project.policy.grants == before


def test_a_grant_on_a_missing_secret_is_refused(google: StandIns) -> None:
    kind = "secretmanager/secretIamMember:SecretIamMember"
    grant = {"role": "roles/secretmanager.secretAccessor", "member": f"serviceAccount:{SERVER}"}
    with pytest.raises(NotFound, match="secrets/nowhere. not found"):
        create(google, kind, {**grant, "secretId": f"projects/{PROJECT}/secrets/nowhere"})


def test_a_notification_channel_in_use_is_not_deleted(google: StandIns) -> None:
    channel_kind, policy_kind = (
        "monitoring/notificationChannel:NotificationChannel",
        "monitoring/alertPolicy:AlertPolicy",
    )
    channel = {"displayName": "On call", "type": "email"}
    with pytest.raises(ApiNotEnabled, match="monitoring"):
        create(google, channel_kind, channel)
    google.enable("monitoring", "billingbudgets")
    name = f"projects/{PROJECT}/notificationChannels/1"
    policy = {"displayName": "errors", "notificationChannels": [name]}
    budget = {
        "displayName": "monthly",
        "billingAccount": "012345-6789AB-CDEF01",
        "allUpdatesRule": {"monitoringNotificationChannels": [name]},
    }
    for kind, inputs in ((policy_kind, policy), ("billing/budget:Budget", budget)):
        with pytest.raises(NotFound, match="notificationChannels/1 does not exist"):
            create(google, kind, inputs)
    told, outputs = create(google, channel_kind, channel)
    made, _ = create(google, policy_kind, {**policy, "notificationChannels": [outputs["name"]]})
    with pytest.raises(Refused, match="is used by the alert policy errors"):
        google.cloud.delete(f"gcp:{channel_kind}", told, outputs)
    google.cloud.delete(f"gcp:{policy_kind}", made, {})
    google.cloud.delete(f"gcp:{channel_kind}", told, outputs)


@pytest.mark.parametrize("kept", [True, False])
def test_a_deleted_api_is_disabled_unless_kept(google: StandIns, kept: bool) -> None:
    kind = "projects/service:Service"
    on = {"service": "secretmanager.googleapis.com", "disableOnDestroy": not kept}
    made, outputs = create(google, kind, on)
    google.cloud.delete(f"gcp:{kind}", made, outputs)
    if kept:
        create(google, "secretmanager/secret:Secret", SECRET)
    else:
        with pytest.raises(ApiNotEnabled, match="secretmanager"):
            create(google, "secretmanager/secret:Secret", SECRET)


@pytest.mark.parametrize(
    ("token", "inputs", "path", "value", "replaces", "delete_first"),
    [
        ("gcp:sql/databaseInstance:DatabaseInstance", INSTANCE, "settings.tier", "t", "", False),
        ("gcp:sql/databaseInstance:DatabaseInstance", INSTANCE, "name", "n", "name", True),
        ("gcp:sql/databaseInstance:DatabaseInstance", INSTANCE, "region", "r", "region", True),
        ("gcp:cloudrunv2/service:Service", SERVICE, "template.timeout", "9s", "", False),
        ("gcp:cloudrunv2/service:Service", SERVICE, "location", "l", "location", True),
        ("gcp:secretmanager/secret:Secret", SECRET, "labels", {"a": "b"}, "", False),
        ("gcp:secretmanager/secret:Secret", SECRET, "replication", {}, "replication", False),
        ("gcp:secretmanager/secretIamMember:SecretIamMember", MEMBER, "role", "r", "role", False),
        ("gcp:projects/iAMMember:IAMMember", MEMBER, "role", "r", "role", True),
        ("docker:index/image:Image", IMAGE, "imageName", "other:1", "", False),
    ],
)
def test_changes_that_replace_a_resource(
    google: StandIns,
    token: str,
    inputs: Mapping[str, Any],
    path: str,
    value: Any,
    replaces: str,
    delete_first: bool,
) -> None:
    difference = google.cloud.diff(token, inputs, changed(inputs, path, value))
    assert difference.changed == (path.partition(".")[0],)
    assert "".join(difference.replaces) == replaces
    assert difference.delete_first is delete_first
    assert google.cloud.diff(token, inputs, inputs).changed == ()


def test_a_grown_disk_is_refused_a_smaller_size(google: StandIns) -> None:
    """The provider sends the size in the caller's state, unless the new size is larger."""
    token = "gcp:sql/databaseInstance:DatabaseInstance"
    google.enable("sqladmin")
    made, _ = create(google, "sql/databaseInstance:DatabaseInstance", INSTANCE)
    instances.grow_disk(google.cloud.project, INSTANCE["name"], 37)
    larger = changed(INSTANCE, "settings.tier", "db-g1-small")

    def update(*, known: int, wanted: int) -> None:
        olds = changed(INSTANCE, "settings.diskSize", known)
        news = changed(larger, "settings.diskSize", wanted)
        google.cloud.update(token, made, "test", olds=olds, news=news)

    with pytest.raises(Refused, match="cannot decrease. Current size: 37 GB, requested: 10 GB"):
        update(known=10, wanted=10)
    update(known=37, wanted=10)
    update(known=10, wanted=40)
    [found] = google.cloud.invoke("gcp:sql/getDatabaseInstances:getDatabaseInstances", {})[
        "instances"
    ]
    assert found == {"name": INSTANCE["name"], "settings": [{"diskSize": 40}]}


def test_a_smaller_disk_and_another_registry_token_are_not_changes(google: StandIns) -> None:
    token = "gcp:sql/databaseInstance:DatabaseInstance"
    grown = changed(INSTANCE, "settings.diskSize", 50)
    assert google.cloud.diff(token, grown, INSTANCE).changed == ()
    assert google.cloud.diff(token, INSTANCE, grown).changed == ("settings",)
    token = "docker:index/image:Image"
    assert google.cloud.diff(token, IMAGE, changed(IMAGE, "registry.password", "2")).changed == ()
    assert google.cloud.diff(token, IMAGE, changed(IMAGE, "registry.server", "2")).changed != ()
