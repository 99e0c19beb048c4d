"""The container's environment variables and their checks."""

import pytest
from tracking_server.boot import settings
from tracking_server.errors import BootError

COMPLETE = {
    "GCP_PROJECT": "my-project",
    "PORT": "8080",
    "ARTIFACTS": "proxied",
    "ARTIFACT_SIGNER": "mlflow-signer@my-project.iam.gserviceaccount.com",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow-1.us-central1.run.app, mlflow-*.a.run.app",
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "8",
    "ARTIFACT_URL_SECRET": "mlflow_artifact_url/versions/1",
    "DATABASE_URL_SECRET": "mlflow_database_url/versions/12",
    "TRACKING_USERNAME_SECRET": "mlflow_tracking_username/versions/1",
    "TRACKING_PASSWORD_SECRET": "mlflow_tracking_password/versions/3",
    "KEK_PASSPHRASE_SECRET": "mlflow_kek_passphrase/versions/1",
}


def test_a_complete_environment() -> None:
    found = settings.load(COMPLETE)
    assert found.allowed_hosts == ("mlflow-1.us-central1.run.app", "mlflow-*.a.run.app")
    assert found.secrets.tracking_password == "mlflow_tracking_password/versions/3"
    assert found.artifact_signer == "mlflow-signer@my-project.iam.gserviceaccount.com"
    assert (found.cloudsql_root, found.pool_size, found.artifacts) == ("/cloudsql", 8, "proxied")


@pytest.mark.parametrize(
    "key", [key for key in COMPLETE if key not in {"PORT", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"}]
)
def test_each_missing_variable_is_named(key: str) -> None:
    for value in ({}, {key: ""}):
        env = {name: text for name, text in COMPLETE.items() if name != key} | value
        with pytest.raises(BootError, match=f"{key} is not set"):
            settings.load(env)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "٣"),
        ("ARTIFACTS", "Proxied"),
        ("ARTIFACTS", "s3"),
        ("ARTIFACT_SIGNER", "mlflow-signer"),
        ("ARTIFACT_SIGNER", "serviceAccount:mlflow-signer@my-project.iam.gserviceaccount.com"),
        ("ARTIFACT_SIGNER", "mlflow-signer@example.com"),
        ("ARTIFACT_SIGNER", "mlflow-signer@x/y?z.iam.gserviceaccount.com"),
        ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "3"),
        ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "many"),
        ("WEB_CONCURRENCY", "0"),
        ("MEMORY_MIB", "511"),
        ("MEMORY_MIB", "1Gi"),
        ("WEB_CONCURRENCY", "9"),
        ("MAX_CONCURRENCY", "0"),
        ("MAX_CONCURRENCY", "1001"),
        ("TRUSTED_PROXIES", "2"),
        ("TRUSTED_PROXIES", "yes"),
        ("ACCOUNTS_DEFAULT_PERMISSION", "read"),
        ("IAP_AUDIENCE", "/projects/my-project/locations/us-central1/services/mlflow"),
        ("IAP_AUDIENCE", "*"),
        ("ACCOUNTS_ADMINISTRATORS", "ada@example.com;grace@example.com"),
        ("ACCOUNTS_DOMAINS", "*"),
        ("TRACKING_PREVIOUS_PASSWORD_UNTIL", "tomorrow"),
        ("VIEWER_PREVIOUS_PASSWORD_UNTIL", "2026-12-01T12:00:00"),
        ("TRACKING_PASSWORD_SECRET", "mlflow_tracking_password"),
        ("TRACKING_PASSWORD_SECRET", "mlflow_tracking_password/versions/latest"),
        ("TRACKING_PASSWORD_SECRET", "mlflow_tracking_password/versions/0"),
        ("TRACKING_PASSWORD_SECRET", "projects/p/secrets/s/versions/1"),
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "*"),
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "*.*"),
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "https://ml.example.com"),
        ("MLFLOW_SERVER_ALLOWED_HOSTS", "ml.example.com:443"),
    ],
)
def test_each_malformed_variable_is_named(key: str, value: str) -> None:
    with pytest.raises(BootError, match=f"{key} (is|has) "):
        settings.load(COMPLETE | {key: value})


def test_a_secret_value_given_by_mistake_is_not_shown() -> None:
    with pytest.raises(BootError) as refused:
        settings.load(COMPLETE | {"TRACKING_PASSWORD_SECRET": "canary"})
    assert "canary" not in str(refused.value)


def test_a_viewer_needs_both_a_name_and_a_password() -> None:
    name = {"VIEWER_USERNAME_SECRET": "mlflow_viewer_username/versions/1"}
    password = {"VIEWER_PASSWORD_SECRET": "mlflow_viewer_password/versions/2"}
    assert settings.load(COMPLETE).secrets.viewer_username is None
    found = settings.load(COMPLETE | name | password).secrets
    assert found.viewer_username == "mlflow_viewer_username/versions/1"
    assert found.viewer_password == "mlflow_viewer_password/versions/2"
    with pytest.raises(BootError, match="VIEWER_PASSWORD_SECRET is not set"):
        settings.load(COMPLETE | name)
    with pytest.raises(BootError, match="VIEWER_USERNAME_SECRET is not set"):
        settings.load(COMPLETE | password)


def test_all_errors_are_reported_in_one_line() -> None:
    with pytest.raises(BootError) as refused:
        settings.load({"PORT": "x"})
    text = str(refused.value)
    assert "\n" not in text
    assert all(key in text for key in COMPLETE if key != "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE")


def test_no_proxy_is_trusted_by_default() -> None:
    assert settings.load(COMPLETE).trusted_proxies == 0
    assert settings.load(COMPLETE | {"TRUSTED_PROXIES": "1"}).trusted_proxies == 1


def test_each_process_has_a_connection() -> None:
    assert settings.load(COMPLETE | {"WEB_CONCURRENCY": "2"}).processes == 2
    assert settings.load(COMPLETE | {"MEMORY_MIB": "1024"}).memory == 1024**3
    assert settings.load(COMPLETE | {"MAX_CONCURRENCY": "9"}).max_concurrency == 9
    few = {"WEB_CONCURRENCY": "4", "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "15"}
    with pytest.raises(BootError, match="POOL_SIZE is 15, wanted at least 16"):
        settings.load(COMPLETE | few)


def test_the_time_of_a_previous_password() -> None:
    assert settings.load(COMPLETE).previous_until == {}
    found = settings.load(COMPLETE | {"TRACKING_PREVIOUS_PASSWORD_UNTIL": "1970-01-01T00:01:00Z"})
    assert found.previous_until == {"tracking": 60.0}
