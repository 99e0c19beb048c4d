"""Custom roles and accounts: Google's refusals, and what outlives a deletion."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fake_google.errors import NotFound, Refused
from fake_google.iam.policy import service_account
from tests.local.standins import PROJECT, SERVER, SIGNER, StandIns, project

ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
ACCOUNT = "gcp:serviceaccount/account:Account"
SIGN_BLOB = "iam.serviceAccounts.signBlob"


@pytest.fixture
def google(tmp_path: Path) -> Iterator[StandIns]:
    with project(tmp_path) as made:
        yield made


def signs(google: StandIns) -> bool:
    return google.cloud.project.policy.allowed(SERVER, SIGN_BLOB, service_account(PROJECT, SIGNER))


def create(google: StandIns, role_id: str = "mlflow_signer") -> None:
    inputs = {"roleId": role_id, "title": "Signer", "permissions": [SIGN_BLOB]}
    google.cloud.create(ROLE, "signer", inputs)


@pytest.mark.parametrize("role_id", ["abc", "a" * 64, "ml_two_signer_ab12cd", "Ml.2"])
def test_a_role_id_that_google_accepts(google: StandIns, role_id: str) -> None:
    assert google.role(role_id, SIGN_BLOB) == f"projects/{PROJECT}/roles/{role_id}"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"roleId": "ab"}, "3 to 64"),
        ({"roleId": "a" * 65}, "3 to 64"),
        ({"roleId": "ml-two_signer"}, "3 to 64"),
        ({"roleId": "signerü"}, "3 to 64"),
        ({"title": "ü" * 51}, "100 bytes"),
        ({"permissions": ["iam.serviceAccounts.signblob"]}, "signblob is not valid"),
        ({"permissions": []}, "at least 1"),
    ],
)
def test_a_role_that_google_refuses(google: StandIns, changed: dict[str, Any], words: str) -> None:
    inputs = {"roleId": "another", "title": "Another", "permissions": [SIGN_BLOB], **changed}
    with pytest.raises(Refused, match=words):
        google.cloud.create(ROLE, "another", inputs)


def test_a_role_exists_once(google: StandIns) -> None:
    with pytest.raises(Refused, match="Error 409"):
        create(google)


def test_a_missing_role_cannot_be_granted(google: StandIns) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        google.declare(
            "projects/iAMMember:IAMMember",
            role=f"projects/{PROJECT}/roles/nowhere",
            member=f"serviceAccount:{SERVER}",
        )


def test_a_changed_role_grants_its_new_permissions(google: StandIns) -> None:
    assert signs(google)
    google.role("mlflow_signer", "storage.objects.get")
    assert not signs(google)


@pytest.mark.parametrize(
    ("days", "back"), [(0, True), (6.9, True), (7.1, False), (36.9, False), (37.1, True)]
)
def test_a_deleted_role_can_be_recreated_within_a_week_or_after_37_days(
    google: StandIns, days: float, back: bool
) -> None:
    name = f"projects/{PROJECT}/roles/mlflow_signer"
    google.cloud.delete(ROLE, name, {})
    assert not signs(google)
    google.cloud.project.deleted_roles[name] = datetime.now(UTC) - timedelta(days=days)
    if back:
        create(google)
    else:
        with pytest.raises(Refused, match="in a deleted state"):
            create(google)
    assert signs(google) is back


def test_an_account_does_not_inherit_a_deleted_accounts_grants(google: StandIns) -> None:
    signature = google.cloud.project.keys.sign(SIGNER, b"signed before")
    name = f"projects/{PROJECT}/serviceAccounts/{SIGNER}"
    google.cloud.delete(ACCOUNT, name, {})
    assert google.account(SIGNER) == name
    assert not signs(google)
    assert not google.cloud.project.keys.verify(SIGNER, b"signed before", signature)
    google.may_sign(SERVER, as_=SIGNER)
    assert signs(google)
