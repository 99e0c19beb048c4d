"""No secret appears anywhere, whatever fails, with every logger at DEBUG.

Each secret is a recognizable value, and everything that leaves the server is searched for it.
"""

import base64
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from tracking_server.mlflow import internals

from fake_google.sql.postgres import Postgres
from tests.server.conftest import DATABASE_PASSWORD, made_database
from tests.server.parity.calls import SEQUENCE
from tests.server.parity.servers import our_environment, ours, upstream
from tests.server.parity.walk import walk
from tests.server.process import BOOT_SECONDS, PASSWORD, USER, Server

ROOT = Path(__file__).parents[2]
VIEWER, VIEWER_PASSWORD = "looker", "canary-of-the-viewer"
PASSPHRASE = "canary-passphrase"
GUESSED = "canary-that-somebody-guesses"
API_KEY = "sk-canary-0123456789"
"""The secret that tests/server/parity/calls/gateway.py stores."""
TOKEN = "ya29."
"""The beginning of every access token of the service account."""


def spellings(secret: str) -> set[str]:
    """Returns a secret's forms: plain, in a URL, in JSON, in base64 at each of three offsets."""
    encoded = {
        base64.b64encode(b"x" * offset + secret.encode()).decode()[4:-4].rstrip("=")
        for offset in range(3)
    }
    return {secret, quote(secret, safe=""), secret.replace("/", "\\/")} | encoded


def seen(canaries: list[str], text: str) -> list[str]:
    return [
        canary for canary in canaries if any(spelling in text for spelling in spellings(canary))
    ]


CANARIES = [
    PASSWORD,
    VIEWER_PASSWORD,
    PASSPHRASE,
    DATABASE_PASSWORD,
    GUESSED,
    API_KEY,
    internals.webhook_key(PASSPHRASE),
]


def test_the_search_finds_every_spelling() -> None:
    for canary in CANARIES:
        for text in (
            f"password={canary}",
            f"https://{USER}:{quote(canary, safe='')}@host",
            base64.b64encode(f"{USER}:{canary}".encode()).decode(),
            base64.b64encode(f"x{USER}:{canary}".encode()).decode(),
        ):
            assert seen(CANARIES, text) == [canary]


@contextmanager
def loud_server(
    folder: Path,
    postgres: Postgres,
    cloudsql_root: Path,
    password: str = DATABASE_PASSWORD,
    mistaken: Mapping[str, str] = {},
) -> Iterator[Server]:
    url = made_database(postgres, "canaries", password=password)
    folder.mkdir()
    with our_environment(
        folder, url, cloudsql_root, viewer=(VIEWER, VIEWER_PASSWORD)
    ) as environment:
        changed = {
            f"{one}_SECRET": environment[f"{other}_SECRET"] for one, other in mistaken.items()
        }
        changed["PYTHONPATH"] = str(ROOT)
        with ours(environment | changed, folder, module="tests.server.debugging") as server:
            yield server


def test_no_secret_leaves_the_server(
    tmp_path: Path, postgres: Postgres, cloudsql_root: Path
) -> None:
    bodies: list[str] = []
    with (
        upstream() as upstream_url,
        loud_server(tmp_path / "ours", postgres, cloudsql_root) as server,
        server.ready().client() as client,
    ):
        client.event_hooks["response"].append(
            lambda answer: bodies.append(f"{answer.headers} {answer.read().decode('latin-1')}")
        )
        names = {"mark": "0d01", "upstream": upstream_url, "home": str(tmp_path)}
        failed = [step for step in walk(client, SEQUENCE, names) if step.answer.status >= 500]
        assert failed
        for login in ((USER, GUESSED), (GUESSED, PASSWORD), (VIEWER, PASSWORD), ("", GUESSED)):
            for _ in range(4):
                client.get("/version", auth=login)
        client.get(f"/version?password={GUESSED}")
        client.post("/api/2.0/mlflow/runs/create", json={}, auth=(VIEWER, VIEWER_PASSWORD))
        process = server.shown()
        if sys.platform == "linux":
            limits = Path(f"/proc/{server.process.pid}/limits").read_text()
            [core] = [line.split() for line in limits.splitlines() if "core file" in line]
            assert core[4:6] == ["0", "0"]
        assert server.stop() == 0
        log = server.log()
    assert '"DEBUG"' in log
    assert "stack_trace" in log
    assert len(bodies) > 300
    for where in (log, process, *bodies):
        assert not seen(CANARIES, where), where[:2000]
        assert TOKEN not in where


@pytest.mark.parametrize(
    ("password", "mistaken", "said"),
    [
        (GUESSED, {}, ["refuses the user's password"]),
        # The names of secrets are mixed up.
        (
            DATABASE_PASSWORD,
            {"DATABASE_URL": "TRACKING_PASSWORD", "ARTIFACT_URL": "DATABASE_URL"},
            ["must hold an address", "must hold a bucket's address"],
        ),
    ],
)
def test_no_secret_is_shown_when_the_boot_fails(
    tmp_path: Path,
    postgres: Postgres,
    cloudsql_root: Path,
    password: str,
    mistaken: dict[str, str],
    said: list[str],
) -> None:
    with loud_server(tmp_path / "ours", postgres, cloudsql_root, password, mistaken) as server:
        process = server.shown()
        assert server.process.wait(BOOT_SECONDS) == 1
        log = server.log()
    assert all(words in log for words in said)
    assert not seen(CANARIES, log + process)
    assert TOKEN not in log + process
