"""The stacks that releases make, to test the upgrade from each.

    python -m tests.engine.previous_release v1.2    # saves the stack of the program of v1.2

`previous/v1.2.json` is its state as `pulumi stack export` writes it, with secrets encrypted by the
tests' passphrase. Its inputs are enough to make the same project here.
`previous/unreleased.json` is a stack from before the first release.
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

STACKS = Path(__file__).parents[1] / "previous"


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
    (STACKS / f"{revision}.json").write_text(json.dumps(exported, indent=1) + "\n")


def missing() -> list[str]:
    """Returns the releases before this commit whose stack isn't saved."""
    # A copy without git's folder has no tags.
    listed = subprocess.run(
        ["git", "tag", "--list", "v*", "--no-contains", "HEAD"],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    return [tag for tag in listed.stdout.split() if not (STACKS / f"{tag}.json").exists()]


def restore(made: Deployment, release: str) -> None:
    """Make the stack and, from its inputs, the project that it describes."""
    made.secrets_provider = "passphrase"
    made.init()
    made.pulumi("stack", "import", "--stack", "prod", "--file", str(STACKS / f"{release}.json"))
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
