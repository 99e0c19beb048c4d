"""The stack that the previous release makes, to test the upgrade from it.

    python -m tests.engine.previous_release v1.2    # saves the stack of the program of v1.2

`previous/stack.json` is its state as `pulumi stack export` writes it, with secrets encrypted by the
tests' passphrase. Its inputs are enough to make the same project here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.engine.deployment import PROGRAM, ROOT, Created, Deployment, deployment
from tests.engine.engine import build

STACK = Path(__file__).with_name("previous") / "stack.json"


def keep(revision: str) -> None:
    archived = subprocess.run(
        ["git", "archive", revision, *PROGRAM], cwd=ROOT, check=False, capture_output=True
    )
    if archived.returncode:
        sys.exit(
            f"REVISION={revision}: git has no such revision "
            f"({archived.stderr.decode().strip()}). `git tag` lists the releases, for example "
            "REVISION=v1.2"
        )
    with (
        TemporaryDirectory(prefix="mlflow-gcp-previous-") as folder,
        deployment(Path(folder), build()) as made,
    ):
        for name in PROGRAM:
            path = made.project / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        subprocess.run(["tar", "-x"], cwd=made.project, check=True, input=archived.stdout)
        made.secrets_provider = "passphrase"
        made.init()
        made.up()
        exported = json.loads(made.pulumi("stack", "export", "--stack", "prod").stdout)
    for resource in exported["deployment"]["resources"]:
        # The program's path on this machine.
        resource.pop("sourcePosition", None)
        resource.pop("stackTrace", None)
    STACK.parent.mkdir(exist_ok=True)
    STACK.write_text(json.dumps(exported, indent=1) + "\n")


def restore(made: Deployment) -> None:
    """Make the stack and, from its inputs, the project that it describes."""
    made.secrets_provider = "passphrase"
    made.init()
    made.pulumi("stack", "import", "--stack", "prod", "--file", str(STACK))
    shown = made.pulumi("stack", "export", "--show-secrets", "--stack", "prod").stdout
    for resource in json.loads(shown)["deployment"]["resources"]:
        token = resource["type"]
        # Random values are only in the state.
        if not resource.get("custom") or token.startswith(("pulumi:", "random:")):
            continue
        name = resource["urn"].rpartition("::")[2]
        inputs, outputs = _plain(resource["inputs"]), _plain(resource["outputs"])
        made.cloud.recreate(Created(token, name, inputs, resource["id"], outputs))


def _plain(value: Any) -> Any:
    """Returns the value without the wrappers that mark secrets."""
    if isinstance(value, dict):
        if "plaintext" in value:
            return json.loads(value["plaintext"])
        return {key: _plain(item) for key, item in value.items() if not key.startswith("__")}
    return [_plain(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Which release? `git tag` lists them: make previous-release REVISION=v1.2")
    keep(sys.argv[1])
