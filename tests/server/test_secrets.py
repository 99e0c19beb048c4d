"""Errors of secrets at boot: each is one line, which never contains a value."""

import dataclasses
import time

import pytest
from tracking_server.boot import secrets
from tracking_server.boot.settings import SecretVersions, ServerSettings
from tracking_server.errors import BootError
from tracking_server.gate.credentials import Credentials, PreviousCredentials

from tests.server.google import Google

GOOD = {
    "artifact_url": "gs://my-bucket",
    "database_url": "postgresql+pg8000://mlflow:c%40nary@/mlflow"
    "?unix_sock=/cloudsql/p:r:i/.s.PGSQL.5432",
    "tracking_username": "mlflow",
    "tracking_password": "canary ü%",
    "kek_passphrase": "canary",
}


def stored(google: Google, **changed: str | None) -> ServerSettings:
    """Returns settings whose secrets hold `GOOD` with some changes; None leaves a secret out."""
    versions = {name: google.store(value) for name, value in (GOOD | changed).items() if value}
    missing = {name: "absent/versions/1" for name in GOOD if name not in versions}
    return google.settings(SecretVersions(**versions, **missing))


def fetch(settings: ServerSettings, *, deadline: float = 5.0) -> secrets.SecretValues:
    return secrets.fetch(settings, deadline=deadline)


def refusal(settings: ServerSettings, *, deadline: float = 5.0) -> str:
    with pytest.raises(BootError) as refused:
        fetch(settings, deadline=deadline)
    text = str(refused.value)
    assert "\n" not in text
    assert "canary" not in text
    assert "c%40nary" not in text
    return text


def test_all_secrets_are_read(google: Google) -> None:
    found = fetch(stored(google))
    assert found.artifact_url == "gs://my-bucket"
    assert found.database.password == "c@nary"
    assert found.user == Credentials("mlflow", "canary ü%")


def test_no_value_is_in_the_representation(google: Google) -> None:
    found = fetch(stored(google))
    assert "canary" not in repr(found) + str(found)
    assert "c@nary" not in repr(found) + repr(found.database)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_secret_is_named(google: Google, name: str) -> None:
    settings = stored(google, **{name: None})
    google.grant("absent")
    assert "projects/my-project/secrets/absent/versions/1 does not exist" in refusal(settings)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_version_is_named(google: Google, name: str) -> None:
    settings = stored(google)
    secret = getattr(settings.secrets, name).split("/")[0]
    versions = dataclasses.replace(settings.secrets, **{name: f"{secret}/versions/99"})
    text = refusal(dataclasses.replace(settings, secrets=versions))
    assert f"projects/my-project/secrets/{secret}/versions/99 does not exist" in text


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_permission_is_named_with_the_role_and_the_account(
    google: Google, name: str
) -> None:
    settings = stored(google)
    secret = getattr(settings.secrets, name).split("/")[0]
    google.revoke(secret)
    text = refusal(settings)
    assert f"secret projects/my-project/secrets/{secret}/versions/1 may not be read" in text
    assert f"{google.account} lacks roles/secretmanager.secretAccessor" in text


def test_the_boot_waits_for_a_grant_to_take_effect(google: Google) -> None:
    settings = dataclasses.replace(stored(google), boot_patience=5)
    google.answer_next("403", 3)
    assert fetch(settings).user.username == "mlflow"


def test_all_errors_are_reported_at_once(google: Google) -> None:
    settings = stored(google, artifact_url="s3://x", tracking_username="a:b", kek_passphrase=None)
    google.grant("absent")
    text = refusal(settings)
    assert all(part in text for part in ("gs://my-bucket", "without colon", "does not exist"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("artifact_url", " ", "is empty"),
        ("artifact_url", "my-bucket", "gs://my-bucket"),
        ("artifact_url", "s3://my-bucket", "gs://my-bucket"),
        ("artifact_url", "gs://", "gs://my-bucket"),
        ("artifact_url", "gs://my-bucket\n", "gs://my-bucket"),
        ("database_url", "canary", "postgresql+pg8000://"),
        ("database_url", "sqlite:///canary.db", "postgresql+pg8000://"),
        ("database_url", "postgresql://u:canary@/db?unix_sock=/x", "postgresql+pg8000://"),
        ("database_url", "postgresql+pg8000://u@/db?unix_sock=/canary", "postgresql+pg8000://"),
        ("database_url", "postgresql+pg8000://u:canary@/?unix_sock=/x", "postgresql+pg8000://"),
        ("database_url", "postgresql+pg8000://u:canary@/db", "postgresql+pg8000://"),
        ("database_url", "postgresql+pg8000://u:canary@h:port/db", "postgresql+pg8000://"),
        ("tracking_username", "mlf:canary", "without colon"),
        ("tracking_username", "canary\n", "without colon or control character"),
        ("tracking_password", "canary\n", "without control character"),
        ("tracking_password", "canary\0", "without control character"),
        ("tracking_password", "\t", "is empty"),
        ("kek_passphrase", " ", "is empty"),
    ],
)
def test_the_value_of_a_secret_is_checked(google: Google, name: str, value: str, said: str) -> None:
    assert said in refusal(stored(google, **{name: value}))


