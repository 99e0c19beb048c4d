"""Runs every sample once for all tests, several at a time, against local stacks."""

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
import yaml

from tests.local.conftest import ROOT, Stack
from tests.page_commands import stand_in

GALLERY = ROOT / "sample_client"
PYTHON = ROOT / ".venvs" / "gallery" / "bin" / "python"
WORKFLOW = GALLERY / "ci" / "train.yml"
MEBIBYTE = 1 << 20

SCRIPTS = (
    "sklearn_autolog", "boosted_trees", "neural_network", "sweep", "registry", "large_artifact",
    "traces", "plain", "direct_bucket",
)  # fmt: skip
SAMPLES = (*SCRIPTS, "notebook", "rest")
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow would import each logged model again to infer its requirements, and use the flavour's
    # defaults where that takes longer.
    "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1",
    # So that a file of 12 MiB counts as large.
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(12 * MEBIBYTE),
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(5 * MEBIBYTE),
}
COMMIT = "1" * 40
EXPRESSIONS = {
    "github.repository": "my-org/my-model",
    "github.server_url": "https://github.com",
    "github.sha": COMMIT,
    "github.actor": "ada",
    "github.run_id": "7",
}


@dataclass(frozen=True)
class Ended:
    """The outcome of a sample."""

    code: int
    out: str
    err: str
    seconds: float
    cpu: float
    left: list[str]


@dataclass(frozen=True)
class Server:
    """MLflow's REST API without its client."""

    stack: Stack
    env: dict[str, str]

    def ask(self, path: str, **body: Any) -> Any:
        answer = self.request("POST" if body else "GET", f"/api/{path}", json=body or None)
        return answer.json()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        login = self.env["MLFLOW_TRACKING_USERNAME"], self.env["MLFLOW_TRACKING_PASSWORD"]
        address = self.env["MLFLOW_TRACKING_URI"] + path
        answer = requests.request(method, address, auth=login, timeout=30, **options)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer

    def experiment(self, name: str) -> str:
        path = f"2.0/mlflow/experiments/get-by-name?experiment_name={name}"
        return str(self.ask(path)["experiment"]["experiment_id"])

    def runs(self, experiment: str) -> list[dict[str, Any]]:
        """Returns the runs, latest first, each with its metrics, parameters and tags by name."""
        ids = [self.experiment(experiment)]
        found = self.ask("2.0/mlflow/runs/search", experiment_ids=ids).get("runs", [])
        return [
            run["info"]
            | {
                kind: {one["key"]: one["value"] for one in run["data"].get(kind, [])}
                for kind in ("metrics", "params", "tags")
            }
            for run in found
        ]

    def history(self, run: dict[str, Any], metric: str) -> list[float]:
        path = f"2.0/mlflow/metrics/get-history?run_id={run['run_id']}&metric_key={metric}"
        return [one["value"] for one in self.ask(path)["metrics"]]

    def artifacts(self, run: dict[str, Any], folder: str = "") -> dict[str, int | None]:
        path = f"2.0/mlflow/artifacts/list?run_id={run['run_id']}&path={folder}"
        return {one["path"]: one.get("file_size") for one in self.ask(path).get("files", [])}

    def text(self, run: dict[str, Any], path: str) -> str:
        """Returns an artifact, read through the server."""
        where = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        return self.request("GET", f"/api/2.0/mlflow-artifacts/artifacts/{where}/{path}").text

    def models(self, experiment: str) -> list[dict[str, Any]]:
        ids = [self.experiment(experiment)]
        found = self.ask("2.0/mlflow/logged-models/search", experiment_ids=ids)
        return [model["info"] for model in found.get("models", [])]

    def entries(self) -> list[dict[str, Any]]:
        """Returns the lines of the access log."""
        lines = [line for line in self.log().splitlines() if '"httpRequest"' in line]
        return [json.loads(line) for line in lines]

    def log(self) -> str:
        return (self.stack.folder / "log" / "server.log").read_text()


@pytest.fixture(scope="session")
def stacks() -> Iterator[dict[str, Stack]]:
    with Stack.temporary() as proxied, Stack.temporary(config=("artifacts=direct",)) as direct:
        yield {"proxied": proxied, "direct": direct}


@pytest.fixture(scope="session")
def server(stacks: dict[str, Stack]) -> Server:
    return Server(stacks["proxied"], stacks["proxied"].environment())


@pytest.fixture(scope="session")
def direct_server(stacks: dict[str, Stack]) -> Server:
    return Server(stacks["direct"], stacks["direct"].environment())


def require(tool: str) -> None:
    """Skip the test if the tool is missing; in CI, fail."""
    if not shutil.which(tool):
        missing = f"needs {tool}: on Debian `apt install {tool}`"
        pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)


