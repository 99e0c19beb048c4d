"""A client that logs in to Google in addition to its username and password.

Unmodified MLflow with the sample client's plug-in, through a front that checks, to the real server.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.local.conftest import CLIENT, ROOT, Stack
from tests.local.google_front import Front, front
from tests.local.recorder import Recorder, recorder

PLUGIN = ROOT / "sample_client" / "google_login"
CHECK = str(ROOT / "sample_client" / "check_tracking.py")
SESSION = str(Path(__file__).with_name("login_session.py"))
WRONG_PASSWORD = {"MLFLOW_TRACKING_PASSWORD": "wrong"}
HEADERS = {"google-iam": "X-Serverless-Authorization", "google-iap": "Proxy-Authorization"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search path that has the plug-in as pip would install it."""
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


def test_the_package_passes_its_own_tests() -> None:
    done = subprocess.run(
        [CLIENT, "-m", "unittest"], check=False, cwd=PLUGIN, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 0 tests" not in done.stderr


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
        # The first token expires soon after it is issued, so it is renewed at the second request.
        ("google-iam", CHECK, (299, 3600), 2),
        ("google-iap", SESSION, (3600,), 1),
    ],
)
def test_each_request_has_a_google_token(
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
        ("google-iam", SESSION, {}, WRONG_PASSWORD, "were given, or they are wrong"),
        ("google-iap", SESSION, {"may_sign": False}, {}, "serviceAccountTokenCreator on itself"),
    ],
)
def test_both_logins_are_required(
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


def test_an_insufficient_google_login_is_explained() -> None:
    """A person's login: without an ID token, or where only a service account is accepted."""
    ran = subprocess.run(
        [CLIENT, "-c", LOGINS],
        check=True, cwd=PLUGIN, capture_output=True, text=True,
    )  # fmt: skip
    no_id_token, no_account = ran.stdout.splitlines()
    assert no_id_token.startswith("The Google login here has no ID token. Run gcloud auth")
    assert "lets programs in as a service account, and the Google login" in no_account


REDIRECTS = str(Path(__file__).with_name("redirect_session.py"))
# The server behind each address. All other addresses are this computer's.
MLFLOW, OTHER = 0, 1
NAMES = {
    "https://mlflow.example.com/": MLFLOW,
    "https://mlflow.example.com:443/": MLFLOW,
    "https://user:secret@mlflow.example.com/": MLFLOW,
    "http://mlflow.example.com/": OTHER,
    "https://mlflow.example.com:8443/": OTHER,
    "https://other.example.com/": OTHER,
    "https://mlflow.example.com@other.example.com/": OTHER,
}
SERVER_1, SERVER_2 = "http://127.0.0.1:PORT0", "http://127.0.0.1:PORT1"
SAME_PORT = "http://localhost:PORT0"
HOME = "https://mlflow.example.com"
BOTH, NEITHER = {"token", "password"}, set[str]()


def via(*hops: str) -> str:
    """Returns an address that redirects to the next one, and so on."""
    *before, address = hops
    for hop in reversed(before):
        status = 302 if len(before) > 1 else 307
        address = f"{hop}?status={status}&to={quote(address, safe='')}"
    return address


CASES = [
    # the requested address; the credentials that each request to it carries
    (via(f"{HOME}/a"), [BOTH]),
    (via(f"{HOME}:443/a"), [BOTH]),
    (via("https://user:secret@mlflow.example.com/a"), [BOTH]),
    (via(f"{SERVER_1}/a"), [BOTH]),
    (via(f"{SAME_PORT}/a"), [BOTH]),
    (via(f"{HOME}/a", "/b"), [BOTH, BOTH]),
    (via(f"{HOME}/a", f"{HOME}:443/b"), [BOTH, BOTH]),
    (via(f"{SERVER_1}/a", f"{SERVER_1}/b", "/c"), [BOTH, BOTH, BOTH]),
    # to another host, port or scheme
    (via(f"{SERVER_1}/a", f"{SERVER_2}/b"), [BOTH, NEITHER]),
    (via(f"{SERVER_1}/a", f"{SAME_PORT}/b"), [BOTH, NEITHER]),
    (via(f"{HOME}/a", "https://other.example.com/b"), [BOTH, NEITHER]),
    (via(f"{HOME}/a", "//other.example.com/b"), [BOTH, NEITHER]),
    (via(f"{HOME}/a", "https://mlflow.example.com@other.example.com/b"), [BOTH, NEITHER]),
    (via(f"{HOME}/a", "https://mlflow.example.com:8443/b"), [BOTH, NEITHER]),
    (via(f"{HOME}/a", "http://mlflow.example.com/b"), [BOTH, NEITHER]),
    (via(f"{HOME}/a", f"{SERVER_2}/b"), [BOTH, NEITHER]),
    # away and back: the token isn't sent again
    (via(f"{SERVER_1}/a", "/b", f"{SERVER_2}/c", "/d"), [BOTH, BOTH, NEITHER, NEITHER]),
    (via(f"{SERVER_1}/a", f"{SERVER_2}/b", f"{SERVER_1}/c"), [BOTH, NEITHER, NEITHER]),
    # refused before any request is sent
    ("http://mlflow.example.com/a", []),
    ("http://mlflow.example.com:443/a", []),
    ("http://localhost.example.com/a", []),
    ("http://user:secret@mlflow.example.com/a", []),
    ("http://localhost:80@mlflow.example.com/a", []),
]


def has(headers: dict[str, str], header: str) -> set[str]:
    return {
        what for what, name in (("token", header), ("password", "Authorization")) if name in headers
    }


@pytest.fixture
def servers() -> Iterator[list[Recorder]]:
    with ExitStack() as stack:
        yield [stack.enter_context(recorder()) for _ in range(2)]


@pytest.mark.parametrize("login", HEADERS)
def test_a_token_is_sent_to_its_own_server_only(servers: list[Recorder], login: str) -> None:
    def addressed(text: str) -> str:
        for number, server in enumerate(servers):
            text = text.replace(f"PORT{number}", str(server.port))
        return text

    ports = {name: servers[number].port for name, number in NAMES.items()}
    addresses = [addressed(address) for address, _ in CASES]
    ran = subprocess.run(
        [CLIENT, REDIRECTS], env={"PYTHONPATH": str(PLUGIN), "MLFLOW_DISABLE_TELEMETRY": "true"},
        input=json.dumps([HEADERS[login], ports, addresses]),
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()
    seen = sorted((request for server in servers for request in server.seen), key=lambda it: it[0])
    for case, (address, wanted) in enumerate(CASES):
        found = [
            has(headers, HEADERS[login]) for _, headers in seen if headers["X-Case"] == str(case)
        ]
        # requests itself removes Proxy-Authorization on every redirect.
        kept = NEITHER if login == "google-iam" else {"token"}
        assert found == [*wanted[:1], *(sent - kept for sent in wanted[1:])], address
        if wanted:
            made_for = next((it for it in (SERVER_1, SAME_PORT) if address.startswith(it)), HOME)
            assert said[case] == f"200 {addressed(made_for)}"
        else:
            assert "is plain http, which anyone on the way can read" in said[case]
            assert "secret" not in said[case]
