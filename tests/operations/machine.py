"""A user's machine with `pulumi`, `gcloud` and others on PATH, which print what a test chooses.

A call that no test expects is refused, so that every argument is checked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.page_commands import ROOT, stand_in

PASSWORD = 'it\'s "quoted" $HOME ${HOME} `id` \\ und 🙂'
TOKEN = "ya29.an-access-token"
INSTANCE = "my-project:us-central1:mlflow-1a2b3c"
OUTPUTS = {
    "tracking_uri": "https://mlflow-123456789012.us-central1.run.app",
    "tracking_username": "mlflow",
    "tracking_password": "[secret]",
    "artifact_bucket": "my-project-mlflow-artifacts-1a2b3c",
    "database_connection_name": INSTANCE,
    "version": "mlflow-gcp 1.2.3, MLflow 3.17.2",
    "monthly_cost_estimate": "9.50 USD idle, 19.23 with 100 runs a day",
}
SETTINGS = {
    "gcp:project": "my-project",
    "gcp:region": "us-central1",
    "mlflow-gcp:name": "mlflow",
    "mlflow-gcp:access": "public",
    "mlflow-gcp:network": "public",
    "mlflow-gcp:trackingPassword": "",
    "mlflow-gcp:viewerUsername": "",
    "mlflow-gcp:existingDatabaseInstance": "",
}
_SCRIPT = f"""#!{sys.executable} -IS
import json, sys
from pathlib import Path
here, called = Path(__file__).parent, [Path(__file__).name, *sys.argv[1:]]
with (here / "calls").open("a") as calls:
    print(json.dumps(called), file=calls)
for arguments, stdout, stderr, code in json.loads((here / "answers").read_text()):
    if arguments == called:
        sys.stdout.write(stdout)
        sys.stderr.write(stderr)
        sys.exit(code)
sys.exit("unexpected: " + " ".join(called))
"""


@dataclass
class Machine:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[list[str], str, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.environment = {"PATH": f"{self.bin}:{os.defpath}", "HOME": str(self.folder)}
        (self.bin / "calls").touch()

    def has(self, *programs: str) -> None:
        for program in programs:
            stand_in(self.bin, program, _SCRIPT)

    def tell(
        self, command: list[str], stdout: str = "", *, stderr: str = "", code: int = 0
    ) -> None:
        """Set the program's output for these arguments; the latest call wins."""
        self.answers.insert(0, (command, stdout, stderr, code))
        (self.bin / "answers").write_text(json.dumps(self.answers))

    def pulumi(self, *arguments: str, stack: str | None = "dev", **told: Any) -> None:
        chosen = ["--stack", stack] if stack else []
        self.tell(["pulumi", *arguments, *chosen, "--non-interactive"], **told)

    def gcloud(self, *arguments: str, **told: Any) -> None:
        self.tell(["gcloud", *arguments, "--quiet"], **told)

    def stands(self, *, outputs: dict[str, str] | None = None, **settings: str) -> None:
        """Simulate a running Pulumi stack `dev`."""
        self.has("pulumi", "gcloud")
        config = {**SETTINGS, **{f"mlflow-gcp:{key}": value for key, value in settings.items()}}
        entries = {key: {"value": value, "secret": False} for key, value in config.items()}
        if config["mlflow-gcp:trackingPassword"]:
            entries["mlflow-gcp:trackingPassword"] = {"secret": True}
        shown = json.dumps({**OUTPUTS, **(outputs or {})})
        self.pulumi("stack", "--show-name", stack=None, stdout="dev\n")
        self.pulumi("stack", "output", "--json", stdout=shown)
        self.pulumi("config", "--json", stdout=json.dumps(entries))
        hidden = ("stack", "output", "tracking_password", "--show-secrets")
        self.pulumi(*hidden, stdout=f"{PASSWORD}\n")

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "operations", "--state", str(self.folder / "state"), *arguments],
            check=False, cwd=ROOT, env=self.environment, input=stdin, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    def calls(self, program: str) -> list[list[str]]:
        called = [json.loads(line) for line in (self.bin / "calls").read_text().splitlines()]
        assert PASSWORD not in str(called)
        return [arguments for name, *arguments in called if name == program]