def command(sample: str) -> list[str]:
    if sample == "notebook":
        return [str(PYTHON.with_name("jupyter")), "execute", str(GALLERY / "notebook.ipynb")]
    if sample == "rest":
        return ["sh", str(GALLERY / "rest.sh")]
    return ["python", str(GALLERY / f"{sample}.py")]


def workflow(env: dict[str, str], tools: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the job's own lines and variables, filled in as by GitHub; pip only prints."""
    job = yaml.safe_load(WORKFLOW.read_text())["jobs"]["train"]
    known = EXPRESSIONS | {
        f"{'secrets' if name.endswith('PASSWORD') else 'vars'}.{name}": value
        for name, value in env.items()
    }

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: known[match[1]], text)

    stand_in(tools, "pip", '#!/bin/sh\necho pip "$@"\n')
    stand_in(tools, "python", f'#!/bin/sh\nexec {shlex.quote(str(PYTHON))} "$@"\n')
    # As GitHub does: https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax
    lines = [
        f"cd {shlex.quote(str(ROOT))}",
        *(step["run"] for step in job["steps"] if "run" in step),
    ]
    variables = {name: filled(text) for name, text in job["env"].items()}
    return ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", "\n".join(lines)], variables


# On the stack with artifacts=direct: the server allows ten wrong passwords a minute from one
# address, and the other stack has nine already.
DIRECT = {("direct_bucket", "right"), ("direct_bucket", "wrong"), ("rest", "wrong")}

# Addresses that would get the password as plain text.
UNSAFE = {
    "bare": "mlflow-1.us-central1.run.app",
    "http": "http://mlflow.example.com",
    "lookalike": "http://localhost.example.com",
    "disguised": "http://localhost:80@mlflow.example.com",
}


def jobs(stacks: dict[str, Stack], folder: Path, *, moved: str) -> Iterator[dict[str, Any]]:
    """`moved`: the address of a server that redirects every request."""
    home = {"PATH": os.environ["PATH"], "HOME": str(folder), **SETTINGS}
    served = {name: stack.environment() | home for name, stack in stacks.items()}
    proxied, direct = served["proxied"], served["direct"]

    def job(sample: str, variant: str, env: dict[str, str]) -> dict[str, Any]:
        name = f"{sample}-{variant}"
        (folder / name).mkdir()
        env = env | {"MLFLOW_EXPERIMENT_NAME": sample}
        return {"name": name, "folder": str(folder / name), "command": command(sample), "env": env}

    wrong = {"MLFLOW_TRACKING_PASSWORD": "not the right one"}
    for sample in SAMPLES:
        for variant, changed in {"right": {}, "wrong": wrong}.items():
            env = direct if (sample, variant) in DIRECT else proxied
            yield job(sample, variant, env | changed)
        if sample != "notebook":  # the wrong password has shown the same
            yield job(sample, "unset", home)
    yield job("rest", "moved", proxied | {"MLFLOW_TRACKING_URI": moved})
    for sample in ("plain", "rest"):
        for variant, address in UNSAFE.items():
            yield job(sample, variant, proxied | {"MLFLOW_TRACKING_URI": address})
        yield job(sample, "unreachable", direct | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    nobody = {"GCE_METADATA_HOST": "", "GCE_METADATA_IP": "", "NO_GCE_CHECK": "true"}
    yield job("direct_bucket", "unknown", direct | nobody)
    login = {name: text for name, text in proxied.items() if name.startswith("MLFLOW_")}
    yield job("direct_bucket", "proxied", direct | login)

    tools = folder / "tools"
    tools.mkdir()
    lines, variables = workflow(proxied, tools)
    path = {"PATH": f"{tools}{os.pathsep}{home['PATH']}"}
    yield job("workflow", "right", {}) | {"command": lines, "env": home | variables | path}


class Moved(BaseHTTPRequestHandler):
    """Responds as Cloud Run does to a request by plain HTTP."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        page = b"<HTML>The document has moved</HTML>"
        self.send_response(302)
        self.send_header("Location", f"https://mlflow-1.us-central1.run.app{self.path}")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def moved() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Moved) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def ended(
    stacks: dict[str, Stack], moved: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Ended]:
    """By `sample-variant`."""
    runner = subprocess.run(
        [str(PYTHON), str(Path(__file__).with_name("runner.py"))],
        input=json.dumps(list(jobs(stacks, tmp_path_factory.mktemp("gallery"), moved=moved))),
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1", **SETTINGS},
        check=False, stdout=subprocess.PIPE, text=True, timeout=300,
    )  # fmt: skip
    assert runner.returncode == 0
    return {name: Ended(**what) for name, what in json.loads(runner.stdout).items()}
