"""Metadata server, Secret Manager, signBlob: their responses, and the callers they accept."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_google.cloud import Cloud
from fake_google.errors import ApiNotEnabled, NotFound, Unsupported
from tests.local.standins import PROJECT, SERVER, SIGNER, STRANGER, StandIns, call, project


@pytest.fixture
def google(tmp_path: Path) -> Iterator[StandIns]:
    with project(tmp_path) as made:
        yield made


def _grant_secret(google: StandIns, secret_id: str) -> None:
    google.declare(
        "secretmanager/secretIamMember:SecretIamMember",
        secretId=f"projects/{PROJECT}/secrets/{secret_id}",
        role="roles/secretmanager.secretAccessor",
        member=f"serviceAccount:{SERVER}",
    )


def _access(google: StandIns, name: str, headers: dict[str, str]) -> tuple[int, str, str]:
    endpoint = google.cloud.project.secret_manager_endpoint
    url = f"{endpoint}/v1/projects/{PROJECT}/secrets/{name}:access"
    answer = call("GET", url, headers=headers)
    error = answer.json.get("error", {})
    return answer.status, error.get("status", ""), error.get("message", "")


def test_a_secret_is_read_by_the_projects_id_or_number(google: StandIns) -> None:
    google.secret("url", "one")
    _grant_secret(google, "url")
    for given in (PROJECT, "100000000001"):
        endpoint = google.cloud.project.secret_manager_endpoint
        url = f"{endpoint}/v1/projects/{given}/secrets/url/versions"
        answer = call("GET", f"{url}/latest:access", headers=google.bearer(SERVER)).json
        assert answer["name"].endswith("/secrets/url/versions/1")
        assert base64.b64decode(answer["payload"]["data"]) == b"one"
        assert answer["payload"]["dataCrc32c"].isdigit()


@pytest.mark.parametrize(
    ("name", "who", "status", "reason", "words"),
    [
        ("url/versions/1", None, 401, "UNAUTHENTICATED", "missing required authentication"),
        ("url/versions/1", "?", 401, "UNAUTHENTICATED", "invalid authentication credentials"),
        ("url/versions/1", STRANGER, 403, "PERMISSION_DENIED", "(or it may not exist)"),
        ("other/versions/1", SERVER, 403, "PERMISSION_DENIED", "'secretmanager.versions.access'"),
        ("nowhere/versions/1", SERVER, 403, "PERMISSION_DENIED", "secrets/nowhere/versions/1'"),
        ("url/versions/9", SERVER, 404, "NOT_FOUND", "versions/9] not found."),
        ("url/versions/2", SERVER, 400, "FAILED_PRECONDITION", "is in DISABLED state."),
    ],
)
def test_a_secret_is_refused_as_google_does(
    google: StandIns, name: str, who: str | None, status: int, reason: str, words: str
) -> None:
    google.secret("url", "one")
    google.secret("url", "two", enabled=False)
    google.secret("other", "x")
    _grant_secret(google, "url")
    headers = {"Authorization": "Bearer ya29.unknown"} if who == "?" else {}
    if who and who != "?":
        headers = google.bearer(who)
    got = _access(google, name, headers)
    assert got[:2] == (status, reason)
    assert words in got[2]


def test_a_changed_value_is_a_new_version_and_an_unchanged_one_is_not(google: StandIns) -> None:
    assert [google.secret("url", value) for value in ("one", "one", "two", "two")] == list("1122")
    _grant_secret(google, "url")
    assert _access(google, "url/versions/1", google.bearer(SERVER))[0] == 200, "to roll back to"


def test_only_the_owner_can_read_the_file_of_secrets(google: StandIns) -> None:
    google.secret("url", "one")
    google.cloud.project.keys.sign(SERVER, b"anything")
    for name in ("secrets.json", f"keys/{SERVER}.pem"):
        assert google.cloud.project.state.path(name).stat().st_mode & 0o777 == 0o600


def _metadata(google: StandIns, path: str, headers: dict[str, str]) -> tuple[int, str, str]:
    host = google.cloud.project.metadata_environment(SERVER)["GCE_METADATA_HOST"]
    answer = call("GET", f"http://{host}{path}", headers=headers)
    return answer.status, answer.headers["Metadata-Flavor"], answer.text


ACCOUNT = "/computeMetadata/v1/instance/service-accounts"
FLAVOR = {"Metadata-Flavor": "Google"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "computeMetadata/"),
        (f"{ACCOUNT}/default/email", SERVER),
        (f"{ACCOUNT}/{SERVER}/email", SERVER),
        (f"{ACCOUNT}/default/?recursive=true", '"aliases"'),
        (f"{ACCOUNT}/default/token", '"access_token"'),
        (f"{ACCOUNT}/default/scopes", "cloud-platform"),
        ("/computeMetadata/v1/project/project-id", PROJECT),
        ("/computeMetadata/v1/project/numeric-project-id", "100000000001"),
        ("/computeMetadata/v1/universe/universe-domain", "googleapis.com"),
    ],
)
def test_metadata(google: StandIns, path: str, text: str) -> None:
    status, flavor, got = _metadata(google, path, FLAVOR)
    assert (status, flavor) == (200, "Google")
    assert text in got


@pytest.mark.parametrize(
    "headers", [{}, {"Metadata-Flavor": "google"}, {**FLAVOR, "X-Forwarded-For": "203.0.113.9"}]
)
def test_metadata_is_refused_without_its_header(google: StandIns, headers: dict[str, str]) -> None:
    assert _metadata(google, f"{ACCOUNT}/default/token", headers)[0] == 403


def _ask(
    google: StandIns, call_: str, headers: dict[str, str], payload: str = "eA=="
) -> tuple[int, str]:
    url = f"{google.cloud.project.iam_credentials_endpoint}/v1/projects/-/serviceAccounts/{call_}"
    answer = call("POST", url, body=json.dumps({"payload": payload}).encode(), headers=headers)
    return answer.status, answer.json.get("error", {}).get("message", "")


NOBODY = f"nobody@{PROJECT}.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("who", "account", "status"),
    [
        (SERVER, SIGNER, 200),
        (SERVER, SERVER, 403),
        (SERVER, STRANGER, 403),
        (SERVER, NOBODY, 403),
        (SIGNER, SIGNER, 403),
        (STRANGER, SIGNER, 403),
        (STRANGER, STRANGER, 403),
        (None, SIGNER, 401),
    ],
)
def test_only_the_server_signs_and_only_as_the_signer(
    google: StandIns, who: str | None, account: str, status: int
) -> None:
    headers = google.bearer(who) if who else {}
    assert _ask(google, f"{account}:signBlob", headers)[0] == status


def test_a_payload_must_be_base64(google: StandIns) -> None:
    assert _ask(google, f"{SIGNER}:signBlob", google.bearer(SERVER), "not base64!")[0] == 400


@pytest.mark.parametrize("account", [SERVER, SIGNER])
@pytest.mark.parametrize(
    ("method", "permission"),
    [
        ("generateAccessToken", "iam.serviceAccounts.getAccessToken"),
        ("generateIdToken", "iam.serviceAccounts.getOpenIdToken"),
        ("signJwt", "iam.serviceAccounts.signJwt"),
    ],
)
def test_a_stolen_token_cannot_create_another_one(
    google: StandIns, account: str, method: str, permission: str
) -> None:
    for who in (SERVER, SIGNER):
        status, message = _ask(google, f"{account}:{method}", google.bearer(who))
        assert (status, permission in message) == (403, True)


def test_token_creation_is_reported_as_not_imitated(google: StandIns) -> None:
    google.declare(
        "serviceaccount/iAMMember:IAMMember",
        serviceAccountId=f"projects/{PROJECT}/serviceAccounts/{STRANGER}",
        role="roles/iam.serviceAccountTokenCreator",
        member=f"serviceAccount:{SERVER}",
    )
    assert _ask(google, f"{STRANGER}:signBlob", google.bearer(SERVER))[0] == 200
    status, message = _ask(google, f"{STRANGER}:generateAccessToken", google.bearer(SERVER))
    assert (status, "not imitated" in message) == (404, True)


def test_a_disabled_api_refuses(google: StandIns) -> None:
    google.cloud.project.enabled.clear()
    with pytest.raises(ApiNotEnabled, match="secretmanager"):
        google.secret("url", "one")


def test_a_version_of_a_missing_secret_is_refused(google: StandIns) -> None:
    with pytest.raises(NotFound):
        google.declare(
            "secretmanager/secretVersion:SecretVersion",
            secret="projects/p/secrets/x",
            secretData="x",
        )


def test_a_grant_with_an_unknown_condition_is_refused(google: StandIns) -> None:
    with pytest.raises(Unsupported, match="not understood"):
        google.declare(
            "projects/iAMMember:IAMMember",
            role="roles/cloudsql.client",
            member=f"serviceAccount:{SERVER}",
            condition={"title": "t", "expression": "request.time < now()"},
        )


def test_an_unknown_role_is_reported(google: StandIns) -> None:
    google.declare(
        "projects/iAMMember:IAMMember", role="roles/editor", member="user:me@example.com"
    )
    assert "roles/editor is not known here and grants user:me@example.com nothing" in google.said


def test_random_values_stay_until_their_inputs_change(tmp_path: Path) -> None:
    def values(keeper: str) -> tuple[str, str]:
        with project(tmp_path) as made:
            cloud: Cloud = made.cloud
            keepers = {"byteLength": 3, "keepers": {"region": keeper}}
            _, identifier = cloud.ensure("random:index/randomId:RandomId", "suffix", keepers)
            wanted = {"length": 32, "special": False, "minNumeric": 4}
            kind = "random:index/randomPassword:RandomPassword"
            _, password = cloud.ensure(kind, "password", wanted)
            assert password["result"].isalnum()
            assert sum(map(str.isdigit, password["result"])) >= 4
            return identifier["hex"], password["result"]

    first = values("us-central1")
    assert len(first[0]) == 6
    assert len(first[1]) == 32
    assert values("us-central1") == first
    moved = values("europe-west1")
    assert moved[0] != first[0]
    assert moved[1] == first[1]
