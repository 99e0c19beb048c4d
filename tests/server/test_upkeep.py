"""The upkeep job deletes what nothing needs any more, and archives traces that still open."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pg8000.native
import pytest
from aiohttp import web
from tracking_server.artifacts.repository import KeylessGCSArtifactRepository
from tracking_server.errors import BootError
from tracking_server.upkeep import settings
from tracking_server.upkeep.__main__ import stores
from tracking_server.upkeep.plan import Candidate, Key, Kind, Reference, own_folder, plan

from fake_google.sql.postgres import Postgres
from tests.server.conftest import (
    DATABASE_PASSWORD,
    DATABASE_USER,
    _google,
    container_environment,
    made_database,
    started,
)
from tests.server.google import BUCKET, Google
from tests.server.parity.calls.traces import spans

ROOT = f"gs://{BUCKET}"
DAYS = 30
TRACES = "/api/3.0/mlflow/traces"
OLD, NEW = f"tr-{'a' * 32}", f"tr-{'b' * 32}"
ATTACHED, SHARED = f"tr-{'c' * 32}", f"tr-{'d' * 32}"
RUN, OTHER, MODEL = "1" * 32, "2" * 32, f"m-{'3' * 32}"


def candidate(
    kind: Kind, id_: str, *, experiment: str = "7", location: str | None = None
) -> Candidate:
    folder = f"mlflow-artifacts:/{experiment}/{id_}/artifacts"
    return Candidate(
        key=Key(kind, id_),
        name="",
        experiment=experiment,
        deleted=True,
        location=folder if location is None else location,
    )


def planned(found: list[Candidate], *references: Reference) -> set[str]:
    return {each.key.id for each in plan(found, references, root=ROOT).delete}


def test_what_stays_keeps_what_it_needs() -> None:
    run, model, experiment = Key("run", RUN), Key("logged model", MODEL), Key("experiment", "7")
    found = [
        candidate("run", RUN),
        candidate("logged model", MODEL),
        candidate("experiment", "7"),
    ]
    inside = [Reference(run, experiment, "inside"), Reference(model, experiment, "inside")]
    from_run = Reference(model, run, "comes from it")
    assert planned(found, from_run, *inside) == {RUN, MODEL, "7"}
    # One version of a registered model keeps its model, the model's run, and their experiment.
    assert planned(found, from_run, *inside, Reference(None, model, "a version")) == set()
    assert planned(found, Reference(None, run, "a version"), *inside) == {MODEL}
    newer = Reference(Key("run", OTHER), experiment, "a run that was restored")
    assert planned(found, from_run, *inside, newer) == {RUN, MODEL}


@pytest.mark.parametrize(
    ("location", "own"),
    [
        (f"mlflow-artifacts:/7/{RUN}/artifacts", True),
        (f"{ROOT}/7/{RUN}/artifacts", True),
        (f"{ROOT}/{RUN}/artifacts", True),
        (f"{ROOT}/7/{RUN}", False),
        (f"{ROOT}/7/{OTHER}/artifacts", False),
        (f"{ROOT}/7/../{RUN}/artifacts", False),
        (f"{ROOT}/7//{RUN}/artifacts", False),
        (f"{ROOT}-other/7/{RUN}/artifacts", False),
        (f"mlflow-artifacts://elsewhere/7/{RUN}/artifacts", False),
        (f"s3://{BUCKET}/7/{RUN}/artifacts", False),
        (f"file:/7/{RUN}/artifacts", False),
        ("", False),
    ],
)
def test_only_artifacts_in_their_usual_folder_are_deleted(location: str, own: bool) -> None:
    assert own_folder(candidate("run", RUN, location=location), ROOT) is own
    assert planned([candidate("run", RUN, location=location)]) == ({RUN} if own else set())


GIVEN = {
    "GCP_PROJECT": "my-project",
    "ARTIFACT_URL_SECRET": "mlflow_artifact_url/versions/1",
    "DATABASE_URL_SECRET": "mlflow_database_url/versions/1",
}


def test_everything_is_off_by_default() -> None:
    assert settings.load(GIVEN).cleanup_after_days == 0
    assert settings.load(GIVEN).archive_traces_after_days == 0


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"GCP_PROJECT": ""}, "GCP_PROJECT"),
        ({"DATABASE_URL_SECRET": "canary"}, "DATABASE_URL_SECRET is not a secret's version"),
        ({"CLEANUP_AFTER_DAYS": "-1"}, "from 0 to 3650"),
        ({"ARCHIVE_TRACES_AFTER_DAYS": "3651"}, "from 0 to 3650"),
    ],
)
def test_invalid_settings_are_named(changed: dict[str, str], says: str) -> None:
    with pytest.raises(BootError, match=says) as refused:
        settings.load({**GIVEN, **changed})
    assert "canary" not in str(refused.value)


def test_the_secrets_that_cannot_be_used_are_named(google: Google) -> None:
    unusable = settings.load(
        {
            **GIVEN,
            **google.environment,
            "ARTIFACT_URL_SECRET": google.store("canary"),
            "DATABASE_URL_SECRET": "nothing/versions/1",
            "BOOT_PATIENCE": "0",
        }
    )
    with pytest.raises(BootError, match="nothing/versions/1 .*must hold a bucket's") as refused:
        stores(unusable)
    assert "canary" not in str(refused.value)


class Seed:
    """Data on a server, and the ids of what a cleanup is to delete and to keep."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.delete: set[str] = set()
        self.keep: set[str] = set()
        self.recent = self.traced = ""
        self.contents: list[list[str]] = []
        self.names = 0

    def post(self, what: str, **body: Any) -> Any:
        answer = self._client.post(f"/api/2.0/mlflow/{what}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def experiment(self, **more: Any) -> str:
        self.names += 1
        return str(self.post("experiments/create", name=f"e{self.names}", **more)["experiment_id"])

    def run(self, experiment: str) -> str:
        run = self.post("runs/create", experiment_id=experiment)["run"]["info"]
        self.put(run["artifact_uri"])
        return str(run["run_id"])

    def model(self, experiment: str, source: str = "") -> str:
        created = self.post("logged-models", experiment_id=experiment, source_run_id=source)
        info = created["model"]["info"]
        self.put(info["artifact_uri"])
        return str(info["model_id"])

    def put(self, location: str) -> None:
        path = location.removeprefix("mlflow-artifacts:")
        answer = self._client.put(
            f"/api/2.0/mlflow-artifacts/artifacts{path}/notes", content=b"notes"
        )
        assert answer.status_code == 200, answer.text

    def version(self, source: str, **of: str) -> None:
        self.names += 1
        name = f"model-{self.names}"
        self.post("registered-models/create", name=name)
        self.post("model-versions/create", name=name, source=source, **of)

    def trace(self, trace: str, *, at: int) -> None:
        headers = {"x-mlflow-experiment-id": self.traced, "content-type": "application/json"}
        answer = self._client.post("/v1/traces", content=spans(trace, at=at), headers=headers)
        assert answer.status_code == 200, answer.text

    def delete_run(self, run: str) -> str:
        self.post("runs/delete", run_id=run)
        return run

    def delete_model(self, model: str) -> str:
        answer = self._client.delete(f"/api/2.0/mlflow/logged-models/{model}")
        assert answer.status_code == 200, answer.text
        return model


def seeded(seed: Seed) -> None:
    """Delete one of everything that a cleanup may find."""
    lab = seed.experiment()
    seed.delete.add(seed.delete_run(seed.run(lab)))
    seed.delete.add(seed.delete_model(seed.model(lab)))
    of_version = seed.run(lab)
    seed.version(f"mlflow-artifacts:/{lab}/{of_version}/artifacts/notes", run_id=of_version)
    of_model = seed.run(lab)
    seed.model(lab, of_model)
    registered = seed.model(lab)
    seed.version(f"models:/{registered}", model_id=registered)
    around = seed.run(lab)
    seed.experiment(artifact_location=f"mlflow-artifacts:/{lab}/{around}/artifacts/more")
    data = seed.run(lab)
    source = json.dumps({"uri": f"mlflow-artifacts:/{lab}/{data}/artifacts/table.parquet"})
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": source}
    seed.post("runs/log-inputs", run_id=seed.run(lab), datasets=[{"dataset": dataset}])
    seed.keep |= {seed.delete_run(run) for run in (of_version, of_model, around, data)}
    seed.keep.add(seed.delete_model(registered))

    whole = seed.experiment()
    run = seed.run(whole)
    seed.delete |= {whole, run, seed.model(whole, run)}
    seed.put(f"mlflow-artifacts:/{whole}/traces/{ATTACHED}/artifacts/attachments")
    seed.post("experiments/delete", experiment_id=whole)
    shared = seed.experiment()
    seed.put(f"mlflow-artifacts:/{shared}/traces/{SHARED}/artifacts/attachments")
    seed.experiment(artifact_location=f"mlflow-artifacts:/{shared}/traces")
    seed.post("experiments/delete", experiment_id=shared)
    seed.delete.add(shared)
    restored = seed.experiment()
    run = seed.run(restored)
    seed.post("experiments/delete", experiment_id=restored)
    seed.post("runs/restore", run_id=run)
    seed.keep.add(restored)


def job(environment: dict[str, str], *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Runs the job as Cloud Run does. Returns its exit code and its log."""
    done = subprocess.run(
        [sys.executable, "-m", "tracking_server.upkeep", *arguments],
        env={
            "PATH": os.defpath,
            "CLEANUP_AFTER_DAYS": str(DAYS),
            "ARCHIVE_TRACES_AFTER_DAYS": str(DAYS),
            **environment,
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def said(log: list[dict[str, Any]], what: str) -> set[str]:
    return {entry["id"] for entry in log if entry.get("cleanup") == what}


Old = tuple[Seed, dict[str, str], httpx.Client, pg8000.native.Connection]


@pytest.fixture(scope="module")
def old(
    postgres: Postgres, cloudsql_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Old]:
    """A server where everything that is deleted was deleted long ago."""
    environment = container_environment(_google, made_database(postgres, "upkeep"), cloudsql_root)
    database = pg8000.native.Connection(
        DATABASE_USER,
        unix_sock=str(postgres.socket()),
        password=DATABASE_PASSWORD,
        database="upkeep",
    )
    folder = tmp_path_factory.mktemp("upkeep")
    with started(folder, forked=True) as start, closing(database):
        server = start(environment).ready()
        with server.client() as client:
            seed = Seed(client)
            seeded(seed)
            for table, column in (
                ("runs", "deleted_time"),
                ("experiments", "last_update_time"),
                ("logged_models", "last_updated_timestamp_ms"),
            ):
                database.run(
                    f"UPDATE {table} SET {column} = {column} - :age "  # noqa: S608
                    "WHERE lifecycle_stage = 'deleted'",
                    age=(DAYS + 1) * 24 * 3600 * 1000,
                )
            # Deleted only now.
            seed.recent = seed.delete_run(seed.run(seed.experiment()))
            seed.traced = seed.experiment()
            for trace, at in ((OLD, 10), (NEW, int(time.time() * 1000))):
                seed.trace(trace, at=at)
            seed.contents = database.run(
                "SELECT span_id, content FROM spans WHERE trace_id = :trace", trace=OLD
            )
            yield seed, environment, client, database


def stored(ids: set[str]) -> set[str]:
    """Returns which of the ids are in the name of an object in the bucket."""
    names = [each.attributes["name"] for each in _google.objects.below(BUCKET, after="", prefix="")]
    return {id_ for id_ in ids for name in names if f"/{id_}/" in f"/{name}"}


def rows(database: pg8000.native.Connection) -> set[str]:
    found = database.run(
        "SELECT run_uuid FROM runs UNION SELECT model_id FROM logged_models "
        "UNION SELECT experiment_id::text FROM experiments"
    )
    return {row[0] for row in found}


@dataclass
class Ran:
    """A run of the job: its log, and the data before it."""

    seed: Seed
    environment: dict[str, str]
    client: httpx.Client
    database: pg8000.native.Connection
    log: list[dict[str, Any]]
    before: tuple[set[str], set[str], dict[str, Any]]

    def now(self) -> tuple[set[str], set[str], dict[str, Any]]:
        everything = self.seed.delete | self.seed.keep | {self.seed.recent}
        # An experiment itself has no artifacts.
        with_artifacts = {id_ for id_ in everything if len(id_) >= len(RUN)}
        traces = opened(self.client, self.seed.traced)
        return rows(self.database), stored(with_artifacts), traces

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.log]


def ran(old: Old, *arguments: str) -> Ran:
    seed, environment, client, database = old
    result = Ran(seed, environment, client, database, [], (set(), set(), {}))
    result.before = result.now()
    code, result.log = job(environment, *arguments)
    assert code == 0, result.log
    return result


@pytest.fixture(scope="module")
def dry_run(old: Old) -> Ran:
    return ran(old, "--dry-run")


@pytest.fixture(scope="module")
def run(old: Old, dry_run: Ran) -> Ran:
    """A real run, after the dry run."""
    assert dry_run.now() == dry_run.before
    return ran(old)


def test_a_dry_run_lists_and_changes_nothing(dry_run: Ran) -> None:
    assert said(dry_run.log, "would delete") == dry_run.seed.delete
    assert said(dry_run.log, "kept") == dry_run.seed.keep
    assert "archive: would move the spans of 1 traces" in dry_run.messages()


def test_a_cleanup_deletes_only_what_nothing_needs(run: Ran) -> None:
    seed = run.seed
    assert said(run.log, "deleted") == seed.delete
    assert said(run.log, "kept") == seed.keep
    found, artifacts, _ = run.now()
    assert found == run.before[0] - seed.delete >= seed.keep | {seed.recent}
    assert artifacts == {id_ for id_ in seed.keep | {seed.recent} if len(id_) >= len(RUN)}
    # Attachments stay if another experiment has artifacts in the same folder.
    assert stored({ATTACHED, SHARED}) == {SHARED}


BY_TEXT = "trace.text LIKE '%2+2%'"
SEARCHES = {
    "by state": "trace.status = 'OK'",
    "by time": "trace.timestamp_ms < 1000",
    "by a span's name": "span.name = 'child'",
}


def searched(client: httpx.Client, experiment: str, filter_: str) -> list[str]:
    here = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    answer = client.post(f"{TRACES}/search", json={"locations": [here], "filter": filter_})
    assert answer.status_code == 200, answer.text
    return sorted(each["trace_id"] for each in answer.json().get("traces", ()))


def opened(client: httpx.Client, experiment: str) -> dict[str, Any]:
    """Returns what the page asks for about the traces, without the tags that archival sets."""
    found: dict[str, Any] = {
        name: searched(client, experiment, filter_) for name, filter_ in SEARCHES.items()
    }
    for trace in (OLD, NEW):
        answers = [
            client.get(f"{TRACES}/get", params={"trace_id": trace}),
            client.get(f"{TRACES}/batchGet", params={"trace_ids": [trace]}),
            client.get("/ajax-api/2.0/mlflow/get-trace-artifact", params={"request_id": trace}),
        ]
        assert [answer.status_code for answer in answers] == [200] * 3
        one, [several], shown = (
            answers[0].json()["trace"],
            answers[1].json()["traces"],
            answers[2].json(),
        )
        for each in (one, several):
            for tag in ("mlflow.trace.spansLocation", "mlflow.trace.archiveLocation"):
                each["trace_info"]["tags"].pop(tag, None)
        found[trace] = [one, several, shown]
    return found


def in_database(database: pg8000.native.Connection, trace: str) -> int:
    """Returns how many bytes of a trace's spans are in the database."""
    [[size]] = database.run(
        "SELECT sum(length(content)) FROM spans WHERE trace_id = :trace", trace=trace
    )
    return int(size)


def test_archived_traces_open_and_are_found_as_before(run: Ran, google: Google) -> None:
    client, database, experiment = run.client, run.database, run.seed.traced
    before = run.before[2]
    assert before["by a span's name"] == before["by state"] == [OLD, NEW]
    assert archived(run.log) == [1]
    assert in_database(database, OLD) == 0 < in_database(database, NEW)
    assert opened(client, experiment) == before
    # Searches in what spans contain look only at the database.
    assert searched(client, experiment, BY_TEXT) == [NEW]

    # The object in the bucket has the only copy of the spans: it can be restored, and an outage of
    # the bucket isn't mistaken for its absence.
    name = f"trace-archive/{experiment}/traces/{OLD}/artifacts/traces.pb"
    payload = KeylessGCSArtifactRepository(ROOT).blob(name).download_as_bytes()
    KeylessGCSArtifactRepository(ROOT).delete_artifacts(name)
    empty = client.get(f"{TRACES}/get", params={"trace_id": OLD})
    assert (empty.status_code, empty.json()["trace"].get("spans", [])) == (200, [])
    KeylessGCSArtifactRepository(ROOT).blob(name).upload_from_string(payload)
    assert opened(client, experiment) == before
    google.fault = forbidden
    assert client.get(f"{TRACES}/get", params={"trace_id": OLD}).status_code >= 400
    google.fault = None

    # A restored database has the spans, and the job archives them again.
    database.run("DELETE FROM trace_tags WHERE key = 'mlflow.trace.archiveLocation'")
    database.run(
        "UPDATE trace_tags SET value = 'TRACKING_STORE' "
        "WHERE key = 'mlflow.trace.spansLocation' AND value = 'ARCHIVE_REPO'"
    )
    for span, content in run.seed.contents:
        database.run(
            "UPDATE spans SET content = :content WHERE trace_id = :trace AND span_id = :span",
            content=content,
            trace=OLD,
            span=span,
        )
    code, log = job(run.environment)
    assert (code, archived(log), said(log, "deleted")) == (0, [1], set())
    assert opened(client, experiment) == before


def archived(log: list[dict[str, Any]]) -> list[int]:
    return [entry["archived"] for entry in log if "archived" in entry]


async def forbidden(_: web.Request) -> web.StreamResponse | None:
    return web.Response(status=403)
