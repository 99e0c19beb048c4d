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
from datetime import UTC, datetime
from typing import Any

from fake_google.state import SETTINGS, State
from operations import cli_tools, previous_password
from operations.cli_tools import ROOT
from operations.errors import OperationError
from operations.stack import NAMESPACE, CloudStack, LocalStack, Stack


@dataclass(frozen=True, kw_only=True)
class Secret:
    setting: str
    consequence: str
    # The setting with which users set their own value instead.
    own: str = ""
    # The setting that keeps the previous value valid for a while.
    previous: str = ""


SECRETS = {
    "tracking": Secret(
        setting="trackingPasswordVersion",
        own="trackingPassword",
        previous="previousTrackingPassword",
        consequence="`make env` has the new password for every client.",
    ),
    "viewer": Secret(
        setting="viewerPasswordVersion",
        own="viewerPassword",
        previous="previousViewerPassword",
        consequence="The output viewer_password is the new password.",
    ),
    "database": Secret(
        setting="databasePasswordVersion",
        consequence="Clients aren't affected. The previous password stays valid until the next "
        "change, for rolling back; change a leaked password twice.",
    ),
    "encryption": Secret(
        setting="encryptionKeyVersion",
        consequence="The server re-encrypts the gateway's keys and the webhooks' secrets when it "
        "starts with the new key; calls through the gateway may fail for some seconds.",
    ),
}


def rotate(
    stack: Stack, *, what: str, accepted_for: int = previous_password.HOURS, end: bool = False
) -> None:
    """Replace a password or key; a previous password is accepted for some hours more.

    With `end`, nothing is replaced, and the previous password is no longer accepted.
    """
    if what not in SECRETS:
        raise OperationError(
            f"WHAT={what!r} isn't known: one of {', '.join(SECRETS)}, for example WHAT=database."
        )
    # Lock before reading the stack, which another rotation may be changing.
    with _alone(stack.state) if isinstance(stack, LocalStack) else contextlib.nullcontext():
        _rotate(stack, what, accepted_for=accepted_for, end=end)


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


def _rotate(stack: Stack, what: str, *, accepted_for: int, end: bool) -> None:
    secret = SECRETS[what]
    _ = stack.outputs
    if what == "viewer" and not stack.setting("viewerUsername"):
        how = "`pulumi config set viewerUsername viewer`, then `pulumi up`,"
        if isinstance(stack, LocalStack):
            how = "`make local-down`, then `make local-up CONFIG=viewerUsername=viewer`,"
        raise OperationError(f"The stack has no viewer. {how} creates one.")
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
    version = _version(stack, secret)
    changes: dict[str, str | None] = {}
    if secret.previous:
        changes = _previous(stack, what, version=version, accepted_for=accepted_for, end=end)
    elif end:
        raise OperationError(
            "END=1 ends the previous password of WHAT=tracking or WHAT=viewer: the others have "
            "none."
        )
    if not end:
        changes = {secret.setting: str(version + 1), **changes}
        where = f", in {stack.file}" if isinstance(stack, CloudStack) else ""
        print(f"{secret.setting} is {version + 1} now{where}.")
        print(secret.consequence, flush=True)
    if isinstance(stack, CloudStack):
        _cloud(stack, secret, changes, before=version)
    else:
        _local(stack, changes)


def _previous(
    stack: Stack, what: str, *, version: int, accepted_for: int, end: bool
) -> dict[str, str | None]:
    """Returns the change of the setting for the previous password; None removes it."""
    key = SECRETS[what].previous
    now = datetime.now(UTC)
    value = stack.setting(key)
    until = previous_password.accepted_until(value, version=version, now=now)
    if until:
        print(f"{previous_password.usage(stack, what)} It is accepted until {until}.", flush=True)
    if end and not until:
        raise OperationError(
            f"Only the current password is accepted, so there is nothing to end. `make rotate "
            f"WHAT={what}` replaces it."
        )
    if end:
        print("It gets 401 as soon as the change takes effect.", flush=True)
        return {key: None}
    if not accepted_for:
        print("The old password gets 401 as soon as the change takes effect.", flush=True)
        return {key: None} if value else {}
    if until:
        raise OperationError(
            "Another change would end the previous password at once. Wait, or end it first: `make "
            f"rotate WHAT={what} END=1`. If the current password has leaked: `make rotate "
            f"WHAT={what} HOURS=0`."
        )
    return {key: previous_password.setting(version=version, accepted_for=accepted_for, now=now)}


def _version(stack: Stack, secret: Secret) -> int:
    if isinstance(stack, LocalStack):
        return int(stack.setting(secret.setting) or 1)
    # The default is the last ten, which may all be refreshes.
    history = json.loads(stack.pulumi("stack", "history", "--json", "--page-size", "100"))
    return deployed_version(history, secret.setting)


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
        "The last `pulumi up` did not succeed, and changes are only safe one at a time: "
        "run `pulumi up` until it succeeds, then this again."
    )


def _cloud(
    stack: CloudStack, secret: Secret, changes: Mapping[str, str | None], *, before: int
) -> None:
    for key, value in changes.items():
        if value is None:
            stack.pulumi("config", "rm", f"{NAMESPACE}:{key}")
        else:
            stack.pulumi("config", "set", f"{NAMESPACE}:{key}", value)
    if cli_tools.attended("pulumi", "up", "--stack", stack.name):
        took = shlex.join(
            ["pulumi", "config", "set", secret.setting, str(before), "--stack", stack.name]
        )
        raise OperationError(
            "`pulumi up` did not succeed, or was declined. `make rotate` continues with the same "
            f"change; if nothing was changed yet, `{took}` undoes it."
        )
    print(f"Done. Keep {stack.file} as it is now: commit it where others deploy.")


def _local(stack: LocalStack, changes: Mapping[str, str | None]) -> None:
    options = stack.entry["options"]
    changed = {f"{NAMESPACE}:{key}": value for key, value in changes.items()}
    remembered = {**stack.state.load(SETTINGS), **changed}
    stack.state.save(
        SETTINGS, {key: value for key, value in remembered.items() if value is not None}
    )
    if not options["detached"]:
        print("It runs in the foreground: stop it with Ctrl-C and start it again, `make local`.")
        return
    given = {name: value for name, value in options["config"].items() if name not in changed}
    settings = [part for name, value in given.items() for part in ("--config", f"{name}={value}")]
    here = [sys.executable, "-m", "local", "--state", str(stack.state.root)]
    restart = [*here, "up", "--port", str(options["port"]), "--python", options["command"][0]]
    for command in ([*here, "down"], [*restart, *settings]):
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise OperationError(
                "The server on this computer did not start again. `make local-up` starts it; its "
                f"log is in {stack.state.path('log')}.\n{done.stdout}{done.stderr}".rstrip()
            )
    print("Done: the server uses it.")
