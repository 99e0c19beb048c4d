"""Hot routes serve each person what MLflow's permissions grant, and MLflow responds to the rest."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from tracking_server.accounts.logins import MAX_REMEMBERED, REMEMBERED_SECONDS
from tracking_server.accounts.permissions import Permissions, Remembered

from fake_google.sql.postgres import Postgres
from infra.google.log_metrics import DENIED
from tests.server.conftest import made_database
from tests.server.log_filter import entry_of, matches
from tests.server.parity.servers import our_environment, ours
from tests.server.process import eventually
from tests.server.test_accounts import API, API3, Accounts, add_person, grant

READER, WRITER = "reader", "writer"
GRANTS = {
    READER: {"experiment": "READ"},
    WRITER: {"experiment": "EDIT"},
    "nobody": {},
    # Permissions for all runs or models, which MLflow combines with those for an experiment.
    "writer of runs": {"experiment": "READ", "run": "EDIT"},
    "reader of runs": {"experiment": "EDIT", "run": "READ"},
    "without runs": {"experiment": "EDIT", "run": "DENY"},
    "without models": {"experiment": "EDIT", "logged_model": "DENY"},
}
_traces = count(1)


class Sides:
    """Two servers with one database: with hot routes, and without."""

    def __init__(self, hot: Accounts, plain: Accounts) -> None:
        self.hot, self.plain = hot, plain
        with hot.client() as admin:
            made = [
                admin.post(f"{API}/experiments/create", json={"name": name}).json()["experiment_id"]
                for name in ("granted", "other")
            ]
            self.experiment, self.other = made
            fields = {"experiment_id": self.experiment, "start_time": 1, "run_name": "r"}
            run = admin.post(f"{API}/runs/create", json=fields).json()["run"]["info"]["run_id"]
            self.run = run
            model = admin.post(
                f"{API}/logged-models", json={"experiment_id": self.experiment, "name": "m"}
            ).json()["model"]["info"]["model_id"]
            outputs = {"run_id": run, "models": [{"model_id": model, "step": 0}]}
            admin.post(f"{API}/runs/outputs", json=outputs).raise_for_status()
            for name, granted in GRANTS.items():
                add_person(admin, name)
                for kind, permission in granted.items():
                    resource = self.experiment if kind == "experiment" else "*"
                    grant(admin, name, kind, resource, permission)

    def calls(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Returns a request for each hot route, one of them for two experiments."""
        run = {"run_id": self.run}
        pair = {"key": "k", "value": "v"}
        metric = {"key": "k", "value": 1, "timestamp": 1, "step": 0}
        created = {"experiment_id": self.experiment, "user_id": "u", "run_name": "n"}
        return {
            "runs/log-metric": ("POST", run | metric),
            "runs/log-parameter": ("POST", run | pair),
            "runs/set-tag": ("POST", run | pair),
            "runs/log-batch": ("POST", run | {"metrics": [metric]}),
            "runs/update": ("POST", run | {"status": "FINISHED"}),
            "runs/create": ("POST", created | {"start_time": 2}),
            "runs/get": ("GET", run),
            "metrics/get-history": ("GET", run | {"metric_key": "k", "max_results": 9}),
            "experiments/get": ("GET", {"experiment_id": self.experiment}),
            "experiments/get-by-name": ("GET", {"experiment_name": "granted"}),
            "runs/search": (
                "POST",
                {"experiment_ids": [self.experiment], "filter": "attributes.run_name = 'r'"},
            ),
            "runs/search?both": (
                "POST",
                {"experiment_ids": [self.experiment, self.other], "order_by": ["start_time"]},
            ),
        }

    def logged(self, traces: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Returns the access log's entries of these traces, which are written after responses."""
        found: dict[str, dict[str, Any]] = {}

        def complete() -> bool:
            assert self.hot.server
            for entry in self.hot.server.entries():
                if "httpRequest" in entry:
                    trace = entry.get("logging.googleapis.com/trace", "")
                    found[trace.rpartition("/")[2]] = entry
            return found.keys() >= set(traces)

        assert eventually(complete)
        return {trace: found[trace] for trace in traces}


def sent(
    client: httpx.Client, path: str, method: str, fields: dict[str, Any]
) -> tuple[httpx.Response, str]:
    """Send a request. Returns the response and the trace's id."""
    trace = f"{next(_traces):032x}"
    given: dict[str, Any] = {"params" if method == "GET" else "json": fields}
    headers = {"traceparent": f"00-{trace}-{'d' * 16}-01"}
    response = client.request(method, f"{API}/{path}", headers=headers, **given)
    return response, trace


@pytest.fixture(scope="module")
def sides(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, cloudsql_root: Path
) -> Iterator[Sides]:
    folder = tmp_path_factory.mktemp("permissions")
    url = made_database(postgres, "permissions")
    viewer = ("viewer", "canary-viewer")
    with our_environment(folder, url, cloudsql_root, viewer=viewer) as given, ExitStack() as stack:
        servers = [
            stack.enter_context(
                ours(
                    given
                    | {
                        "ACCOUNTS_DEFAULT_PERMISSION": "NO_PERMISSIONS",
                        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": size,
                    },
                    folder,
                    forked=True,
                )
            )
            # Two connections for hot routes, and too few for them.
            for size in ("6", "4")
        ]
        yield Sides(*(Accounts(server.ready().url, server) for server in servers))


def test_each_person_gets_from_hot_routes_what_mlflow_responds(sides: Sides) -> None:
    expected_hot, different = {}, []
    for name in GRANTS:
        with sides.hot.client(name) as hot, sides.plain.client(name) as plain:
            for path, (method, fields) in sides.calls().items():
                theirs, _ = sent(plain, path, method, fields)
                found, trace = sent(hot, path, method, fields)
                same = found.status_code == theirs.status_code
                if path != "runs/create":
                    same = same and found.content == theirs.content
                if not same:
                    different.append((name, path, theirs.text, found.text))
                # MLflow leaves out other experiments, and models that a person is denied.
                left_out = "?both" in path or (
                    name == "without models"
                    and path in ("runs/get", "runs/search", "metrics/get-history")
                )
                expected_hot[trace] = (found.status_code == 200 and not left_out, name, path)
    assert different == []
    logged = sides.logged(expected_hot)
    wrong = [
        call
        for trace, (is_hot, *call) in expected_hot.items()
        if is_hot != logged[trace].get("hot", False)
    ]
    # MLflow responds to a person without runs too: with an empty list.
    assert wrong == [["nobody", "runs/search"], ["without runs", "runs/search"]]


def test_the_viewer_reads_by_hot_routes(sides: Sides) -> None:
    login = ("viewer", "canary-viewer")
    with httpx.Client(base_url=sides.hot.url, auth=login) as viewer:
        response, trace = sent(viewer, "runs/search", *sides.calls()["runs/search?both"])
    assert response.json()["runs"]
    assert sides.logged([trace])[trace]["hot"]


def test_a_withdrawn_permission_ends_at_once(sides: Sides) -> None:
    with sides.hot.client() as admin, sides.hot.client("leaver") as leaver:
        add_person(admin, "leaver")

        def statuses() -> list[int]:
            return [
                sent(leaver, path, *sides.calls()[path])[0].status_code
                for path in ("runs/get", "runs/log-metric", "experiments/get")
            ]

        given = {"username": "leaver", "resource_type": "experiment"}
        given["resource_id"] = sides.experiment
        for permission, expected in (("EDIT", [200] * 3), ("READ", [200, 403, 200])):
            grant(admin, "leaver", "experiment", sides.experiment, permission)
            assert statuses() == expected
            admin.post(f"{API3}/users/permissions/revoke", json=given).raise_for_status()
            assert statuses() == [403] * 3
        team = {"name": "team", "workspace": "default"}
        role = admin.post(f"{API3}/roles/create", json=team).json()["role"]["id"]
        admin.post(
            f"{API3}/roles/permissions/add",
            json={
                "role_id": role,
                "resource_type": "experiment",
                "resource_pattern": sides.experiment,
                "permission": "EDIT",
            },
        ).raise_for_status()
        assigned = {"username": "leaver", "role_id": role}
        admin.post(f"{API3}/roles/assign", json=assigned).raise_for_status()
        assert statuses() == [200] * 3
        admin.request("DELETE", f"{API3}/roles/unassign", json=assigned).raise_for_status()
        assert statuses() == [403] * 3
        admin.post(f"{API3}/roles/assign", json=assigned).raise_for_status()
        deleted = {"role_id": role}
        admin.request("DELETE", f"{API3}/roles/delete", json=deleted).raise_for_status()
        assert statuses() == [403] * 3


def test_the_log_says_who_changes_what_without_content(sides: Sides) -> None:
    run, calls = {"run_id": sides.run}, sides.calls()
    tag = run | {"key": "canary-key", "value": "canary-value"}
    made = {"name": "canary-name"}
    granted = {"username": READER, "resource_type": "experiment", "resource_id": sides.other}
    file = f"{sides.experiment}/{sides.run}/artifacts/f"
    traces = {}
    for name, path, method, fields in (
        (WRITER, "runs/set-tag", "POST", tag),
        (WRITER, "runs/delete-tag", "POST", tag),
        (READER, "runs/set-tag", "POST", tag),
        (WRITER, "runs/create", *calls["runs/create"]),
        (WRITER, "experiments/create", "POST", made),
        (None, "../../3.0/mlflow/users/permissions/grant", "POST", granted | {"permission": "USE"}),
        (READER, f"../mlflow-artifacts/artifacts/{file}", "PUT", {}),
        (READER, "runs/get", *calls["runs/get"]),
        (READER, "runs/search", *calls["runs/search"]),
        ("nobody", "runs/get", *calls["runs/get"]),
    ):
        with sides.hot.client(name) as client:
            response, traces[name, path] = sent(client, path, method, fields)
            if path.endswith("/create"):
                made[path] = response.text
    logged = sides.logged(traces.values())
    found = {
        (name, path.rpartition("..")[2].lstrip("/")): (
            entry["httpRequest"]["status"],
            entry.get("denied", False),
            entry.get("change"),
        )
        for (name, path), trace in traces.items()
        if (entry := logged[trace])["user"] == (name or "mlflow")
    }
    new_run = json.loads(made["runs/create"])["run"]["info"]["run_id"]
    new_experiment = json.loads(made["experiments/create"])["experiment_id"]
    here, theirs = {"experiment": sides.experiment}, {"run": sides.run}
    assert found == {
        (WRITER, "runs/set-tag"): (200, False, {"action": "runs/set-tag"} | theirs),
        (WRITER, "runs/delete-tag"): (200, False, {"action": "runs/delete-tag"} | theirs),
        (READER, "runs/set-tag"): (403, True, {"action": "runs/set-tag"} | theirs),
        (WRITER, "runs/create"): (200, False, {"action": "runs/create", "run": new_run} | here),
        (WRITER, "experiments/create"): (
            200,
            False,
            {"action": "experiments/create", "experiment": new_experiment},
        ),
        (None, "3.0/mlflow/users/permissions/grant"): (
            200,
            False,
            {
                "action": "users/permissions/grant",
                "account": READER,
                "resource_type": "experiment",
                "resource": sides.other,
                "permission": "USE",
            },
        ),
        (READER, f"mlflow-artifacts/artifacts/{file}"): (
            403,
            True,
            {"action": "mlflow-artifacts/artifacts"} | here | theirs,
        ),
        (READER, "runs/get"): (200, False, None),
        (READER, "runs/search"): (200, False, None),
        ("nobody", "runs/get"): (403, True, None),
    }
    assert sides.hot.server
    assert "canary" not in sides.hot.server.log()
    entries = [entry_of(logged[trace], service="mlflow") for trace in traces.values()]
    assert sum(matches(DENIED.filter_for("mlflow"), entry) for entry in entries) == 3


def test_the_caller_is_the_user_of_a_run(sides: Sides) -> None:
    method, fields = sides.calls()["runs/create"]
    fields |= {"tags": [{"key": "mlflow.user", "value": "other"}, {"key": "a", "value": "b"}]}
    for accounts in (sides.hot, sides.plain):
        for name in (WRITER, None):
            with accounts.client(name) as client:
                created, _ = sent(client, "runs/create", method, fields)
                run = created.json()["run"]
                tag = {"key": "mlflow.user", "value": name or "mlflow"}
                assert run["info"]["user_id"] == (name or "mlflow")
                assert run["data"]["tags"][:2] == [{"key": "a", "value": "b"}, tag]
                given = {"run_id": run["info"]["run_id"]}
                for path, change in (
                    ("runs/set-tag", tag),
                    ("runs/delete-tag", {"key": "mlflow.user"}),
                    ("runs/log-batch", {"tags": [tag]}),
                ):
                    answer, _ = sent(client, path, "POST", given | change)
                    assert answer.status_code == 403
                    assert answer.json()["error_code"] == "PERMISSION_DENIED"
                kept = client.get(f"{API}/runs/get", params=given).json()["run"]
                assert tag in kept["data"]["tags"]


def test_only_an_administrator_chooses_where_artifacts_are(sides: Sides) -> None:
    experiment = {"name": "elsewhere", "artifact_location": "mlflow-artifacts:/1"}
    model, source = {"name": "theirs"}, f"gs://my-bucket/{sides.experiment}/{sides.run}/artifacts"
    own = f"mlflow-artifacts:/{sides.experiment}/{sides.run}/artifacts/m"
    with sides.hot.client(WRITER) as writer, sides.hot.client() as admin:
        renamed = {"name": "elsewhere", "artifactLocation": "mlflow-artifacts:/1"}
        for fields in (experiment, renamed):
            refused = writer.post(f"{API}/experiments/create", json=fields)
            assert refused.status_code == 403
            assert "artifact_location" in refused.json()["message"]
        assert admin.post(f"{API}/experiments/create", json=experiment).status_code == 200
        writer.post(f"{API}/registered-models/create", json=model).raise_for_status()
        for client, version, status in (
            (writer, {"source": source}, 403),
            (writer, {"source": f" {source}"}, 403),
            (writer, {"source": source, "run_id": sides.run}, 403),
            (writer, {"source": own, "run_id": sides.run}, 200),
            (admin, {"source": source}, 200),
        ):
            answer = client.post(f"{API}/model-versions/create", json=model | version)
            assert answer.status_code == status, answer.text


def test_nobody_names_the_files_of_another_trace(sides: Sides) -> None:
    info = {
        "trace_id": "tr-" + "1" * 32,
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": sides.experiment},
        },
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
        "tags": {"mlflow.traceName": "t"},
    }
    elsewhere = {"mlflow.artifactLocation": f"mlflow-artifacts:/{sides.other}/traces/t/artifacts"}
    begun = {"experiment_id": sides.experiment, "timestamp_ms": 1, "request_metadata": []}
    with sides.hot.client(WRITER) as writer, sides.hot.client() as admin:
        mine = writer.post(f"{API3}/traces", json={"trace": {"trace_info": info}})
        assert mine.status_code == 200, mine.text
        tags = [{"key": key, "value": value} for key, value in elsewhere.items()]
        for method, path, fields in (
            ("POST", f"{API3}/traces", {"trace": {"trace_info": {**info, "tags": elsewhere}}}),
            ("POST", f"{API}/traces", {**begun, "tags": tags}),
            ("PATCH", f"{API}/traces/{info['trace_id']}/tags", tags[0]),
            ("PATCH", f"{API3}/traces/{info['trace_id']}/tags", tags[0]),
        ):
            refused = writer.request(method, path, json=fields)
            assert refused.status_code == 403, (path, refused.text)
            assert "mlflow.artifactLocation" in refused.json()["message"]
        tagged = admin.patch(f"{API3}/traces/{info['trace_id']}/tags", json=tags[0])
        assert tagged.status_code == 200


