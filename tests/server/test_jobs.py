"""The worker runs the jobs that are submitted to the server, and those that another has lost."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pg8000.native
import pytest
from aiohttp import web
from starlette.types import Receive, Scope, Send
from tracking_server.errors import BootError
from tracking_server.gate.callbacks import Callbacks
from tracking_server.jobs import settings

from fake_google.endpoints import Endpoints
from fake_google.sql.postgres import Postgres
from tests.reaper import reap_process
from tests.server.conftest import (
    DATABASE_PASSWORD,
    DATABASE_USER,
    _google,
    container_environment,
    made_database,
    started,
)
from tests.server.exchange import Exchange
from tests.server.parity.calls.traces import spans
from tests.server.process import eventually

KEY = "canary-key"
GATEWAY = "/api/3.0/mlflow/gateway"
PAGE = "/ajax-api/3.0/mlflow"
JUDGE = json.dumps(
    {
        "name": "polite",
        "aggregations": [],
        "mlflow_version": "3.17.2",
        "serialization_version": 1,
        "instructions_judge_pydantic_data": {
            "instructions": "Is {{ inputs }} polite? Answer true or false.",
            "model": "gateway:/judge",
        },
    }
)
CUSTOM = json.dumps(
    {
        "name": "custom",
        "mlflow_version": "3.17.2",
        "serialization_version": 1,
        "call_source": "return True",
        "call_signature": "(outputs)",
        "original_func_name": "custom",
    }
)
ENDED = {"SUCCEEDED", "FAILED", "TIMEOUT", "CANCELED"}


def reply(schema: str) -> Any:
    """Returns what the model says to a request for a response of this schema."""
    match schema:
        case "_ClusterResponse":
            return {"groups": [{"name": "rude", "indices": [0]}]}
        case "_IdentifiedIssue":
            return {
                "name": "Issue: Rude answers",
                "description": "The answers are rude",
                "root_cause": "The prompt",
                "category_rationale": "It is rude",
                "severity": "high",
                "categories": ["correctness"],
                "example_indices": [0],
            }
        case "":
            return "rude"
    return {"result": False, "rationale": "It is rude"}


class Model:
    """An OpenAI-compatible model on this computer, whose responses can be held back."""

    def __init__(self) -> None:
        self._endpoints = Endpoints()
        self.url = self._endpoints.serve(self._answer)
        self.schemas: list[str] = []
        self.waiting = 0
        self.free = threading.Event()
        self.free.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        asked = await request.json()
        schema = asked.get("response_format", {}).get("json_schema", {}).get("name", "")
        self.schemas.append(schema)
        self.waiting += 1
        await asyncio.to_thread(self.free.wait)
        self.waiting -= 1
        said = reply(schema)
        message = {
            "role": "assistant",
            "content": said if isinstance(said, str) else json.dumps(said),
        }
        return web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )


@dataclass
class Worker:
    """The worker's process, as the container starts it."""

    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._log = self.folder / f"worker-{time.monotonic_ns()}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tracking_server.jobs"],
                env={"PATH": os.defpath, **self.environment},
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        reap_process(self.process.pid)

    def entries(self) -> list[dict[str, Any]]:
        """Returns all logged lines; fails if one isn't JSON."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def shown(self) -> str:
        """Returns what others can see of the worker's processes."""
        if sys.platform != "linux":
            return ""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return "".join(
            Path("/proc", pid, file).read_text()
            for pid in [str(self.process.pid), *children.split()]
            for file in ("environ", "cmdline")
        )


