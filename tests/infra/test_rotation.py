"""Secrets that are generated again when a version is raised, and those kept for a rollback."""

from __future__ import annotations

import pytest

from infra.settings.refusals import SettingsError
from tests.infra.declared import Declared, Program, recorded, run

RANDOM_PASSWORD = "random:index/randomPassword:RandomPassword"
USER = "gcp:sql/user:User"
VERSION = "gcp:secretmanager/secretVersion:SecretVersion"


def generated(program: Program) -> dict[str, str | None]:
    """Returns the version of each generated secret: Pulumi generates another one if it changes."""
    found = {each.name: each.inputs.get("keepers") for each in program.all(RANDOM_PASSWORD)}
    return {name: keepers and keepers["version"] for name, keepers in found.items()}


def users(program: Program) -> dict[str, str]:
    return {user.inputs["name"]: user.inputs["password"] for user in program.all(USER)}


def connects_as(program: Program) -> str:
    secret: Declared = program.one(VERSION, "database_url")
    return secret.inputs["secretData"].removeprefix("postgresql+pg8000://").partition("@")[0]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("trackingPasswordVersion", "tracking-password"),
        ("encryptionKeyVersion", "kek-passphrase"),
    ],
)
def test_a_raised_version_generates_another_secret(setting: str, name: str) -> None:
    first, second = generated(recorded()), generated(recorded({setting: 2}))
    assert first[name] is None
    assert second == {**first, name: "2"}


def test_database_users_alternate_and_the_previous_one_keeps_its_password() -> None:
    names = {
        1: ("mlflow", "database-password"),
        0: ("mlflow-alternate", "alternate-database-password"),
    }
    for version in range(1, 5):
        program = recorded({"databasePasswordVersion": version})
        user, password = names[version % 2]
        assert connects_as(program) == f"{user}:generated-{password}"
        passwords = {
            name: keeper for name, keeper in generated(program).items() if "database" in name
        }
        expected = {password: str(version) if version > 1 else None}
        if version > 1:
            expected[names[(version - 1) % 2][1]] = str(version - 1) if version > 2 else None
        assert passwords == expected
        assert len(users(program)) == len(expected)
        # Both users exist before a server that needs one of them.
        assert {user.urn for user in program.all(USER)} <= program.before(program.service)


def test_a_version_for_a_users_own_password_is_refused() -> None:
    with pytest.raises(SettingsError, match="trackingPasswordVersion") as refused:
        run({"trackingPassword": "a phrase that nobody guesses", "trackingPasswordVersion": 2})
    assert "pulumi config rm trackingPasswordVersion" in str(refused.value)


PREVIOUS = "TRACKING_PREVIOUS_PASSWORD_UNTIL", "VIEWER_PREVIOUS_PASSWORD_UNTIL"


@pytest.mark.parametrize(
    ("settings", "until"),
    [
        ({}, []),
        ({"previousTrackingPassword": "1 until 2026-12-01T12:00:00Z"}, []),
        (
            {
                "trackingPasswordVersion": 2,
                "previousTrackingPassword": "1 until 2026-12-01T12:00:00Z",
            },
            [(PREVIOUS[0], "2026-12-01T12:00:00Z")],
        ),
        # The password in between may have leaked.
        (
            {
                "trackingPasswordVersion": 3,
                "previousTrackingPassword": "1 until 2026-12-01T12:00:00Z",
            },
            [],
        ),
        (
            {
                "viewerUsername": "viewer",
                "viewerPasswordVersion": 5,
                "previousViewerPassword": "4 until 2026-12-02T12:00:00Z",
            },
            [(PREVIOUS[1], "2026-12-02T12:00:00Z")],
        ),
    ],
)
def test_only_the_version_before_is_accepted_too(
    settings: dict[str, object], until: list[tuple[str, str]]
) -> None:
    env = recorded(settings).env
    assert [(name, env[name]) for name in PREVIOUS if name in env] == until
