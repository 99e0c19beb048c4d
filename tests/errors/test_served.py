"""What a server answers to whom it doesn't let in, and what its clients make of that."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.errors.running import for_people, says
from tests.errors.table import CANARY, CLIENTS, PORT, REQUESTS, Client, Request
from tests.local.conftest import ROOT, Stack
from tests.local.standins import call


def named(row: Client | Request) -> str:
    return row.name


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.temporary(config=("viewerUsername=viewer",)) as stack:
        yield stack


def passwords(stack: Stack) -> dict[str, str]:
    outputs = json.loads((stack.folder / "supervisor.json").read_text())["outputs"]
    return {"mlflow": outputs["tracking_password"], "viewer": outputs["viewer_password"]}


def authorization(login: str, stack: Stack) -> dict[str, str]:
    known = passwords(stack)
    pairs = {"user": f"mlflow:{known['mlflow']}", "viewer": f"viewer:{known['viewer']}"}
    pairs["wrong"] = f"mlflow:{CANARY}"
    if pair := pairs.get(login):
        login = "Basic " + base64.b64encode(pair.encode()).decode()
    return {"Authorization": login} if login else {}


@pytest.mark.parametrize("row", REQUESTS, ids=named)
def test_a_request(row: Request, stack: Stack) -> None:
    headers = authorization(row.login, stack) | dict(row.headers)
    # Each row from an address of its own, or they would count together.
    headers["X-Forwarded-For"] = f"192.0.2.{REQUESTS.index(row)}"
    for _ in range(row.after + 1):
        answer = call(
            row.method, f"http://127.0.0.1:{stack.port}{row.path}", body=row.body, headers=headers
        )
    assert answer.status == row.status
    assert answer.headers["content-type"].startswith("text/plain")
    for_people(answer.text, *passwords(stack).values())
    says(answer.text, row.said)


@pytest.mark.parametrize("row", CLIENTS, ids=named)
def test_a_client(row: Client, stack: Stack) -> None:
    known = passwords(stack)
    changed = {
        name: value.replace(PORT, str(stack.port)).replace("VIEWERS", known["viewer"])
        for name, value in row.changed.items()
    }
    script = [str(ROOT / row.script)] if row.script.endswith(".py") else ["-c", row.script]
    done = stack.client(*script, python=row.python, **changed)
    assert done.returncode == 1
    # MLflow's own errors come with Python's traceback.
    if row.script.endswith(".py"):
        for_people(done.stdout + done.stderr, *known.values())
    says(done.stderr, row.said)
