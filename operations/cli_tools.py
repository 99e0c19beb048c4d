"""Runs pulumi and gcloud, and explains their errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operations.errors import OperationError

ROOT = Path(__file__).parents[1]

INSTALL = {
    "pulumi": "https://www.pulumi.com/docs/install/. STACK=local is the stack on this computer",
    "gcloud": "https://cloud.google.com/sdk/docs/install",
    "psql": "`apt install postgresql-client`, or `brew install libpq` on macOS",
    "cloud-sql-proxy": "https://cloud.google.com/sql/docs/postgres/sql-proxy#install",
}

# A part of a program's error message, and what to do about it.
_PULUMI = {
    "PULUMI_ACCESS_TOKEN must be set": "Pulumi isn't logged in: `pulumi login`, or for example "
    "`pulumi login gs://my-state-bucket`, wherever the stack's state is.",
    "passphrase": "The stack's secrets are locked: export PULUMI_CONFIG_PASSPHRASE, or "
    "PULUMI_CONFIG_PASSPHRASE_FILE=/path/to/file, with the passphrase it was made with.",
}
_GCLOUD = {
    "gcloud auth login": "gcloud isn't logged in: `gcloud auth login`.",
}


def missing(program: str) -> OperationError:
    return OperationError(f"{program} isn't on this machine. Install it: {INSTALL[program]}.")


def pulumi(*arguments: str) -> str:
    # Pulumi must not ask questions, because no one would see them.
    return _run("pulumi", *arguments, "--non-interactive", advice=_PULUMI)


def gcloud(*arguments: str) -> str:
    return _run("gcloud", *arguments, "--quiet", advice=_GCLOUD)


def gcloud_json(*arguments: str) -> Any:
    return json.loads(gcloud(*arguments, "--format=json"))


def attended(program: str, *arguments: str, env: Mapping[str, str] | None = None) -> int:
    """Runs a program in this terminal and returns its exit code; the program handles Ctrl-C."""
    try:
        with subprocess.Popen([program, *arguments], cwd=ROOT, env=env) as process:
            try:
                while True:
                    try:
                        return process.wait()
                    except KeyboardInterrupt:
                        continue
            except SystemExit:
                process.terminate()
                raise
    except FileNotFoundError:
        raise missing(program) from None


def _run(program: str, *arguments: str, advice: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            [program, *arguments],
            check=False, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        )  # fmt: skip
    except FileNotFoundError:
        raise missing(program) from None
    if done.returncode == 0:
        return done.stdout
    for known, what_to_do in advice.items():
        if known in done.stderr:
            raise OperationError(what_to_do)
    verb = " ".join([program, *(word for word in arguments[:3] if not word.startswith("-"))])
    raise OperationError(f"{verb}: {refusal(done.stderr) or f'exit code {done.returncode}'}")


def refusal(stderr: str) -> str:
    """Returns the line with the error: Pulumi's `error: …`, gcloud's `ERROR: (gcloud.…) …`."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [line for line in lines if re.match(r"error: |ERROR: ", line)]
    found = (said or lines or [""])[0]
    return re.sub(r"^(error|ERROR): (\([\w.-]+\) )?", "", found)
