"""`make rotate`: replaces a password or key by incrementing its version; see docs/runbooks.md."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fake_google.state import SETTINGS, State
from operations import cli_tools
from operations.cli_tools import ROOT
from operations.errors import OperationError
from operations.stack import NAMESPACE, CloudStack, LocalStack, Stack


@dataclass(frozen=True, kw_only=True)
class Secret:
    setting: str
    consequence: str
    # The setting with which users set their own value instead.
    own: str = ""


SECRETS = {
    "tracking": Secret(
        setting="trackingPasswordVersion",
        own="trackingPassword",
        consequence="The old password gets 401 as soon as the new revision has the traffic. "
        "`make env` has the new one for every client.",
    ),
    "viewer": Secret(
        setting="viewerPasswordVersion",
        own="viewerPassword",
        consequence="The viewer's old password gets 401 as soon as the new revision has the "
        "traffic; the output viewer_password is the new one.",
    ),
    "database": Secret(
        setting="databasePasswordVersion",
        consequence="Clients notice nothing. The previous password stays valid until the next "
        "change, for rolling back; change a leaked password twice.",
    ),
    "encryption": Secret(
        setting="encryptionKeyVersion",
        consequence="The new revision re-encrypts the gateway's keys and the webhooks' secrets "
        "when it boots; calls through the gateway may fail for some seconds.",
    ),
}


def rotate(stack: Stack, *, what: str) -> None:
    if what not in SECRETS:
        raise OperationError(
            f"WHAT={what!r} isn't known: one of {', '.join(SECRETS)}, for example WHAT=database."
        )
    # Lock before reading the stack, which another rotation may be changing.
    with _alone(stack.state) if isinstance(stack, LocalStack) else contextlib.nullcontext():
        _rotate(stack, what)


@contextlib.contextmanager
def _alone(state: State) -> Iterator[None]:
    """Allows one rotation at a time on this computer; Pulumi has its own lock."""
    if not state.root.exists():
        yield  # no stack has run here, which the stack itself reports
        return
    with os.fdopen(os.open(state.path("rotating"), os.O_RDWR | os.O_CREAT, 0o600)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperationError(
                "Another `make rotate` is under way on this computer. Wait until it is done; if "
                "one more change is wanted then: `make rotate STACK=local`."
            ) from None
        yield


def _rotate(stack: Stack, what: str) -> None:
    secret = SECRETS[what]
    _ = stack.outputs
    if what == "viewer" and not stack.setting("viewerUsername"):
        how = "`pulumi config set viewerUsername viewer`, then `pulumi up`,"
        if isinstance(stack, LocalStack):
            how = (
                "`make local-down`, then `.venvs/program/bin/python -m local up --config "
                "viewerUsername=viewer`,"
            )
        raise OperationError(f"There is no viewer. {how} makes one.")
    if secret.own and stack.setting(secret.own):
        raise OperationError(
            f"{secret.own} is your own, so the stack doesn't generate it. Set another: "
            f"`pulumi config set --secret {secret.own}`, then `pulumi up`."
        )
    if secret.own and stack.setting(f"{secret.own}Secret"):
        raise OperationError(
            f"The password is in a secret of your own. Add a version to that, and name it: `pulumi "
            f"config set {secret.own}Secret projects/…/versions/2`, then `pulumi up`."
        )
    if isinstance(stack, CloudStack):
        _cloud(stack, secret)
    else:
        _local(stack, secret)


def deployed_version(updates: list[Mapping[str, Any]], setting: str) -> int:
    """Returns the version that the last `pulumi up` deployed, from Pulumi's history, newest first.

    The configured version may not be deployed yet, and a version must not be skipped: the
    database's two users take turns, and the second change replaces the first user's password.
    """
    for update in updates:
        if update["kind"] != "update":
            continue
        if update["result"] != "succeeded":
            break
        return int(update["config"].get(f"{NAMESPACE}:{setting}", {}).get("value") or 1)
    raise OperationError(
        "The last `pulumi up` did not end well, and one change at a time is what is safe: "
        "run `pulumi up` until it does, then this again."
    )


def _cloud(stack: CloudStack, secret: Secret) -> None:
    # The default is the last ten, which may all be refreshes.
    history = json.loads(stack.pulumi("stack", "history", "--json", "--page-size", "100"))
    before = deployed_version(history, secret.setting)
    stack.pulumi("config", "set", f"{NAMESPACE}:{secret.setting}", str(before + 1))
    print(f"{secret.setting} is {before + 1} now, in {stack.file}.")
    print(secret.consequence, flush=True)
    if cli_tools.attended("pulumi", "up", "--stack", stack.name):
        took = shlex.join(
            ["pulumi", "config", "set", secret.setting, str(before), "--stack", stack.name]
        )
        raise OperationError(
            "`pulumi up` did not end well, or was declined. `make rotate` goes on with the same "
            f"change; where nothing was changed yet, `{took}` takes it back."
        )
    print(f"Done. Keep {stack.file} as it is now: commit it where others deploy.")


def _local(stack: LocalStack, secret: Secret) -> None:
    key = f"{NAMESPACE}:{secret.setting}"
    version = int(stack.setting(secret.setting) or 1) + 1
    options = stack.entry["options"]
    remembered = {**stack.state.load(SETTINGS), key: str(version)}
    stack.state.save(SETTINGS, remembered)
    print(f"{secret.setting} is {version} now.")
    print(secret.consequence, flush=True)
    if not options["detached"]:
        print("It runs in the foreground: stop it with Ctrl-C and start it again, `make local`.")
        return
    given = {name: value for name, value in options["config"].items() if name != key}
    settings = [part for name, value in given.items() for part in ("--config", f"{name}={value}")]
    here = [sys.executable, "-m", "local", "--state", str(stack.state.root)]
    restart = [*here, "up", "--port", str(options["port"]), "--python", options["command"][0]]
    for command in ([*here, "down"], [*restart, *settings]):
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise OperationError(
                "The stack on this computer did not start again. `make local-up` starts it; its "
                f"log is in {stack.state.path('log')}.\n{done.stdout}{done.stderr}".rstrip()
            )
    print("Done: the server runs with it.")
