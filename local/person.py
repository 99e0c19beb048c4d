"""The name under which MLflow shows a person's runs."""

from __future__ import annotations

import getpass
import json
import subprocess

# MLflow's client takes tags of each run from this variable. Without it, `Created by` is the
# username of the login, which everyone shares.
RUN_CONTEXT = "MLFLOW_RUN_CONTEXT"


def run_context() -> str:
    """Returns the value of `MLFLOW_RUN_CONTEXT` for this computer's user."""
    return json.dumps({"mlflow.user": _name()})


def _name() -> str:
    """Returns the e-mail address that git has, or the name of the account on this computer."""
    try:
        asked = subprocess.run(
            ["git", "config", "--get", "user.email"], check=False, capture_output=True, text=True
        )
    except OSError:
        return getpass.getuser()
    return asked.stdout.strip() or getpass.getuser()
