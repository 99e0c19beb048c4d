"""The unmodified project under Pulumi's own engine, against a fake Google project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fake_google import provider
from fake_google.cloud import Cloud
from fake_google.errors import Refused
from fake_google.iam.policy import Grant, Resource
from fake_google.project import Container, Inputs, Outputs, Project
from fake_google.state import State
from tests.engine import language, vault
from tests.engine.engine import Engine

ROOT = Path(__file__).parents[2]
PROJECT = "my-project"
PROGRAM = ("Pulumi.yaml", "Pulumi.dev.yaml", "__main__.py", "infra", "image")

SERVICE = "gcp:cloudrunv2/service:Service"
INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
BUCKET = "gcp:storage/bucket:Bucket"
VERSION = "gcp:secretmanager/secretVersion:SecretVersion"
PASSWORD = "random:index/randomPassword:RandomPassword"

SAVE_AT_THE_END = {"PULUMI_SKIP_CHECKPOINTS": "true", "PULUMI_EXPERIMENTAL": "true"}


class SlowProject(Project):
    """A project where a role's new grants may not take effect at once, as on Google Cloud."""

    unseen = ""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._unseen: list[Grant] = []

    def grant(self, member: str, role: str, resource: Resource | None, condition: Any) -> None:
        super().grant(member, role, resource, condition)
        if role == self.unseen:
            self._unseen.append(self.policy.grants.pop())

    def seen(self) -> None:
        self.policy.grants += self._unseen


@dataclass(frozen=True)
class Created:
    token: str
    name: str
    inputs: Inputs
    id: str
    outputs: Outputs


class TroubledCloud(Cloud):
    """A project where tests can make calls fail or hang."""

    project: SlowProject

    def __init__(self, project: SlowProject) -> None:
        super().__init__(project)
        self.faults: dict[str, str] = {}
        # A type whose creation succeeds after its caller has given up.
        self.lost = ""
        # A type whose creation hangs.
        self.held = ""
        self.reached, self.released = threading.Event(), threading.Event()
        # The secret values that the cloud has given out.
        self.given: list[str] = []
        self.created: list[Created] = []

    def create(self, token: str, name: str, inputs: Inputs) -> tuple[str, Outputs]:
        if fault := self.faults.pop(token, None):
            # While Google works on this resource, the program requests others, which may fail too.
            time.sleep(0.5)
            raise Refused(fault)
        if token == self.held:
            self.reached.set()
            self.released.wait(60)
            raise Refused("the caller is gone")
        made, outputs = super().create(token, name, inputs)
        if token == self.lost:
            self.lost = ""
            raise Refused("timeout while waiting for state to become 'DONE' (timeout: 40m0s)")
        if token == PASSWORD:
            self.given.append(outputs["result"])
        self.created.append(Created(token, name, inputs, made, outputs))
        return made, outputs

    def recreate(self, created: Created) -> None:
        """Create the resource that another project has, with the same id and outputs."""
        super().create(created.token, created.name, created.inputs)
        # Google chooses some ids.
        *_, (key, live) = self.project.live.items()
        del self.project.live[key]
        self.project.live[created.token, created.id] = live
        live.outputs |= created.outputs

    def invoke(self, function: str, arguments: Inputs) -> Outputs:
        answer = super().invoke(function, arguments)
        self.given += [answer["accessToken"]] if "accessToken" in answer else []
        return answer

    def counts(self) -> dict[str, int]:
        tokens = [token for token, _ in self.project.live]
        return {token: tokens.count(token) for token in sorted(set(tokens))}

    def one(self, token: str) -> Inputs:
        [inputs] = self.project.all(token)
        return inputs


@dataclass
class Run:
    """One run of the CLI, with the engine's events if they were requested."""

    code: int
    stdout: str
    stderr: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def errors(self) -> str:
        found = [event["diagnosticEvent"] for event in self.events if "diagnosticEvent" in event]
        return "\n".join(d["message"] for d in found if d["severity"] == "error") + self.stderr

    @property
    def touched(self) -> set[str]:
        """Returns `<action> <type> <name>` for every resource that changes."""
        steps = [
            event[kind]["metadata"]
            for event in self.events
            for kind in ("resourcePreEvent", "resOutputsEvent")
            if kind in event
        ]
        return {
            f"{step['op']} {step['type']} {step['urn'].rpartition('::')[2]}"
            for step in steps
            if step["op"] not in ("same", "read", "refresh")
            and not step["type"].startswith(("mlflow-gcp:", "pulumi:"))
        }