class Asked:
    """Decides as MLflow would, and counts how often it is asked."""

    def __init__(self) -> None:
        self.now, self.count, self.granted = 0.0, 0, True
        self.permissions = Permissions(self.ask, clock=lambda: self.now)

    def ask(self, username: str, action: str, *, experiment_id: str, run_id: str) -> bool:
        self.count += 1
        return self.granted

    async def get(self, experiment: int = 1) -> bool:
        return await self.permissions.granted("ada", "read run", experiment, "r")


def test_mlflow_is_asked_again_after_a_time_and_after_a_change() -> None:
    asked = Asked()

    async def ask_often() -> None:
        assert [await asked.get(), await asked.get(), asked.count] == [True, True, 1]
        assert [await asked.get(2), asked.count] == [True, 2]
        asked.granted = False
        asked.now = REMEMBERED_SECONDS
        assert [await asked.get(), await asked.get(), asked.count] == [False, False, 3]
        asked.granted = True
        asked.permissions.forget()
        assert [await asked.get(), asked.count] == [True, 4]

    asyncio.run(ask_often())


def test_a_decision_from_before_a_change_serves_no_later_request() -> None:
    asked, changed = Asked(), Event()

    def slow(*_: object, **__: object) -> bool:
        granted = asked.granted
        changed.wait(10)
        return granted

    asked.permissions = Permissions(slow, clock=lambda: 0.0)

    async def change_meanwhile() -> list[bool]:
        before = asyncio.create_task(asked.get())
        await asyncio.sleep(0.05)
        asked.granted = False
        asked.permissions.forget()
        after = asyncio.create_task(asked.get())
        await asyncio.sleep(0.05)
        changed.set()
        return [await before, await after, await asked.get()]

    assert asyncio.run(change_meanwhile()) == [True, False, False]


def test_what_is_remembered_is_bounded() -> None:
    remembered = Remembered[int, int](clock=lambda: 0.0)
    for number in range(MAX_REMEMBERED + 1):
        remembered.put(number, number)
    assert (remembered.get(0), remembered.get(1)) == (None, 1)
