"""Files from MLflow's own handlers are streamed, with the same response as for a local file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from aiohttp import web

from tests.server.google import BUCKET, Google
from tests.server.process import Server

ROOT = Path(__file__).parents[2]
LARGE = os.urandom(5_000_001)
FILES = {
    "notes.txt": b"a line\nanother\n",
    "sub/deep/page.html": b"<script>alert(1)</script>",
    "MLmodel": b"flavors: {}\n",
    "plot.png": b"\x89PNG not really",
    "empty.bin": b"",
    "large.bin": LARGE,
    "ü a+b&c.csv": b"1,2\n",
}
ATTACHMENT = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
CHANGING = {"date", "etag", "last-modified"}
"""Headers that differ for each copy of a file."""


@dataclass
class Both:
    """The whole server, and MLflow's handlers without our streaming, on one database and bucket."""

    ours: httpx.Client
    mlflows: httpx.Client

    def post(self, path: str, **body: Any) -> Any:
        answer = self.mlflows.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put(self, address: str, content: bytes) -> None:
        path = quote(address.removeprefix("mlflow-artifacts:/"))
        address = f"/api/2.0/mlflow-artifacts/artifacts/{path}"
        assert self.ours.put(address, content=content).status_code == 200

    def same(
        self,
        address: str,
        /,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        **params: str,
    ) -> httpx.Response:
        """Returns our response, after checking that it equals MLflow's."""
        ours, mlflows = (
            client.request(method, address, params=params, headers=headers)
            for client in (self.ours, self.mlflows)
        )
        assert ours.status_code == mlflows.status_code, (ours.text, mlflows.text)
        assert ours.content == mlflows.content
        assert set(ours.headers) == set(mlflows.headers)
        for name in set(ours.headers) - CHANGING:
            assert ours.headers[name] == mlflows.headers[name], name
        return ours


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def both(shared_environment: dict[str, str], folder: Path) -> Iterator[Both]:
    (folder / "tmp").mkdir()
    environment = {**shared_environment, "PYTHONPATH": str(ROOT)}
    servers = [
        Server({**environment, "TMPDIR": str(folder / "tmp")}, folder, forked=True),
        Server(environment, folder, module="tests.server.unfilled"),
    ]
    try:
        for server in servers:
            server.ready()
        ours, mlflows = (server.client() for server in servers)
        with ours, mlflows:
            yield Both(ours, mlflows)
    finally:
        for server in servers:
            server.stop()


@dataclass(frozen=True)
class Made:
    """A run with every file, version 1 of the model `m` in its folder `sub`, and so on."""

    run: str
    logged_model: str
    trace: str


@pytest.fixture(scope="module")
def made(both: Both) -> Made:
    api = "/api/2.0/mlflow"
    experiment = both.post(f"{api}/experiments/create", name="e")["experiment_id"]
    run = both.post(f"{api}/runs/create", experiment_id=experiment)["run"]["info"]
    for name, content in FILES.items():
        both.put(f"{run['artifact_uri']}/{name}", content)
    both.post(f"{api}/registered-models/create", name="m")
    source = f"{run['artifact_uri']}/sub"
    both.post(f"{api}/model-versions/create", name="m", source=source, run_id=run["run_id"])
    logged = both.post(f"{api}/logged-models", experiment_id=experiment, name="l")["model"]["info"]
    both.put(f"{logged['artifact_uri']}/data/weights.bin", LARGE)
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    info = {
        "trace_id": "tr-00000000000000000000000000000001",
        "trace_location": location,
        "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
    }
    trace = both.post("/api/3.0/mlflow/traces", trace={"trace_info": info})["trace"]["trace_info"]
    both.put(f"{trace['tags']['mlflow.artifactLocation']}/attachments/{ATTACHMENT}", LARGE)
    both.put(f"{trace['tags']['mlflow.artifactLocation']}/traces.json", b'{"spans": []}')
    return Made(
        run=run["run_id"],
        logged_model=logged["model_id"],
        trace=trace["trace_id"],
    )