@dataclass
class Stack:
    """A server with jobs, its database, and a model that its gateway has as an endpoint."""

    client: httpx.Client
    database: pg8000.native.Connection
    model: Model
    environment: dict[str, str]
    folder: Path
    experiments: int = 0

    def worker(self) -> Worker:
        return Worker(self.environment, self.folder)

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def traced(self) -> tuple[str, str]:
        """Returns a new experiment, and a trace in it that began a minute ago."""
        self.experiments += 1
        name = f"e{self.experiments}"
        experiment = self.post("/api/2.0/mlflow/experiments/create", name=name)["experiment_id"]
        trace = f"tr-{os.urandom(16).hex()}"
        headers = {"x-mlflow-experiment-id": experiment, "content-type": "application/json"}
        content = spans(trace, at=int(1000 * (time.time() - 60)))
        answer = self.client.post("/v1/traces", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        return experiment, trace

    def judge(self, experiment: str, trace: str) -> str:
        """Starts a judge as the page does. Returns its job."""
        [job] = self.post(
            f"{PAGE}/scorer/invoke",
            experiment_id=experiment,
            serialized_scorer=JUDGE,
            trace_ids=[trace],
            log_assessments=True,
        )["jobs"]
        return str(job["job_id"])

    def job(self, job: str) -> Any:
        answer = self.client.get(f"/ajax-api/3.0/jobs/{job}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ended(self, job: str) -> Any:
        assert eventually(lambda: self.job(job)["status"] in ENDED, seconds=600), self.job(job)
        return self.job(job)

    def assessments(self, trace: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/3.0/mlflow/traces/{trace}")
        assert answer.status_code == 200, answer.text
        found = answer.json()["trace"]["trace_info"].get("assessments", [])
        return {each["assessment_name"]: each.get("feedback", {}).get("value") for each in found}


@pytest.fixture(scope="module")
def stack(
    postgres: Postgres, cloudsql_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    environment = container_environment(_google, made_database(postgres, "jobs"), cloudsql_root) | {
        "JOBS": "1",
        # The model is on this computer.
        "INTERNAL_NETWORKS": "127.0.0.0/8",
        "MLFLOW_MODEL_CATALOG_URI": "",
    }
    folder = tmp_path_factory.mktemp("jobs")
    database = pg8000.native.Connection(
        DATABASE_USER,
        unix_sock=str(postgres.socket()),
        password=DATABASE_PASSWORD,
        database="jobs",
    )
    model = Model()
    with (
        started(folder, forked=True) as start,
        closing(database),
        start(environment).ready().client() as client,
    ):
        made = Stack(client, database, model, environment, folder)
        secret = made.post(
            f"{GATEWAY}/secrets/create",
            secret_name="key",
            secret_value={"api_key": KEY},
            provider="openai",
            auth_config={"api_base": f"{model.url}/v1"},
        )["secret"]["secret_id"]
        definition = made.post(
            f"{GATEWAY}/model-definitions/create",
            name="judge",
            provider="openai",
            model_name="m",
            secret_id=secret,
        )["model_definition"]["model_definition_id"]
        linked = {"model_definition_id": definition, "linkage_type": "PRIMARY", "weight": 1.0}
        made.post(f"{GATEWAY}/endpoints/create", name="judge", model_configs=[linked])
        yield made


@dataclass
class Lost:
    """A worker that was killed while it ran a job."""

    job: str
    trace: str
    cancelled: str
    hopeless: str
    shown: str


@pytest.fixture(scope="module")
def lost(stack: Stack) -> Lost:
    """A job that was running when its worker was killed, and one that was cancelled before.

    Another has lost its worker twice already.
    """
    experiment, trace = stack.traced()
    worker = stack.worker()
    stack.model.free.clear()
    job, cancelled = stack.judge(experiment, trace), stack.judge(*stack.traced())
    assert eventually(lambda: stack.model.waiting == 2, seconds=600), worker.entries()
    stack.client.patch(f"/ajax-api/3.0/jobs/cancel/{cancelled}").raise_for_status()
    ends = "finished with status CANCELED"
    assert eventually(lambda: any(ends in each["message"] for each in worker.entries()))
    shown = worker.shown()
    worker.process.kill()
    worker.process.wait()
    stack.model.free.set()
    hopeless = stack.judge(*stack.traced())
    stack.database.run(
        "UPDATE jobs SET status = 1, retry_count = 2, lease_expires_at = 0 WHERE id = :id",
        id=hopeless,
    )
    # As if its lease had ended a minute ago.
    stack.database.run("UPDATE jobs SET lease_expires_at = lease_expires_at - 120000")
    return Lost(job, trace, cancelled, hopeless, shown)


@pytest.fixture(scope="module")
def worker(stack: Stack, lost: Lost) -> Iterator[Worker]:
    """The next worker."""
    running = stack.worker()
    yield running
    running.process.kill()


def test_a_job_finishes_whose_worker_was_killed(stack: Stack, lost: Lost, worker: Worker) -> None:
    done = stack.ended(lost.job)
    assert (done["status"], done["retry_count"]) == ("SUCCEEDED", 1), worker.entries()
    assert stack.assessments(lost.trace) == {"polite": False}
    assert any("was lost with its worker" in each["message"] for each in worker.entries())


def test_a_job_fails_that_ends_its_workers(stack: Stack, lost: Lost, worker: Worker) -> None:
    done = stack.ended(lost.hopeless)
    assert done["status"] == "FAILED"
    assert "The worker ended 3 times" in done["error_message"]


def test_a_cancelled_job_ends(stack: Stack, lost: Lost, worker: Worker) -> None:
    assert stack.job(lost.cancelled)["status"] == "CANCELED"


def test_new_traces_are_evaluated_automatically(stack: Stack, worker: Worker) -> None:
    experiment, trace = stack.traced()
    registered = {"experiment_id": experiment, "name": "polite", "serialized_scorer": JUDGE}
    stack.post("/api/3.0/mlflow/scorers/register", **registered)
    rate = {"experiment_id": experiment, "name": "polite", "sample_rate": 1}
    stack.client.put(f"{PAGE}/scorers/online-config", json=rate).raise_for_status()
    assert eventually(lambda: bool(stack.assessments(trace)), seconds=600), worker.entries()
    assert stack.assessments(trace) == {"polite": False}


def test_a_run_with_judges_is_finished(stack: Stack, worker: Worker) -> None:
    experiment, trace = stack.traced()
    told = stack.post(
        f"{PAGE}/genai/evaluate/invoke",
        experiment_id=experiment,
        serialized_scorers=[JUDGE],
        trace_ids=[trace],
    )
    assert stack.ended(told["job_id"])["status"] == "SUCCEEDED", worker.entries()
    run = stack.client.get("/api/2.0/mlflow/runs/get", params={"run_id": told["run_id"]}).json()
    assert run["run"]["info"]["status"] == "FINISHED"
    assert stack.assessments(trace) == {"polite": False}


def test_an_issue_is_detected(stack: Stack, worker: Worker) -> None:
    experiment, trace = stack.traced()
    asked = {
        "experiment_id": experiment,
        "trace_ids": [trace],
        "categories": ["correctness"],
        "provider": "openai",
    }
    told = stack.post(f"{PAGE}/issues/invoke", endpoint_name="judge", **asked)
    done = stack.ended(told["job_id"])
    assert done["status"] == "SUCCEEDED", (done, stack.model.schemas)
    assert done["result"]["issues"] == 1
    refused = stack.client.post(f"{PAGE}/issues/invoke", json={**asked, "secret_id": "s"})
    assert refused.status_code == 501


def test_custom_scorers_are_refused(stack: Stack) -> None:
    experiment, trace = stack.traced()
    for path, body in (
        ("scorer/invoke", {"serialized_scorer": CUSTOM}),
        ("genai/evaluate/invoke", {"serialized_scorers": [CUSTOM]}),
    ):
        answer = stack.client.post(
            f"{PAGE}/{path}", json={"experiment_id": experiment, "trace_ids": [trace], **body}
        )
        assert answer.status_code == 400, answer.text
    assert stack.database.run("SELECT 1 FROM jobs WHERE params LIKE '%call_source%'") == []


def test_no_secret_is_shown(lost: Lost, worker: Worker) -> None:
    """Every line of the log is JSON, and neither it nor a process shows a secret."""
    for text in (lost.shown, worker.shown(), json.dumps(worker.entries())):
        assert "canary" not in text


def test_a_worker_stops_within_ten_seconds(stack: Stack, worker: Worker) -> None:
    """The job that it runs is handed back at once. Last, because it ends the worker."""
    stack.model.free.clear()
    job = stack.judge(*stack.traced())
    assert eventually(lambda: stack.model.waiting == 1, seconds=600), worker.entries()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0, worker.entries()
    assert stack.job(job)["status"] == "NEEDS_RECOVERY"
    stack.model.free.set()
    failed = [each for each in worker.entries() if "stack_trace" in each]
    assert not failed, failed


# ---- without a worker --------------------------------------------------------------------------

GIVEN = {
    "GCP_PROJECT": "my-project",
    "ARTIFACT_URL_SECRET": "mlflow_artifact_url/versions/1",
    "DATABASE_URL_SECRET": "mlflow_database_url/versions/1",
    "KEK_PASSPHRASE_SECRET": "mlflow_kek_passphrase/versions/3",
}


def test_the_settings_are_read() -> None:
    assert settings.load(GIVEN).kek_version == 3


@pytest.mark.parametrize("key", GIVEN)
def test_missing_settings_are_named(key: str) -> None:
    with pytest.raises(BootError, match=f"{key} is not set"):
        settings.load({**GIVEN, key: ""})


RIGHT = httpx.BasicAuth("job", "password")._auth_header


@pytest.mark.parametrize(
    ("path", "login", "status"),
    [
        ("/gateway/mlflow/v1/chat/completions", RIGHT, 200),
        ("/gateway/mlflow/v1/chat/completions", RIGHT[:-1], 401),
        ("/gateway/mlflow/v1/chat/completions", "", 401),
        ("/api/2.0/mlflow/experiments/search", RIGHT, 401),
        ("/callback/1.1..x/gateway/mlflow/v1/chat/completions", RIGHT, 401),
    ],
)
def test_the_gateway_is_for_jobs_alone(path: str, login: str, status: int) -> None:
    from tracking_server.jobs.gateway import JobsGateway

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        assert b"authorization" not in dict(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> int:
        gateway = JobsGateway(app, password="password", callbacks=Callbacks(port=1))
        exchange = Exchange(gateway, "POST", path, headers={"authorization": login})
        exchange.feed(b"{}")
        return (await exchange.done()).status

    assert asyncio.run(run()) == status
