"""Names are found whatever their case, and sorted as on Cloud SQL."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fake_google.sql.postgres import Postgres
from tests.server.process import Server

NAMES = ["apple", "Banana", "über", "ÜBUNG", "zebra"]
"""In the order of en_US.UTF-8, which isn't the order of their code points."""


@pytest.fixture(scope="module")
def client(
    shared_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    server = Server(shared_environment, tmp_path_factory.mktemp("collation"), forked=True)
    try:
        with server.ready().client() as client:
            for name in reversed(NAMES):
                for kind in ("experiments", "registered-models"):
                    made = client.post(f"/api/2.0/mlflow/{kind}/create", json={"name": name})
                    assert made.status_code == 200, made.text
            yield client
    finally:
        server.stop()


def found(client: httpx.Client, kind: str, **params: Any) -> list[str]:
    """Returns the names on all pages."""
    names: list[str] = []
    while True:
        answer = client.get(f"/api/2.0/mlflow/{kind}/search", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        names += [each["name"] for each in page.get(kind.replace("-", "_"), [])]
        if not (token := page.get("next_page_token")):
            return [name for name in names if name in NAMES]
        params["page_token"] = token


@pytest.mark.parametrize("kind", ["experiments", "registered-models"])
def test_a_search_ignores_the_case_of_any_letter(client: httpx.Client, kind: str) -> None:
    names = found(client, kind, filter="name ILIKE 'ü%'", max_results=9)
    assert sorted(names) == sorted(["über", "ÜBUNG"])


@pytest.mark.parametrize("kind", ["experiments", "registered-models"])
def test_names_have_one_order_on_all_pages(
    client: httpx.Client, postgres: Postgres, kind: str
) -> None:
    with postgres.connection() as connection:
        ((collation,),) = connection.run(
            "SELECT datcollate FROM pg_database WHERE datname = current_database()"
        )
    ordered = NAMES if collation.startswith("en_US") else sorted(NAMES)
    for size in (2, 9):
        assert found(client, kind, order_by="name ASC", max_results=size) == ordered
