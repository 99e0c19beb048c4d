"""A stack whose old revisions keep running when a new one is declared, as on Cloud Run.

`local` stops a revision before it starts the next one. So the serving revision is a separate
container here, with the same environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fake_google.cloud import Cloud
from fake_google.ports import free_port
from fake_google.project import Container, Project
from fake_google.state import State
from local import program
from local.supervise import DEFAULTS
from tests.chaos.instances import Instance, environment_of
from tests.local.conftest import ROOT, SERVER, Stack


class Rollout:
    def __init__(self, folder: Path, ended: ExitStack) -> None:
        state = State(folder / "state")
        state.create()
        self.stack = Stack(state.root)
        self._folder, self._ended = folder, ended
        self.cloud = Cloud(
            Project(
                state=state,
                id=DEFAULTS["gcp:project"],
                region=DEFAULTS["gcp:region"],
                container=Container(
                    command=[str(SERVER), "-m", "tracking_server"], port=free_port()
                ),
                say=lambda line: None,
            )
        )
        ended.callback(self.cloud.project.close)
        self._config: dict[str, str] = {}
        self.outputs: dict[str, str] = {}
        self.revisions: list[dict[str, str]] = []

    def up(self, **config: int) -> None:
        """Run `pulumi config set` and `pulumi up`; the new revision passes its startup probe."""
        self._config |= {f"mlflow-gcp:{key}": str(value) for key, value in config.items()}
        config_now = {**DEFAULTS, **self._config}
        self.outputs = program.run(main=ROOT / "__main__.py", cloud=self.cloud, config=config_now)
        self.revisions.append(environment_of(self.stack))

    def instance(self, revision: int) -> Instance:
        """Start another container of a revision and wait until it is ready."""
        instance = Instance(self.revisions[revision], self._folder)
        self._ended.callback(instance.stop)
        return instance.ready()

    def credentials(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_USERNAME": self.outputs["tracking_username"],
            "MLFLOW_TRACKING_PASSWORD": self.outputs["tracking_password"],
        }


@contextmanager
def rolled_out() -> Iterator[Rollout]:
    with TemporaryDirectory(prefix="mlflow-gcp-rollout-") as folder, ExitStack() as ended:
        made = Rollout(Path(folder), ended)
        ended.callback(made.stack.run, made.stack.command("clean"))
        made.up()
        yield made
        ended.close()
