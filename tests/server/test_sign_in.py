"""With accounts behind Identity-Aware Proxy, people whom Google has signed in need no password."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from tracking_server.accounts.people import People

from fake_google.endpoints import Endpoints
from fake_google.iap import HEADER, Signer
from fake_google.iap_front import SIGN_IN, Front
from fake_google.sql.postgres import Postgres
from tests.server.conftest import made_database
from tests.server.parity.servers import our_environment, ours
from tests.server.process import PASSWORD, TLS, USER, Server, eventually

AUDIENCE = "/projects/123456789012/locations/us-central1/services/mlflow"
BOSS = "boss@example.org"
API = "/api/2.0/mlflow"
DATABASE = "sign_in"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def endpoints() -> Iterator[Endpoints]:
    made = Endpoints()
    yield made
    made.close()


@pytest.fixture(scope="module")
def environment(
    signer: Signer,
    endpoints: Endpoints,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,
    cloudsql_root: Path,
) -> Iterator[dict[str, str]]:
    url = made_database(postgres, DATABASE)
    folder = tmp_path_factory.mktemp("sign_in")
    with our_environment(folder, url, cloudsql_root, viewer=("viewer", "canary-viewer")) as given:
        yield given | {
            "ACCOUNTS_DEFAULT_PERMISSION": "READ",
            "ACCOUNTS_ADMINISTRATORS": BOSS,
            "ACCOUNTS_DOMAINS": "example.com,p.iam.gserviceaccount.com",
            "IAP_AUDIENCE": AUDIENCE,
            "IAP_KEYS": endpoints.serve(signer.serve_keys),
        }


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with ours(environment, tmp_path_factory.mktemp("server"), forked=True) as running:
        yield running.ready()


class Callers:
    """Clients of people whom Google has signed in."""

    def __init__(self, server: Server, signer: Signer) -> None:
        self.server, self.signer = server, signer

    def headers(self, address: str) -> Mapping[str, str]:
        return {HEADER: self.signer.assertion(address, audience=AUDIENCE)}

    def client(self, address: str, login: tuple[str, str] | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=self.server.url,
            headers=self.headers(address),
            auth=login,
            timeout=30,
            verify=TLS,
        )

    def who(self, address: str, login: tuple[str, str] | None = None) -> tuple[str, bool] | int:
        """Returns the caller's account and whether it is an administrator's, or the refusal."""
        with self.client(address, login) as client:
            answer = client.get(f"{API}/users/current")
        if answer.status_code != 200:
            return answer.status_code
        user = answer.json()["user"]
        return user["username"], user["is_admin"]


@pytest.fixture(scope="module")
def people(server: Server, signer: Signer) -> Callers:
    return Callers(server, signer)


def test_a_first_visit_creates_the_account(people: Callers) -> None:
    with people.client(BOSS) as boss, people.client("Ada@Example.com") as ada:
        made = boss.post(f"{API}/experiments/create", json={"name": "of the boss"}).json()
        assert ada.get(f"{API}/experiments/get", params=made).status_code == 200
        assert ada.post(f"{API}/experiments/delete", json=made).status_code == 403
        own = ada.post(f"{API}/experiments/create", json={"name": "of ada"}).json()
        run = ada.post(f"{API}/runs/create", json=own | {"user_id": "eve", "start_time": 1}).json()
        assert run["run"]["info"]["user_id"] == "ada@example.com"
    assert people.who("ada@example.com") == ("ada@example.com", False)
    assert people.who("train@p.iam.gserviceaccount.com") == (
        "train@p.iam.gserviceaccount.com",
        False,
    )


def test_the_settings_administrators_are_administrators(people: Callers) -> None:
    assert people.who(BOSS) == (BOSS, True)
    with people.client(BOSS) as boss:
        change = {"username": BOSS, "is_admin": False}
        for answer in (
            boss.patch(f"{API}/users/update-admin", json=change),
            boss.request("DELETE", f"{API}/users/delete", json={"username": BOSS}),
        ):
            assert answer.status_code == 400
            assert "accountsAdministrators" in answer.json()["message"]
    assert people.who(BOSS) == (BOSS, True)


@pytest.mark.parametrize(
    "address", ["eve@example.org", "eve@example.com.evil.example", "eve@sub.example.com", USER]
)
def test_others_have_no_account(people: Callers, address: str) -> None:
    with people.client(address) as client:
        answer = client.get("/")
    assert answer.status_code == (401 if "@" in address else 403)
    assert (address in answer.text) == ("@" in address)


def test_an_administrator_adds_a_person(people: Callers) -> None:
    with people.client(BOSS) as boss:
        login = {"username": "new@example.org", "password": "canary-new-password"}
        boss.post(f"{API}/users/create", json=login).raise_for_status()
    assert people.who("new@example.org") == ("new@example.org", False)


def test_a_removed_person_stays_out_until_added_again(people: Callers) -> None:
    leaver = {"username": "leaver@example.com"}
    assert people.who(leaver["username"]) == (leaver["username"], False)
    with people.client(BOSS) as boss, people.client("ada@example.com") as ada:
        assert ada.request("DELETE", f"{API}/users/delete", json=leaver).status_code == 403
        assert people.who(leaver["username"]) == (leaver["username"], False)
        boss.request("DELETE", f"{API}/users/delete", json=leaver).raise_for_status()
        for address in (leaver["username"], "Leaver@Example.com"):
            assert people.who(address) == 401
        again = leaver | {"password": "canary-leaver-password"}
        boss.post(f"{API}/users/create", json=again).raise_for_status()
    assert people.who(leaver["username"]) == (leaver["username"], False)


@pytest.mark.parametrize(
    ("login", "caller"),
    [
        ((USER, PASSWORD), (USER, True)),
        (("viewer", "canary-viewer"), ("viewer", False)),
        ((USER, "wrong"), 401),
        (("ada@example.com", ""), 401),
        (("ada@example.com", "!google"), 401),
    ],
)
def test_a_login_of_http_basic_decides_who_the_caller_is(
    people: Callers, login: tuple[str, str], caller: tuple[str, bool] | int
) -> None:
    assert people.who("ada@example.com", login) == caller


def test_each_request_needs_one_valid_assertion(people: Callers, server: Server) -> None:
    [(name, valid)] = people.headers("ada@example.com").items()
    other = Signer().assertion("ada@example.com", audience=AUDIENCE)
    for headers in (
        [],
        [(name, "")],
        [(name, other)],
        [(name, valid), (name, valid)],
        [(name, valid), (name.lower(), other)],
        [(name, other), (name.upper(), valid)],
        [(name.replace("-", "_"), valid)],
        [("X-Goog-Authenticated-User-Email", "accounts.google.com:ada@example.com")],
    ):
        for login in (None, (USER, PASSWORD)):
            answer = httpx.get(f"{server.url}/version", headers=headers, auth=login, verify=TLS)
            assert answer.status_code == 403, (headers, login)
    for spelt in (name, name.lower(), name.upper()):
        answer = httpx.get(f"{server.url}/version", headers={spelt: valid}, verify=TLS)
        assert answer.status_code == 200
    assert httpx.get(f"{server.url}/health", verify=TLS).status_code == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (["Bearer of-the-proxy"], 200),
        ([""], 200),
        (["Basic"], 401),
        (["basic\t%%%"], 401),
        (["Basic %%%"], 401),
        (["Bearer a", "Bearer b"], 401),
    ],
)
def test_only_http_basic_is_a_login(people: Callers, authorization: list[str], status: int) -> None:
    headers = [*people.headers("ada@example.com").items()]
    headers += [("Authorization", value) for value in authorization]
    answer = httpx.get(f"{people.server.url}/version", headers=headers, verify=TLS)
    assert answer.status_code == status


def test_the_log_names_both_identities_and_why_an_assertion_is_refused(people: Callers) -> None:
    ada = people.headers("ada@example.com")
    for trace, headers, login in (
        ("1", ada, None),
        ("2", ada, (USER, PASSWORD)),
        ("3", {}, (USER, PASSWORD)),
    ):
        given = {**headers, "traceparent": f"00-{trace * 32}-{'d' * 16}-01"}
        httpx.get(f"{people.server.url}/version", headers=given, auth=login, verify=TLS)

    def logged() -> list[list[str | None]]:
        lines = [
            [next((trace for trace in "123" if trace * 32 in str(entry)), None)]
            + [entry.get(key) for key in ("user", "google", "assertion")]
            for entry in people.server.entries()
        ]
        return sorted(line for line in lines if line[0])

    # The line is written after the response.
    assert eventually(lambda: len(logged()) == 3)
    assert logged() == [
        ["1", "ada@example.com", None, None],
        ["2", USER, "ada@example.com", None],
        ["3", None, None, "missing or malformed"],
    ]


def test_the_local_stacks_front_signs_people_in(
    server: Server, signer: Signer, endpoints: Endpoints
) -> None:
    members = ["group:ml@example.com", "user:ada@example.com", "domain:example.org"]
    front = Front(signer=signer, audience=AUDIENCE, upstream=server.url, members=lambda: members)
    address = endpoints.serve(front.handle)

    def caller(client: httpx.Client) -> str:
        return str(client.get(f"{API}/users/current").json()["user"]["username"])

    with httpx.Client(base_url=address, timeout=30, verify=TLS, headers={HEADER: "x"}) as client:
        assert caller(client) == "ada@example.com"
        made = client.post(f"{API}/experiments/create", json={"name": "by the front"}).json()
        found = client.get(f"{API}/experiments/get", params=made)
        assert found.json()["experiment"]["name"] == "by the front"
        artifact = f"/api/2.0/mlflow-artifacts/artifacts/{made['experiment_id']}/a%20b.bin"
        content = b"front" * (1 << 18)
        assert client.put(artifact, content=content).status_code == 200
        assert client.get(artifact).content == content
        assert client.get(SIGN_IN, params={"as": BOSS}).headers["Location"] == "/"
        assert caller(client) == BOSS
        members[:] = ["domain:example.net"]
        assert client.get("/version").status_code == 403
        client.cookies.clear()
        assert client.get(f"{API}/users/current").status_code == 401


@pytest.fixture
def table(server: Server, postgres: Postgres, cloudsql_root: Path) -> Iterator[People]:
    """The accounts of the server's database, as another instance uses them."""
    assert server.accepts()  # it has created the tables
    address = make_url(made_database(postgres, DATABASE))
    engine = create_engine(
        address.update_query_dict({"unix_sock": str(postgres.socket())}),
        connect_args={"ssl_context": False},
    )
    yield People(engine.begin, administrators=["grace@example.org"], domains=["example.net"])
    engine.dispose()


def test_two_instances_create_an_account_once(table: People) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(table.find_or_create, ["twin@example.net"] * 16)]
    assert len(set(found)) == 1
    with table.begin() as connection:
        many = connection.execute(text("SELECT count(*) FROM users WHERE username LIKE 'twin%'"))
        assert many.scalar_one() == 1


def test_the_setting_promotes_and_demotes(table: People) -> None:
    def is_admin(people: People, address: str = "grace@example.org") -> bool | None:
        found = people.find_or_create(address)
        return found and found.is_admin

    nobody = People(table.begin)
    assert is_admin(table) is True
    assert is_admin(nobody) is False
    assert is_admin(table) is True
    # Whom an administrator has promoted isn't demoted.
    with table.begin() as connection:
        connection.execute(text("UPDATE users SET is_admin = true WHERE username LIKE 'twin%'"))
    assert is_admin(nobody, "twin@example.net") is True


def test_a_person_removed_before_the_first_visit_gets_no_account(table: People) -> None:
    table.keep_out("Never@Example.net")
    assert table.find_or_create("never@example.net") is None
    assert table.find_or_create("other@example.org") is None
