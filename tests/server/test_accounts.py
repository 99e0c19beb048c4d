"""With accounts, every route allows each person what stock MLflow's basic-auth app allows.

Each call of the parity tests is sent as each person to both servers, and the statuses are compared.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tracking_server.gate.viewer_policy import may_view

from fake_google.iap import HEADER, Signer
from fake_google.sql.postgres import Postgres
from tests.server.conftest import made_database, made_for_stock
from tests.server.parity.call import Call, found
from tests.server.parity.calls import SEQUENCE
from tests.server.parity.servers import Stock, our_environment, ours, upstream
from tests.server.process import PASSWORD, TLS, USER, Server, eventually

PEOPLE = {"editor": "EDIT", "reader": "READ", "nobody": None, "manager": "MANAGE"}
"""The names of accounts, and the permission which each has for everything. Each owns an experiment
that the calls don't name."""

VIEWER, ANONYMOUS = "viewer", "anonymous"
"""The viewer of our stack, and a caller without a login."""

TYPES = (
    "experiment",
    "registered_model",
    "prompt",
    "scorer",
    "gateway_secret",
    "gateway_endpoint",
    "gateway_model_definition",
    "mcp_server",
)
DEMO = "/mlflow/demo/generate"
"""Filling the database with examples takes most of a minute."""

ONLINE_SCORING = "/scorers/online-config"
"""Our server refuses to schedule judges."""

HEALTH = "/health"
"""The only route without a login."""

PAGE = "/"
"""Stock refuses HEAD of the page to everyone but the administrator."""

API = "/api/2.0/mlflow"
API3 = "/api/3.0/mlflow"


def password_of(name: str) -> str:
    return f"canary-{name}-password"


def add_person(admin: httpx.Client, name: str, permission: str | None = None) -> None:
    login = {"username": name, "password": password_of(name)}
    admin.post(f"{API}/users/create", json=login).raise_for_status()
    for kind in TYPES if permission else ():
        grant(admin, name, kind, "*", str(permission))


def grant(admin: httpx.Client, name: str, kind: str, resource: str, permission: str) -> None:
    admin.post(
        f"{API3}/users/permissions/grant",
        json={
            "username": name,
            "resource_type": kind,
            "resource_id": resource,
            "permission": permission,
        },
    ).raise_for_status()


@dataclass(frozen=True)
class Accounts:
    """A server with accounts, stock's or ours."""

    url: str
    server: Server | None = None

    def client(self, name: str | None = None) -> httpx.Client:
        """Returns a client with a person's login, the administrator's by default."""
        login = (name, password_of(name)) if name else (USER, PASSWORD)
        auth = None if name == ANONYMOUS else login
        return httpx.Client(base_url=self.url, auth=auth, timeout=30, verify=TLS)

    def add_people(self) -> None:
        with self.client() as admin:
            for name, permission in PEOPLE.items():
                add_person(admin, name, permission)
                with self.client(name) as owner:
                    made = owner.post(f"{API}/experiments/create", json={"name": f"of {name}"})
                    made.raise_for_status()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("accounts")


@pytest.fixture(scope="module")
def environment(folder: Path, postgres: Postgres, cloudsql_root: Path) -> Iterator[dict[str, str]]:
    made = folder / "ours"
    made.mkdir()
    url = made_database(postgres, "accounts_ours")
    with our_environment(made, url, cloudsql_root, viewer=(VIEWER, password_of(VIEWER))) as given:
        yield given | {
            "ACCOUNTS_DEFAULT_PERMISSION": "NO_PERMISSIONS",
            # Two for the hot routes.
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "6",
        }


@pytest.fixture(scope="module")
def us(folder: Path, environment: dict[str, str]) -> Iterator[Accounts]:
    with ours(environment, folder, forked=True) as server:
        accounts = Accounts(server.ready().url, server)
        accounts.add_people()
        yield accounts


@contextmanager
def stock_with_accounts(
    folder: Path, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Accounts]:
    made = folder / "stock"
    made.mkdir()
    url = made_for_stock(postgres, "accounts_stock", cloudsql_root)
    config, escaped = made / "auth.ini", url.replace("%", "%%")
    config.write_text(
        "[mlflow]\n"
        f"default_permission = NO_PERMISSIONS\ndatabase_uri = {escaped}\n"
        f"admin_username = {USER}\nauth_cache_ttl_seconds = 60\n"
    )
    stock = Stock(
        made,
        url,
        app="basic-auth",
        more={
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "canary-key",
        },
    )
    try:
        stock.ready()
        accounts = Accounts(stock.url)
        accounts.add_people()
        yield accounts
    finally:
        stock.stop()