class Deployment:
    """A clone, a separate state, and stacks in one project."""

    def __init__(self, folder: Path, engine: Engine, cloud: TroubledCloud) -> None:
        self.folder, self.cloud = folder, cloud
        self.project, self.state = folder / "project", folder / "state"
        for directory in (self.project, self.state):
            directory.mkdir()
        for name in PROGRAM:
            copy_of(ROOT / name, self.project / name)
        (self.project / ".venv").symlink_to(sys.prefix)
        self.secrets_provider = vault.KEY
        # Each command would log to files in this folder, for a third of its CPU time.
        self.logs = folder / "home" / "logs"
        self.logs.parent.mkdir()
        self.logs.touch()
        self.environment = {
            "PATH": f"{_commands(folder / 'bin', engine)}:{os.defpath}",
            "HOME": str(folder),
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": self.state.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase of the test's",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true",
            # The CLI ends before collecting its garbage would pay off.
            "GOGC": "off",
            # Write the state once for each command, not after each step.
            **SAVE_AT_THE_END,
            # Something accepts connections, as a Docker daemon does; nothing is built.
            "DOCKER_HOST": cloud.project.storage_endpoint.replace("http:", "tcp:"),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.project, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def pulumi(self, *arguments: str, fails: bool = False) -> Run:
        with self.start(*arguments) as process:
            try:
                stdout, stderr = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        events = []
        if "--json" in arguments:
            events = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
        run = Run(process.returncode, stdout, stderr, events)
        assert bool(run.code) == fails, run.errors or run.text
        return run

    def init(self, stack: str = "prod", **settings: Any) -> None:
        self.pulumi("stack", "init", stack, "--secrets-provider", self.secrets_provider)
        self.configure(stack, **{"gcp:project": PROJECT, **settings})

    def copy(self, other: Deployment) -> None:
        """Copy the stack "prod" and the project of another deployment."""
        shutil.copytree(other.state, self.state, dirs_exist_ok=True)
        shutil.copy(other.project / "Pulumi.prod.yaml", self.project)
        for created in other.cloud.created:
            # Random values are only in the state.
            if not created.token.startswith("random:"):
                self.cloud.recreate(created)

    def configure(self, stack: str = "prod", **settings: Any) -> None:
        """Write the file as `pulumi config set` and, for None, `pulumi config rm` would."""
        file = self.project / f"Pulumi.{stack}.yaml"
        content = (yaml.safe_load(file.read_text()) if file.exists() else None) or {}
        config = content.setdefault("config", {})
        for key, value in settings.items():
            full = key if ":" in key else f"mlflow-gcp:{key}"
            config.pop(full, None)
            if value is not None:
                config[full] = value
        file.write_text(yaml.safe_dump(content))

    def preview(self, stack: str = "prod", *, fails: bool = False) -> Run:
        return self.pulumi("preview", "--json", "--stack", stack, fails=fails)

    def up(self, stack: str = "prod", *, fails: bool = False) -> Run:
        return self._act("up", stack, fails)

    def refresh(self, stack: str = "prod") -> Run:
        return self._act("refresh", stack, False)

    def destroy(self, stack: str = "prod", *, fails: bool = False) -> Run:
        return self._act("destroy", stack, fails)

    def _act(self, verb: str, stack: str, fails: bool) -> Run:
        return self.pulumi(verb, "--yes", "--skip-preview", "--json", "--stack", stack, fails=fails)

    def output(self, name: str, stack: str = "prod") -> str:
        return self.pulumi(
            "stack", "output", name, "--show-secrets", "--stack", stack
        ).stdout.strip()


def copy_of(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info"))
    else:
        shutil.copy(source, target)


def _commands(folder: Path, engine: Engine) -> Path:
    """Make a folder with the commands that a user has on PATH after installing Pulumi."""
    folder.mkdir()
    (folder / "pulumi").symlink_to(engine.pulumi)
    (folder / engine.yaml.name).symlink_to(engine.yaml)
    return folder


@contextmanager
def deployment(
    folder: Path, engine: Engine, *, container: Container | None = None
) -> Iterator[Deployment]:
    state = State(folder / "cloud")
    state.create()
    cloud = TroubledCloud(
        SlowProject(state=state, id=PROJECT, region="us-central1", container=container, say=print)
    )
    try:
        made = Deployment(folder, engine, cloud)
        with (
            provider.serve(cloud, folder=made.project) as providers,
            language.serve(engine.executor, made.environment) as languages,
            vault.serve() as keys,
        ):
            made.environment["VAULT_SERVER_URL"] = keys
            made.environment["PULUMI_DEBUG_PROVIDERS"] = providers
            made.environment["PULUMI_DEBUG_LANGUAGES"] = languages
            yield made
    finally:
        cloud.project.close()
        state.clean()


def kinds(touched: set[str]) -> Mapping[str, set[str]]:
    """Returns, for each action, the types that it affects."""
    done: dict[str, set[str]] = {}
    for step in touched:
        what, token, _ = step.split(" ")
        done.setdefault(token, set()).add(what)
    return done