def test_a_disabled_version_is_named(google: Google) -> None:
    settings = stored(google)
    versions = dataclasses.replace(
        settings.secrets, tracking_password=google.store("canary", enabled=False)
    )
    text = refusal(dataclasses.replace(settings, secrets=versions))
    assert "is disabled or destroyed" in text


VIEWER = {"viewer_username": "viewer", "viewer_password": "canary 2"}


def test_the_viewers_secrets_are_read_if_there_is_a_viewer(google: Google) -> None:
    assert fetch(stored(google)).viewer is None
    assert fetch(stored(google, **VIEWER)).viewer == Credentials("viewer", "canary 2")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"viewer_username": "mlflow"}, "another name than the tracking_username"),
        ({"viewer_username": "view:canary"}, "without colon"),
        ({"viewer_password": "canary\n"}, "without control character"),
        ({"viewer_password": " "}, "is empty"),
    ],
)
def test_the_values_of_the_viewers_secrets_are_checked(
    google: Google, changed: dict[str, str], said: str
) -> None:
    assert said in refusal(stored(google, **VIEWER | changed))


@pytest.mark.parametrize("failure", ["429", "500", "503", "cut"])
def test_temporary_failures_are_retried(google: Google, failure: str) -> None:
    settings = stored(google)
    google.answer_next(failure, 4)
    assert fetch(settings).user.username == "mlflow"


@pytest.mark.parametrize("failure", ["503", "cut"])
def test_retries_end_at_the_deadline(google: Google, failure: str) -> None:
    settings = stored(google)
    google.answer_next(failure, 1000)
    assert "could not be read in time" in refusal(settings, deadline=0.5)


def test_an_unexpected_response_is_reported(google: Google) -> None:
    settings = stored(google)
    google.answer_next("409", 1000)
    assert "could not be read: Secret Manager responds with " in refusal(settings)


def test_a_rejected_token_is_reported(google: Google) -> None:
    settings = stored(google)
    google.answer_next("401", 1000)
    text = refusal(settings)
    assert f"does not accept the token of {google.account}. Is the account disabled" in text


def test_unreadable_passphrases_are_reported(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "RETRY_SECONDS", 1.0)
    settings = stored(google)
    google.answer_next("503", 1000)
    with pytest.raises(BootError, match="Secret Manager responds with status 503"):
        secrets.passphrases(settings)


def test_an_account_without_a_token_is_reported(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = stored(google)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    text = refusal(settings, deadline=0.5)
    assert "No token for the service account in time: ConnectionRefusedError" in text
    assert "Is the account disabled or deleted?" in text


def rotating(google: Google, *, until: float, user: str = "tracking") -> ServerSettings:
    """Returns settings of a user whose password has a second version."""
    settings = stored(google, **VIEWER)
    first = getattr(settings.secrets, f"{user}_password")
    second = google.store_further(first, "canary 3")
    versions = dataclasses.replace(settings.secrets, **{f"{user}_password": second})
    return dataclasses.replace(settings, secrets=versions, previous_until={user: until})


def test_the_previous_password_is_read_during_a_rotation(google: Google) -> None:
    until = time.time() + 3600
    found = fetch(rotating(google, until=until))
    assert found.user == Credentials("mlflow", "canary 3")
    assert found.previous_user == PreviousCredentials(Credentials("mlflow", "canary ü%"), until)
    assert found.previous_viewer is None
    found = fetch(rotating(google, until=until, user="viewer"))
    assert found.previous_viewer == PreviousCredentials(Credentials("viewer", "canary 2"), until)
    assert found.previous_user is None


def test_a_previous_password_is_not_read_after_its_time(google: Google) -> None:
    assert fetch(rotating(google, until=time.time() - 1)).previous_user is None


def test_the_first_password_has_no_previous_one(google: Google) -> None:
    settings = dataclasses.replace(stored(google), previous_until={"tracking": time.time() + 60})
    assert fetch(settings).previous_user is None


def test_the_boot_goes_on_without_a_previous_password(
    google: Google, caplog: pytest.LogCaptureFixture
) -> None:
    settings = rotating(google, until=time.time() + 3600)
    previous = settings.secrets.previous("tracking_password")
    assert previous
    google.destroy(previous)
    found = fetch(settings)
    assert (found.user.password, found.previous_user) == ("canary 3", None)
    assert "the previous tracking password isn't accepted" in caplog.text
    assert "canary" not in caplog.text