def walked(
    accounts: Accounts, callers: Sequence[str | None], home: str, upstream_url: str
) -> list[tuple[Call, dict[str | None, int]]]:
    """Returns each call with the status of each caller.

    The administrator prepares everything, and the others send each call once.
    """
    names = {"mark": "0c01", "upstream": upstream_url, "home": home}
    names["server"] = accounts.url.removeprefix("http://")
    answers = []
    seen: set[tuple[str, str]] = set()
    with ExitStack() as stack:
        people = [stack.enter_context(accounts.client(name)) for name in callers]
        for call in SEQUENCE:
            if call.path == PAGE or call.path.endswith(DEMO) or ONLINE_SCORING in call.path:
                continue
            is_new = (call.method, call.path) not in seen
            seen.add((call.method, call.path))
            if not is_new and not prepares(call):
                continue
            filled = call.filled(names)
            statuses = {}
            for name, person in zip(callers, people, strict=True):
                if is_new or name is None:
                    answer = person.request(filled.method, filled.path, **filled.options())
                    statuses[name] = answer.status_code
                    if answer.status_code < 300:
                        names |= kept(call, answer)
            answers.append((call, statuses))
    return answers


def prepares(call: Call) -> bool:
    """Whether later calls may depend on this one."""
    return bool(call.keep) or (call.method != "GET" and call.expected < 400)


def kept(call: Call, answer: httpx.Response) -> Mapping[str, str]:
    try:
        return {name: found(answer.json(), place) for name, place in call.keep.items()}
    except (KeyError, IndexError):  # a list without what the person may not see
        return {}


def test_each_person_may_do_what_stock_allows(
    us: Accounts, folder: Path, postgres: Postgres, cloudsql_root: Path
) -> None:
    with (
        upstream() as upstream_url,
        stock_with_accounts(folder, postgres, cloudsql_root) as stock,
        ThreadPoolExecutor(2) as threads,
    ):
        theirs, found = (
            each.result()
            for each in [
                threads.submit(walked, accounts, callers, str(folder / home), upstream_url)
                for accounts, callers, home in (
                    (stock, (None, *PEOPLE), "stock"),
                    (us, (None, *PEOPLE, VIEWER, ANONYMOUS), "ours"),
                )
            ]
        )
    different = [
        f"{call}: stock {statuses}, ours {found}"
        for (call, statuses), (_, found) in zip(theirs, found, strict=True)
        if not all(as_stock(statuses[name], found[name]) for name in statuses)
        or not as_only_ours(call, statuses, found)
    ]
    assert different == []
    counted = Counter(status for _, statuses in theirs for status in statuses.values())
    assert min(counted[200], counted[403]) > 200, counted


def as_stock(stock: int, ours: int) -> bool:
    """Whether ours refuses what stock forbids, and does what stock does.

    The parity tests compare everything else that the administrator gets.
    """
    return ours >= 400 if stock in (401, 403) else ours < 400 or stock >= 400


def as_only_ours(
    call: Call, stock: Mapping[str | None, int], ours: Mapping[str | None, int]
) -> bool:
    """Whether callers are refused who don't log in, and the viewer unless a reader may do it."""
    if VIEWER not in ours or call.path == HEALTH:
        return True
    reads = may_view(call.method, call.path.partition("?")[0])
    viewer = as_stock(stock["reader"], ours[VIEWER]) if reads else ours[VIEWER] == 403
    return viewer and ours[ANONYMOUS] == 401


def test_only_the_stacks_logins_and_peoples_are_accepted(us: Accounts) -> None:
    assert httpx.get(f"{us.url}/version").status_code == 401
    # Without Identity-Aware Proxy, its header means nothing.
    google = {HEADER: Signer().assertion(USER, audience="")}
    assert httpx.get(f"{us.url}/version", headers=google).status_code == 401
    for login in ((USER, "wrong"), ("nobody", PASSWORD), ("stranger", "wrong"), ("nobody", "")):
        assert httpx.get(f"{us.url}/version", auth=login).status_code == 401, login
    for name in ("nobody", None):
        with us.client(name) as client:
            assert client.get("/version").status_code == 200
            user = client.get(f"{API}/users/current").json()["user"]
            assert (user["username"], user["is_admin"]) == (name or USER, name is None)


def test_the_viewer_reads_everything_but_changes_nothing(us: Accounts) -> None:
    with us.client(VIEWER) as viewer, us.client("nobody") as owner:
        made = owner.post(f"{API}/experiments/create", json={"name": "seen"}).json()
        assert viewer.get(f"{API}/experiments/get", params=made).status_code == 200
        search = viewer.post(f"{API}/experiments/search", json={"max_results": 1000}).json()
        assert made["experiment_id"] in [one["experiment_id"] for one in search["experiments"]]
        assert viewer.post(f"{API}/experiments/delete", json=made).status_code == 403