def test_downloads_have_the_same_response_as_mlflows(both: Both, made: Made, folder: Path) -> None:
    untouched = (folder / "tmp").stat().st_mtime_ns
    of_model = f"/ajax-api/2.0/mlflow/logged-models/{made.logged_model}/artifacts/files"
    of_large = {"run_id": made.run, "path": "large.bin"}
    for name, content in FILES.items():
        answer = both.same("/get-artifact", run_id=made.run, path=name)
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["content-disposition"].startswith("attachment; filename=")
        assert answer.headers["x-content-type-options"] == "nosniff"
    deep = both.same("/model-versions/get-artifact", name="m", version="1", path="deep/page.html")
    assert deep.content == FILES["sub/deep/page.html"]
    assert both.same(of_model, artifact_file_path="data/weights.bin").content == LARGE
    for version in ("2.0", "3.0"):
        of_trace = f"/ajax-api/{version}/mlflow/get-trace-artifact"
        attached = both.same(of_trace, request_id=made.trace, path=ATTACHMENT)
        assert (attached.status_code, attached.content) == (200, LARGE)
        assert both.same(of_trace, request_id=made.trace).content == b'{"spans": []}'
    assert both.same("/get-artifact", method="HEAD", **of_large).content == b""
    proxied = f"/api/2.0/mlflow-artifacts/artifacts/1/{made.run}/artifacts/large.bin"
    assert both.same(proxied, method="HEAD").headers["content-length"] == str(len(LARGE))

    for wanted, status in (
        ("bytes=2-5", 206),
        ("bytes=4000000-", 206),
        ("bytes=-3", 206),
        ("bytes=9999999-", 416),
        ("bytes=1-2,5-6", 416),
        ("lines=1-2", 416),
    ):
        part = both.same("/get-artifact", {"Range": wanted}, **of_large)
        assert part.status_code == status, (wanted, part.status_code)
        if status == 206:
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else -int(last)
            assert part.content == LARGE[start : int(last) + 1 if first and last else None]
    # No file was written to the directory for temporary files.
    assert (folder / "tmp").stat().st_mtime_ns == untouched


def test_refusals_are_the_same_as_mlflows(both: Both, made: Made) -> None:
    of_run, of_version = "/get-artifact", "/model-versions/get-artifact"
    of_model = "/ajax-api/2.0/mlflow/logged-models/{}/artifacts/files"
    of_trace = "/ajax-api/3.0/mlflow/get-trace-artifact"
    for path, status, params in (
        (of_run, 400, {}),
        (of_run, 400, {"run_id": made.run}),
        (of_run, 404, {"run_id": "missing", "path": "x"}),
        (of_run, 400, {"run_id": made.run, "path": "../x"}),
        (of_run, 400, {"run_id": made.run, "path": "%2e%2e/x"}),
        (of_run, 400, {"run_id": made.run, "path": "sub"}),
        (of_run, 400, {"run_id": made.run, "path": ""}),
        (of_version, 404, {"name": "m", "version": "9", "path": "x"}),
        (of_version, 400, {"name": "m", "version": "1", "path": "deep"}),
        (of_model.format("missing"), 404, {"artifact_file_path": "x"}),
        (of_model.format(made.logged_model), 400, {}),
        (of_model.format(made.logged_model), 400, {"artifact_file_path": "data"}),
        (of_trace, 400, {}),
        (of_trace, 404, {"request_id": "tr-missing", "path": ATTACHMENT}),
        (of_trace, 400, {"request_id": made.trace, "path": "../x"}),
    ):
        assert both.same(path, **params).status_code == status, (path, params)
    for path, params in (
        (of_run, {"run_id": made.run}),
        (of_version, {"name": "m", "version": "1"}),
    ):
        answer = both.ours.get(path, params=params | {"path": "missing"})
        # MLflow's message for a folder; for a bucket it adds details about its own copying.
        assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert answer.json()["message"].startswith("No such artifact: ")


def test_a_response_can_be_cached_until_the_object_changes(both: Both, made: Made) -> None:
    of_notes = {"run_id": made.run, "path": "kept.txt"}
    both.put(f"mlflow-artifacts:/1/{made.run}/artifacts/kept.txt", b"first")
    first = both.ours.get("/get-artifact", params=of_notes)
    known = {"If-None-Match": first.headers["etag"]}
    kept = both.ours.get("/get-artifact", params=of_notes, headers=known)
    assert (kept.status_code, kept.content) == (304, b"")
    both.put(f"mlflow-artifacts:/1/{made.run}/artifacts/kept.txt", b"changed")
    changed = both.ours.get("/get-artifact", params=of_notes, headers=known)
    assert (changed.status_code, changed.content) == (200, b"changed")


def test_a_bucket_that_fails_between_the_headers_and_the_bytes(
    both: Both, made: Made, google: Google
) -> None:
    async def refuse(request: web.Request) -> web.Response | None:
        # Only the object's content fails, not its description.
        return web.Response(status=403) if request.path.startswith(f"/{BUCKET}/") else None

    google.fault = refuse
    answer = both.ours.get("/get-artifact", params={"run_id": made.run, "path": "notes.txt"})
    assert (answer.status_code, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")
