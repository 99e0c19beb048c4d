"""A client that shows Google who it is, beside its username and password.

Unmodified MLflow with the sample client's plug-in, through a front that asks, to the real server.
"""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import CLIENT, ROOT, Stack
from tests.local.google_front import Front, front

PLUGIN = ROOT / "sample_client" / "google_login"
CHECK = str(ROOT / "sample_client" / "check_tracking.py")
SESSION = str(Path(__file__).with_name("login_session.py"))
WRONG_PASSWORD = {"MLFLOW_TRACKING_PASSWORD": "wrong"}
HEADERS = {"google-iam": "X-Serverless-Authorization", "google-iap": "Proxy-Authorization"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path on which the plug-in lies as pip would install it."""
    folder = tmp_path_factory.mktemp("installed")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())
    info = folder / "mlflow_google_login-1.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-google-login\n")
    groups = project["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(lines))
    for module in project["tool"]["setuptools"]["py-modules"]:
        folder.joinpath(f"{module}.py").symlink_to(PLUGIN / f"{module}.py")
    return str(folder)


def client(
    stack: Stack, google: Front, installed: str, script: str, **changed: str
) -> subprocess.CompletedProcess[str]:
    host = google.address.removeprefix("http://")
    environment = {
        "MLFLOW_TRACKING_URI": google.address,
        "PYTHONPATH": installed,
        "IAM_CREDENTIALS": google.address,
        "GCE_METADATA_HOST": host,
        "GCE_METADATA_IP": host,
    }
    return stack.client(script, **environment, **changed)


@pytest.mark.parametrize(
    ("login", "script", "lifetimes", "tokens"),
    [
        # The first is nearly over when it comes, so it is renewed at the second request.
        ("google-iam", CHECK, (299, 3600), 2),
        ("google-iap", SESSION, (3600,), 1),
    ],
)
def test_each_request_says_who_calls(
    stack: Stack, installed: str, login: str, script: str, lifetimes: tuple[int, ...], tokens: int
) -> None:
    with front(stack.port, HEADERS[login], lifetimes=lifetimes) as google:
        ran = client(stack, google, installed, script, MLFLOW_TRACKING_AUTH=login)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert google.let_in > 20
    assert google.refused == 0
    assert len(google.tokens) == tokens


@pytest.mark.parametrize(
    ("login", "script", "options", "changed", "said"),
    [
        ("", CHECK, {}, {}, "answers 403 where an MLflow server says its version (if the stack's"),
        ("google-iam", SESSION, {}, WRONG_PASSWORD, "were given, or they are not right"),
        ("google-iap", SESSION, {"may_sign": False}, {}, "serviceAccountTokenCreator on itself"),
    ],
)
def test_neither_login_is_enough_alone(
    stack: Stack,
    installed: str,
    login: str,
    script: str,
    options: dict[str, Any],
    changed: dict[str, str],
    said: str,
) -> None:
    with front(stack.port, HEADERS[login or "google-iam"], **options) as google:
        ran = client(stack, google, installed, script, MLFLOW_TRACKING_AUTH=login, **changed)
    assert ran.returncode != 0
    assert said in ran.stderr


LOGINS = """
from unittest.mock import patch
from google.oauth2.credentials import Credentials
import mlflow_google_login as login
with patch.object(Credentials, "refresh"), patch("google.auth.default") as default:
    default.return_value = Credentials("token"), None
    for ask in (login.cloud_run_token, login.identity_aware_proxy_token):
        try:
            ask("https://mlflow.example.com")
        except login.LoginProblem as problem:
            print(problem)
"""


def test_a_login_that_is_not_enough_says_what_is() -> None:
    """A person's: without an ID token, or where only a service account is let in."""
    ran = subprocess.run(
        [CLIENT, "-c", LOGINS],
        check=True, cwd=PLUGIN, capture_output=True, text=True,
    )  # fmt: skip
    no_id_token, no_account = ran.stdout.splitlines()
    assert no_id_token.startswith("The Google login here has no ID token. Run gcloud auth")
    assert "lets programs in as a service account, and the Google login" in no_account
