"""The stack that the program declares: an inventory, the properties that matter, the order.

`DEFECTS` breaks the program on purpose, to see the checks fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pulumi_gcp as gcp
import pytest

from infra.facts import names, versions
from infra.google.image import SOURCE
from infra.settings.refusals import SettingsError
from tests.infra.declared import (
    DIGEST,
    NUMBER,
    PROJECT,
    REGION,
    REGISTRY_TOKEN,
    ROOT,
    UNKNOWN,
    Program,
    Secret,
    plain_strings,
    recorded,
    run,
    shown,
)

API = "gcp:projects/service:Service"
ACCOUNT = "gcp:serviceaccount/account:Account"
CUSTOM_ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
ACCOUNT_MEMBER = "gcp:serviceaccount/iAMMember:IAMMember"
PROJECT_MEMBER = "gcp:projects/iAMMember:IAMMember"
INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
DATABASE = "gcp:sql/database:Database"
USER = "gcp:sql/user:User"
BUCKET = "gcp:storage/bucket:Bucket"
BUCKET_MEMBER = "gcp:storage/bucketIAMMember:BucketIAMMember"
SECRET = "gcp:secretmanager/secret:Secret"
VERSION = "gcp:secretmanager/secretVersion:SecretVersion"
SECRET_MEMBER = "gcp:secretmanager/secretIamMember:SecretIamMember"
REPOSITORY = "gcp:artifactregistry/repository:Repository"
IMAGE = "docker:index/image:Image"
COMMAND = "command:local:Command"
SERVICE = "gcp:cloudrunv2/service:Service"
INVOKER = "gcp:cloudrunv2/serviceIamMember:ServiceIamMember"
RANDOM_ID = "random:index/randomId:RandomId"
RANDOM_PASSWORD = "random:index/randomPassword:RandomPassword"

TOKEN_CALL = "gcp:organizations/getClientConfig:getClientConfig"

SERVER, SIGNER = (
    f"serviceAccount:mlflow-{what}@{PROJECT}.iam.gserviceaccount.com"
    for what in ("server", "signer")
)
BUCKET_NAME = f"{PROJECT}-mlflow-artifacts-ab12cd"
CONNECTION = f"{PROJECT}:{REGION}:mlflow-ab12cd"
BUILT_IMAGE = f"{REGION}-docker.pkg.dev/{PROJECT}/mlflow/server@{DIGEST}"
READY_IMAGE = f"{REGION}-docker.pkg.dev/{PROJECT}/my-images/server@{DIGEST}"

SECRET_VALUES = {
    "artifact_url": f"gs://{BUCKET_NAME}",
    "database_url": "postgresql+pg8000://mlflow:generated-database-password@/mlflow"
    f"?unix_sock=/cloudsql/{CONNECTION}/.s.PGSQL.5432",
    "tracking_username": "mlflow",
    "tracking_password": "generated-tracking-password",
    "kek_passphrase": "generated-kek-passphrase",
}

INVENTORY = {
    API: 8,
    ACCOUNT: 2,
    CUSTOM_ROLE: 1,
    ACCOUNT_MEMBER: 1,
    PROJECT_MEMBER: 1,
    INSTANCE: 1,
    DATABASE: 1,
    USER: 1,
    BUCKET: 1,
    BUCKET_MEMBER: 2,
    SECRET: 5,
    VERSION: 5,
    SECRET_MEMBER: 5,
    REPOSITORY: 1,
    IMAGE: 1,
    SERVICE: 1,
    INVOKER: 1,
    RANDOM_ID: 3,
    RANDOM_PASSWORD: 3,
}


def default() -> Program:
    return recorded()


# Each check takes a program as its argument, so that it can be run on broken ones too.


def check_inventory(program: Program) -> None:
    assert program.counts() == dict(sorted(INVENTORY.items()))


def check_grants(program: Program) -> None:
    """Check that exactly these permissions are granted, and none anywhere else."""
    grants = {
        (r.type, r.inputs["role"], r.inputs["member"], _target(r.inputs))
        for r in program.created
        if "role" in r.inputs
    }
    signer = f"projects/{PROJECT}/serviceAccounts/{SIGNER.removeprefix('serviceAccount:')}"
    role = f"projects/{PROJECT}/roles/mlflow_signer_ab12cd"
    assert grants == {
        (ACCOUNT_MEMBER, role, SERVER, signer),
        (PROJECT_MEMBER, "roles/cloudsql.client", SERVER, PROJECT),
        (BUCKET_MEMBER, "roles/storage.objectUser", SERVER, BUCKET_NAME),
        (BUCKET_MEMBER, "roles/storage.objectUser", SIGNER, BUCKET_NAME),
        *(
            (SECRET_MEMBER, "roles/secretmanager.secretAccessor", SERVER, f"{key}-id")
            for key in SECRET_VALUES
        ),
        (INVOKER, "roles/run.invoker", "allUsers", "mlflow"),
    }
    assert program.one(CUSTOM_ROLE).inputs["permissions"] == ["iam.serviceAccounts.signBlob"]
    assert not [r for r in program.created if "Binding" in r.kind or "Policy" in r.kind]
    assert program.one(PROJECT_MEMBER).inputs["condition"]["expression"] == (
        f'resource.name == "projects/{PROJECT}/instances/mlflow-ab12cd" && '
        'resource.service == "sqladmin.googleapis.com"'
    )


def _target(inputs: dict[str, Any]) -> Any:
    keys = ("serviceAccountId", "secretId", "bucket", "project", "name")
    return next(inputs[key] for key in keys if key in inputs)


def check_bucket(program: Program) -> None:
    bucket = program.one(BUCKET).inputs
    assert bucket["name"] == BUCKET_NAME
    assert bucket["location"] == REGION.upper()
    assert bucket["uniformBucketLevelAccess"] is True
    assert bucket["publicAccessPrevention"] == "enforced"
    assert bucket["versioning"] == {"enabled": True}
    assert bucket["softDeletePolicy"] == {"retentionDurationSeconds": 7 * 24 * 3600}
    assert bucket["forceDestroy"] is False
    assert bucket["lifecycleRules"] == [
        {
            "action": {"type": "Delete"},
            "condition": {"withState": "ARCHIVED", "daysSinceNoncurrentTime": 30},
        },
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}},
    ]


def check_no_secret_in_plain(program: Program) -> None:
    hidden = {
        *(f"generated-{name}-password" for name in ("database", "tracking")),
        "generated-kek-passphrase",
        REGISTRY_TOKEN,
    }
    exposed = [
        (str(resource), value)
        for resource in program.resources
        for value in plain_strings(resource.raw)
        if any(secret in value for secret in hidden)
    ]
    exposed += [
        (f"output {name}", value)
        for name, output in program.outputs.items()
        for value in plain_strings(output)
        if any(secret in value for secret in hidden)
    ]
    assert exposed == []
    versions = program.all(VERSION)
    assert versions
    assert all(isinstance(version.raw["secretData"], Secret) for version in versions)


def check_order(program: Program) -> None:
    """Check that the service comes after every resource that it needs to boot."""
    service = program.service
    missing = {
        str(resource)
        for resource in program.created
        if resource.type not in {SERVICE, INVOKER} and resource.urn not in program.before(service)
    }
    assert missing == set()


def check_apis_first(program: Program) -> None:
    apis = {api.urn for api in program.all(API)}
    early = [
        str(resource)
        for resource in program.created
        if resource.type != API and not apis <= program.before(resource)
    ]
    assert early == []


CHECKS = [
    check_inventory,
    check_grants,
    check_bucket,
    check_no_secret_in_plain,
    check_order,
    check_apis_first,
]


@pytest.mark.parametrize("check", CHECKS)
def test_default_stack(check: Callable[[Program], None]) -> None:
    check(default())


def _replace(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[..., Any]
) -> None:
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def _public_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(original: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "public_access_prevention": "inherited"})

    _replace(monkeypatch, gcp.storage, "Bucket", change)


def _no_grant_on_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcp.storage, "BucketIAMMember", lambda *args, **kwargs: None)


def _too_large_a_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(original: Any, *args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "role": "roles/storage.admin"})

    _replace(monkeypatch, gcp.storage, "BucketIAMMember", change)


def _password_in_the_env(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(original: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs["name"] == "ARTIFACTS":
            kwargs["value"] = "generated-tracking-password"
        return original(*args, **kwargs)

    _replace(monkeypatch, gcp.cloudrunv2, "ServiceTemplateContainerEnvArgs", change)


def _service_that_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(original: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["opts"].depends_on = None
        return original(*args, **kwargs)

    _replace(monkeypatch, gcp.cloudrunv2, "Service", change)


def _account_before_the_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(original: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["opts"].depends_on = None
        return original(*args, **kwargs)

    _replace(monkeypatch, gcp.serviceaccount, "Account", change)


DEFECTS = [
    (_public_bucket, check_bucket),
    (_no_grant_on_the_bucket, check_inventory),
    (_no_grant_on_the_bucket, check_grants),
    (_too_large_a_grant, check_grants),
    (_password_in_the_env, check_no_secret_in_plain),
    (_service_that_waits_for_nothing, check_order),
    (_account_before_the_apis, check_apis_first),
]


@pytest.mark.parametrize(("defect", "check"), DEFECTS)
def test_a_defect_fails_its_check(
    monkeypatch: pytest.MonkeyPatch,
    defect: Callable[[pytest.MonkeyPatch], None],
    check: Callable[[Program], None],
) -> None:
    defect(monkeypatch)
    program = run()
    with pytest.raises(AssertionError):
        check(program)


def test_pulumi_protects_the_service_and_what_holds_data() -> None:
    def protected(program: Program) -> set[str]:
        return {resource.name for resource in program.created if resource.protect}

    assert protected(default()) == {"artifacts", "instance", "kek_passphrase", "server"}
    assert protected(recorded({"deletionProtection": False})) == set()


def test_apis_stay_enabled() -> None:
    apis = default().all(API)
    assert {api.inputs["service"] for api in apis} == {
        f"{name}.googleapis.com"
        for name in (
            "artifactregistry",
            "cloudresourcemanager",
            "iam",
            "iamcredentials",
            "run",
            "secretmanager",
            "sqladmin",
            "storage",
        )
    }
    assert all(api.inputs["disableOnDestroy"] is False for api in apis)


def test_instance() -> None:
    instance = default().one(INSTANCE).inputs
    assert instance["name"] == "mlflow-ab12cd"
    assert instance["databaseVersion"] == "POSTGRES_17"
    assert instance["region"] == REGION
    assert instance["deletionProtection"] is True
    assert "rootPassword" not in instance
    assert instance["settings"] == {
        "tier": "db-f1-micro",
        "edition": "ENTERPRISE",
        "availabilityType": "ZONAL",
        "diskType": "PD_SSD",
        "diskSize": 10,
        "diskAutoresize": True,
        "diskAutoresizeLimit": 100,
        "deletionProtectionEnabled": True,
        "connectorEnforcement": "REQUIRED",
        # Without authorized networks, the public address accepts connectors only.
        "ipConfiguration": {"ipv4Enabled": True, "sslMode": "ENCRYPTED_ONLY"},
        "backupConfiguration": {
            "enabled": True,
            "pointInTimeRecoveryEnabled": True,
            "startTime": "03:00",
            "transactionLogRetentionDays": 7,
            "backupRetentionSettings": {"retainedBackups": 7, "retentionUnit": "COUNT"},
        },
    }


def test_database_and_user_are_deleted_with_their_instance() -> None:
    for type_ in (DATABASE, USER):
        resource = default().one(type_)
        assert resource.inputs["name"] == "mlflow"
        assert resource.inputs["instance"] == "mlflow-ab12cd"
        assert resource.inputs["deletionPolicy"] == "ABANDON"
    assert isinstance(default().one(USER).raw["password"], Secret)


def test_names_that_stay_taken_change_with_every_replacement() -> None:
    program = recorded({"bucketLocation": "eu", "gcp:region": "europe-west1"})
    keepers = {r.name: r.inputs.get("keepers") for r in program.all(RANDOM_ID)}
    assert keepers == {
        "instance-suffix": {"region": "europe-west1"},
        "bucket-suffix": {"location": "EU"},
        "signer-role-suffix": None,
    }


def test_passwords_need_no_quoting() -> None:
    lengths = {r.name: r.inputs["length"] for r in default().all(RANDOM_PASSWORD)}
    assert lengths == {"database-password": 32, "tracking-password": 32, "kek-passphrase": 48}
    assert all(r.inputs["special"] is False for r in default().all(RANDOM_PASSWORD))


def test_secrets() -> None:
    program = default()
    assert {secret.name: secret.inputs for secret in program.all(SECRET)} == {
        key: {"secretId": f"mlflow_{key}", "replication": {"auto": {}}} for key in SECRET_VALUES
    }
    # The names of secrets that `trackingPasswordSecret` and `viewerPasswordSecret` may not have.
    made = {secret.name for secret in recorded({"viewerUsername": "viewer"}).all(SECRET)}
    assert made == set(names.SECRETS)
    versions = {version.name: version.inputs for version in program.all(VERSION)}
    assert {key: inputs["secretData"] for key, inputs in versions.items()} == SECRET_VALUES
    assert {inputs["deletionPolicy"] for inputs in versions.values()} == {"ABANDON"}
    # A new version is created before the old one is deleted, so there always is one.
    assert not any(version.delete_before_replace for version in program.all(VERSION))


def test_service() -> None:
    program = default()
    service = program.service.inputs
    container = program.container
    assert service["name"] == "mlflow"
    assert service["location"] == REGION
    assert service["ingress"] == "INGRESS_TRAFFIC_ALL"
    assert service["deletionProtection"] is True
    assert service["invokerIamDisabled"] is False
    assert service["scaling"] == {"maxInstanceCount": 2}
    assert service["traffics"] == [
        {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}
    ]
    template = {key: value for key, value in service["template"].items() if key != "containers"}
    assert template == {
        "serviceAccount": SERVER.removeprefix("serviceAccount:"),
        "timeout": "3600s",
        "maxInstanceRequestConcurrency": 80,
        "scaling": {"minInstanceCount": 0, "maxInstanceCount": 2},
        "volumes": [{"name": "cloudsql", "cloudSqlInstance": {"instances": [CONNECTION]}}],
    }
    assert container["image"] == BUILT_IMAGE
    assert container["ports"] == {"name": "h2c", "containerPort": 8080}
    assert container["volumeMounts"] == [{"name": "cloudsql", "mountPath": "/cloudsql"}]
    assert container["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "cpuIdle": True,
        "startupCpuBoost": True,
    }
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["httpGet"] == liveness["httpGet"] == {"path": "/health"}
    assert startup["periodSeconds"] * startup["failureThreshold"] == 240
    assert startup["timeoutSeconds"] <= startup["periodSeconds"]
    assert liveness["timeoutSeconds"] <= liveness["periodSeconds"]


def test_env_is_exactly_what_the_server_expects() -> None:
    assert default().env == {
        "GCP_PROJECT": PROJECT,
        **{f"{key.upper()}_SECRET": f"mlflow_{key}/versions/1" for key in SECRET_VALUES},
        "ARTIFACTS": "proxied",
        "ARTIFACT_SIGNER": SIGNER.removeprefix("serviceAccount:"),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"mlflow-{NUMBER}.{REGION}.run.app,mlflow-*.a.run.app",
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "8",
        "MAX_CONCURRENCY": "80",
        "WEB_CONCURRENCY": "1",
        "MEMORY_MIB": "1024",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def test_outputs() -> None:
    outputs = dict(default().outputs)
    assert isinstance(outputs.pop("tracking_password"), Secret)
    links = outputs.pop("console_links")
    assert outputs == {
        "tracking_uri": "https://mlflow-abc123-uc.a.run.app",
        "tracking_username": "mlflow",
        "artifact_bucket": BUCKET_NAME,
        "service_account_email": SERVER.removeprefix("serviceAccount:"),
        "database_connection_name": CONNECTION,
        "image": BUILT_IMAGE,
        "version": f"mlflow-gcp {versions.project(SOURCE)}, MLflow {versions.mlflow(SOURCE)}",
        "monthly_cost_estimate": "9.50 USD idle, 19.23 with 100 runs a day, "
        "at us-central1's prices",
    }
    assert set(links) == {"service", "logs", "database", "artifacts", "secrets"}
    assert all(
        re.fullmatch(r"https://console\.cloud\.google\.com/\S+project=my-project", link)
        for link in links.values()
    )


def test_every_resource_has_one_component() -> None:
    program = default()
    components = {r.urn: r.kind for r in program.resources if not r.custom}
    assert sorted(components.values()) == [
        "Apis",
        "Artifacts",
        "Database",
        "Identity",
        "Image",
        "Secrets",
        "Service",
    ]
    assert {resource.parent for resource in program.created} == set(components)
    urns = [resource.urn for resource in program.resources]
    assert len(urns) == len(set(urns))


# Configurations other than the default.


def test_a_first_preview_works_while_all_outputs_are_unknown() -> None:
    program = recorded(preview=True)
    assert program.counts() == dict(sorted(INVENTORY.items()))
    assert program.env["DATABASE_URL_SECRET"] == UNKNOWN
    assert program.env["ARTIFACT_SIGNER"] == UNKNOWN
    assert program.env["MLFLOW_SERVER_ALLOWED_HOSTS"] == UNKNOWN
    assert program.container["image"] == UNKNOWN
    assert shown(program.outputs["tracking_uri"]) == UNKNOWN
    check_order(program)
    check_apis_first(program)


@pytest.mark.parametrize("preview", [False, True])
def test_a_ready_image_is_not_built(preview: bool) -> None:
    program = recorded({"image": READY_IMAGE}, preview=preview)
    counts = program.counts()
    assert program.container["image"] == READY_IMAGE
    assert not {REPOSITORY, IMAGE, COMMAND} & counts.keys()
    assert "artifactregistry.googleapis.com" not in {a.inputs["service"] for a in program.all(API)}
    assert TOKEN_CALL not in {token for token, *_ in program.calls}


def test_docker_builds_for_cloud_run_and_keeps_the_token_secret() -> None:
    image = default().one(IMAGE)
    assert image.inputs["imageName"] == f"{BUILT_IMAGE.partition('@')[0]}:latest"
    build = image.inputs["build"]
    assert build["platform"] == "linux/amd64"
    assert (build["context"], build["dockerfile"]) == ("image", "image/Dockerfile")
    assert (ROOT / build["dockerfile"]).is_file()
    assert TOKEN_CALL in {token for token, *_ in default().calls}
    registry = image.inputs["registry"]
    assert registry == {
        "server": f"{REGION}-docker.pkg.dev",
        "username": "oauth2accesstoken",
        "password": REGISTRY_TOKEN,
    }
    assert REGISTRY_TOKEN not in set(plain_strings(image.raw))


def test_old_images_are_deleted_but_never_the_newest() -> None:
    repository = default().one(REPOSITORY).inputs
    assert repository["format"] == "DOCKER"
    assert repository["location"] == REGION
    assert repository["cleanupPolicyDryRun"] is False
    assert repository["cleanupPolicies"] == [
        {"id": "keep-newest", "action": "KEEP", "mostRecentVersions": {"keepCount": 10}},
        {
            "id": "delete-old",
            "action": "DELETE",
            "condition": {"tagState": "ANY", "olderThan": "2592000s"},
        },
    ]


@pytest.mark.parametrize("preview", [False, True])
def test_cloud_build_needs_no_docker(preview: bool) -> None:
    program = recorded({"builder": "cloud-build"}, preview=preview)
    assert program.counts() == {
        **{kind: count for kind, count in INVENTORY.items() if kind != IMAGE},
        API: INVENTORY[API] + 1,
        COMMAND: 1,
        # The bucket of the source, and the account that builds, with its three permissions.
        RANDOM_ID: INVENTORY[RANDOM_ID] + 1,
        BUCKET: INVENTORY[BUCKET] + 1,
        ACCOUNT: INVENTORY[ACCOUNT] + 1,
        BUCKET_MEMBER: INVENTORY[BUCKET_MEMBER] + 1,
        PROJECT_MEMBER: INVENTORY[PROJECT_MEMBER] + 1,
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": 1,
    }
    assert "cloudbuild.googleapis.com" in {a.inputs["service"] for a in program.all(API)}
    built = READY_IMAGE.replace("my-images", "mlflow")
    assert program.container["image"] == (UNKNOWN if preview else built)
    check_order(program)
    # No registry token is requested: gcloud has its own login.
    assert TOKEN_CALL not in {token for token, *_ in program.calls}


def test_public_access_with_the_invoker_check_disabled() -> None:
    program = recorded({"publicThrough": "invokerIamDisabled"})
    assert program.service.inputs["invokerIamDisabled"] is True
    assert program.all(INVOKER) == []


def test_a_users_password_is_used_and_stays_secret() -> None:
    program = recorded({"trackingPassword": "correct horse battery"})
    assert "tracking-password" not in {r.name for r in program.all(RANDOM_PASSWORD)}
    version = program.one(VERSION, "tracking_password")
    assert version.inputs["secretData"] == "correct horse battery"
    everything = [program.outputs, *(resource.raw for resource in program.resources)]
    assert "correct horse battery" not in {s for each in everything for s in plain_strings(each)}
    assert shown(program.outputs["tracking_password"]) == "correct horse battery"


def test_a_viewer_has_separate_secrets() -> None:
    plain, viewed = default(), recorded({"viewerUsername": "viewer"})
    assert {"viewer_username", "viewer_password"}.isdisjoint(plain.outputs)
    assert viewed.outputs["viewer_username"] == "viewer"
    assert isinstance(viewed.outputs["viewer_password"], Secret)
    password = viewed.one(RANDOM_PASSWORD, "viewer-password")
    assert password.inputs["length"] == 32
    for part, value in (("username", "viewer"), ("password", "generated-viewer-password")):
        assert viewed.one(VERSION, f"viewer_{part}").inputs["secretData"] == value
        granted = viewed.one(SECRET_MEMBER, f"server-reads-viewer_{part}").inputs
        assert (granted["secretId"], granted["member"]) == (f"viewer_{part}-id", SERVER)
    added = {key: value for key, value in viewed.env.items() if key not in plain.env}
    assert added == {
        "VIEWER_USERNAME_SECRET": "mlflow_viewer_username/versions/1",
        "VIEWER_PASSWORD_SECRET": "mlflow_viewer_password/versions/1",
    }


def test_stacks_with_different_names_share_no_resource_name() -> None:
    def names(program: Program) -> Iterator[str]:
        for resource in program.created:
            if resource.type == API or "role" in resource.inputs:
                continue
            for key in ("name", "secretId", "accountId", "roleId", "repositoryId", "imageName"):
                # Database and user belong to the stack's own instance.
                if key in resource.inputs and resource.type not in {DATABASE, USER}:
                    yield f"{resource.type} {resource.inputs[key]}"

    first, second = set(names(default())), set(names(recorded({"name": "ml-two"})))
    assert len(first) == len(second) == 13
    assert not first & second
    assert "gcp:secretmanager/secret:Secret ml-two_database_url" in second


def test_settings_reach_their_resources() -> None:
    program = recorded(
        {
            "artifacts": "direct",
            "databaseVersion": 18,
            "databaseTier": "db-perf-optimized-N-2",
            "databaseEdition": "ENTERPRISE_PLUS",
            "databaseDiskGb": 20,
            "databaseDiskLimitGb": 50,
            "databaseAvailability": "REGIONAL",
            "databaseConnections": 12,
            "backupRetention": 3,
            "memory": "4Gi",
            "cpu": 2,
            "concurrency": 200,
            "minInstances": 1,
            "maxInstances": 5,
            "requestTimeout": 600,
            "customDomains": ["MLflow.example.com", "ml.example.org"],
            "deletionProtection": False,
            "bucketForceDestroy": True,
            "bucketLocation": "eu",
            "mlflowTelemetry": True,
            "accounts": True,
            "accountsDefaultPermission": "EDIT",
        }
    )
    instance = program.one(INSTANCE).inputs
    settings = instance["settings"]
    assert instance["databaseVersion"] == "POSTGRES_18"
    assert instance["deletionProtection"] is False
    assert settings["deletionProtectionEnabled"] is False
    assert settings["tier"] == "db-perf-optimized-N-2"
    assert settings["edition"] == "ENTERPRISE_PLUS"
    assert settings["availabilityType"] == "REGIONAL"
    assert (settings["diskSize"], settings["diskAutoresizeLimit"]) == (20, 50)
    backups = settings["backupConfiguration"]
    assert backups["backupRetentionSettings"]["retainedBackups"] == 3
    assert backups["transactionLogRetentionDays"] == 3
    service = program.service.inputs
    assert service["deletionProtection"] is False
    assert service["scaling"] == {"maxInstanceCount": 5}
    assert service["template"]["scaling"] == {"minInstanceCount": 1, "maxInstanceCount": 5}
    assert service["template"]["timeout"] == "600s"
    assert service["template"]["maxInstanceRequestConcurrency"] == 200
    assert program.container["resources"]["limits"] == {"cpu": "2", "memory": "4Gi"}
    assert program.env["ARTIFACTS"] == "direct"
    assert program.env["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] == "12"
    assert program.env["WEB_CONCURRENCY"] == "2"
    assert program.env["MAX_CONCURRENCY"] == "200"
    assert program.env["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert program.env["ACCOUNTS_DEFAULT_PERMISSION"] == "EDIT"
    assert "ACCOUNTS_DEFAULT_PERMISSION" not in default().env
    assert program.env["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")[2:] == [
        "mlflow.example.com",
        "ml.example.org",
    ]
    bucket = program.one(BUCKET).inputs
    assert bucket["location"] == "EU"
    assert bucket["forceDestroy"] is True


def test_nothing_is_declared_when_a_setting_is_invalid() -> None:
    program = Program()
    with pytest.raises(SettingsError, match="2 settings to correct"):
        run({"memory": "256Mi", "trackingUsername": "a:b"}, into=program)
    assert program.resources == []
    assert program.outputs == {}


def test_the_version_of_mlflow_in_a_ready_image_is_not_known() -> None:
    ready = recorded({"image": f"us-docker.pkg.dev/p/r/server@sha256:{'0' * 64}"})
    assert ready.outputs["version"] == f"mlflow-gcp {versions.project(SOURCE)}"