def test_the_stacks_own_logins_cannot_be_changed(us: Accounts) -> None:
    with us.client() as admin:
        add_person(admin, "second")
        promote = {"username": "second", "is_admin": True}
        admin.patch(f"{API}/users/update-admin", json=promote).raise_for_status()
        with us.client("second") as second:
            for name in (USER, "viewer"):
                for answer in (
                    second.request("DELETE", f"{API}/users/delete", json={"username": name}),
                    second.patch(
                        f"{API}/users/update-admin", json={"username": name, "is_admin": False}
                    ),
                    second.patch(
                        f"{API}/users/update-password",
                        json={"username": name, "password": "canary-another-password"},
                    ),
                ):
                    assert answer.status_code == 400
                    assert "make rotate" in answer.json()["message"]


def test_a_removed_person_is_locked_out_at_once(us: Accounts) -> None:
    with us.client() as admin, us.client("leaver") as leaver:
        add_person(admin, "leaver", "MANAGE")
        made = leaver.post(f"{API}/experiments/create", json={"name": "left"}).json()
        # A hot route, one of Flask's and one of FastAPI's.
        hot = f"{API}/experiments/get?experiment_id={made['experiment_id']}"
        paths = (hot, f"{API}/users/current", "/version")
        assert [leaver.get(path).status_code for path in paths] == [200] * len(paths)
        leaving = {"username": "leaver"}
        admin.request("DELETE", f"{API}/users/delete", json=leaving).raise_for_status()
        assert [leaver.get(path).status_code for path in paths] == [401] * len(paths)
        # A person with the same name later gets none of it.
        add_person(admin, "leaver")
        assert leaver.get(f"{API}/experiments/get", params=made).status_code == 403


def test_a_new_password_replaces_the_old_one_at_once(us: Accounts) -> None:
    with us.client() as admin, us.client("editor") as editor:
        for password, status in (("canary-new-password", 401), (password_of("editor"), 200)):
            change = {"username": "editor", "password": password}
            admin.patch(f"{API}/users/update-password", json=change).raise_for_status()
            assert editor.get("/version").status_code == status


def test_hot_routes_and_artifacts_ask_for_permission(us: Accounts) -> None:
    with us.client() as admin, us.client("nobody") as nobody, us.client("reader") as reader:
        experiment = admin.post(f"{API}/experiments/create", json={"name": "hot"}).json()
        run = admin.post(f"{API}/runs/create", json=experiment | {"start_time": 1}).json()
        run_id = {"run_id": run["run"]["info"]["run_id"]}
        metric = run_id | {"key": "m", "value": 1, "timestamp": 1, "step": 0}
        path = f"{experiment['experiment_id']}/{run_id['run_id']}/artifacts/a.txt"
        artifact = f"/api/2.0/mlflow-artifacts/artifacts/{path}"
        escaped = artifact.replace("artifacts/a.txt", "%61rtifacts/a.txt")
        for person, reads, writes in ((nobody, 403, 403), (reader, 200, 403), (admin, 200, 200)):
            assert person.post(f"{API}/runs/log-metric", json=metric).status_code == writes
            assert person.put(artifact, content=b"a").status_code == writes
            assert person.get(f"{API}/runs/get", params=run_id).status_code == reads
        for person, reads in ((nobody, 403), (reader, 200)):
            assert person.get(artifact).status_code == reads
            assert person.get(escaped).status_code == reads
            assert person.get(artifact, headers={"Authorization-User": USER}).status_code == reads


def test_the_access_log_names_the_person(us: Accounts) -> None:
    assert us.server
    with us.client("reader") as reader:
        reader.get("/version", headers={"traceparent": f"00-{'c' * 32}-{'d' * 16}-01"})
    # A line is written once its response has been sent.
    assert eventually(lambda: "c" * 32 in us.server.log())
    [entry] = [one for one in us.server.entries() if "c" * 32 in str(one)]
    assert entry["user"] == "reader"


def test_accounts_are_switched_off_and_on_again_with_their_data(
    us: Accounts, environment: dict[str, str], folder: Path
) -> None:
    with us.client() as admin:
        made = admin.post(f"{API}/experiments/create", json={"name": "stays"}).json()
    off = {key: value for key, value in environment.items() if not key.startswith("ACCOUNTS_")}
    with ours(off, folder, forked=True) as server, server.ready().client() as user:
        assert user.get(f"{API}/experiments/get", params=made).status_code == 200
        assert user.get(f"{API}/users/current").status_code == 404
        later = user.post(f"{API}/experiments/create", json={"name": "without accounts"}).json()
        assert httpx.get(f"{server.url}/version", auth=us.client("reader").auth).status_code == 401
    with ours(environment, folder, forked=True) as server:
        on = Accounts(server.ready().url)
        with on.client("reader") as reader, on.client("nobody") as nobody:
            for experiment in (made, later):
                assert reader.get(f"{API}/experiments/get", params=experiment).status_code == 200
                assert nobody.get(f"{API}/experiments/get", params=experiment).status_code == 403
