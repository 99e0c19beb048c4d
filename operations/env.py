"""`make env`: what a client needs, in the form of where it is needed.

Only `shell` and `dotenv` have the password in them. What is kept in a file that others may see
asks for it instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from operations.commands import ROOT
from operations.errors import OperationError
from operations.stack import CloudStack, LocalStack, Stack

PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 the variable's name
OUTPUTS = {
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "MLFLOW_TRACKING_USERNAME": "tracking_username",
}
# The sample client's plug-in for `access`, sample_client/google_login.
_AUTH = {"iam": "google-iam", "iap": "google-iap"}


@dataclass(frozen=True, kw_only=True)
class Client:
    """The variables, and those of somebody else's that would get in their way."""

    environment: Mapping[str, str]
    unset: Sequence[str] = ()


def client(stack: Stack) -> Client:
    if isinstance(stack, LocalStack):
        _ = stack.outputs  # it runs, or what the file says is of no use
        return sourced(stack.state.path("env").read_text())
    environment = {
        **{name: str(stack.outputs[output]) for name, output in OUTPUTS.items()},
        PASSWORD: stack.password(),
    }
    return Client(environment=environment | _auth(stack))


def sourced(text: str) -> Client:
    """What a shell would make of the file that `local/` writes for it."""
    environment: dict[str, str] = {}
    unset: list[str] = []
    for line in text.splitlines():
        verb, *words = shlex.split(line)
        if verb == "unset":
            unset += words
        else:
            for name, _, value in (word.partition("=") for word in words):
                environment[name] = value
    return Client(environment=environment, unset=unset)


def _auth(stack: CloudStack) -> dict[str, str]:
    access = stack.setting("access")
    return {"MLFLOW_TRACKING_AUTH": _AUTH[access]} if access in _AUTH else {}


def shell(stack: Stack) -> str:
    found = client(stack)
    lines = [f"unset {' '.join(found.unset)}"] if found.unset else []
    lines += [f"export {name}={shlex.quote(value)}" for name, value in found.environment.items()]
    return "\n".join(lines)


def dotenv(stack: Stack) -> str:
    return "\n".join(
        f"{name}={dotenv_value(value)}" for name, value in client(stack).environment.items()
    )


def dotenv_value(value: str) -> str:
    """As python-dotenv reads it, https://github.com/theskumar/python-dotenv#file-format.

    Unquoted where any reader takes it so: every password that the stack generates. In single
    quotes only \\\\ and \\' are escapes, but ${NAME} is replaced in them too; the default of a
    variable without a name puts the $ back.
    """
    if re.fullmatch(r"[\w./:@%+,=-]+", value, re.ASCII):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped.replace('${', '${:-$}{')}'"


def direnv(stack: Stack) -> str:
    """An `.envrc` without the password: direnv runs it, and it asks."""
    if isinstance(stack, LocalStack):
        _ = stack.outputs
        return f". {shlex.quote(str(stack.state.path('env')))}"
    _ = stack.outputs
    asked = {name: _ask(stack, output) for name, output in OUTPUTS.items()}
    asked[PASSWORD] = _ask_password(stack)
    lines = [f'export {name}="$({command})"' for name, command in asked.items()]
    return "\n".join([*lines, *(f"export {name}={value}" for name, value in _auth(stack).items())])


def _ask(stack: CloudStack, *output: str) -> str:
    """From wherever it is run."""
    where = ("--stack", stack.name, "--cwd", str(ROOT))
    return shlex.join(["pulumi", "stack", "output", *output, *where])


def _ask_password(stack: CloudStack) -> str:
    if version := stack.password_secret:
        return shlex.join(["gcloud", "secrets", "versions", "access", version])
    return _ask(stack, "tracking_password", "--show-secrets")


def notebook(stack: Stack) -> str:
    """A cell that may be saved and shown: it asks where the kernel wasn't given the password."""
    known: Mapping[str, str]
    unset: Sequence[str] = ()
    if isinstance(stack, LocalStack):
        found = client(stack)
        known, unset = found.environment, found.unset
    else:
        known = {name: str(stack.outputs[output]) for name, output in OUTPUTS.items()}
        known = known | _auth(stack)
    lines = ["import os", "from getpass import getpass", ""]
    lines += [f"os.environ.pop({name!r}, None)" for name in unset]
    lines += [f"os.environ[{name!r}] = {v!r}" for name, v in known.items() if name != PASSWORD]
    asked = f"Password of {known['MLFLOW_TRACKING_USERNAME']}: "
    lines += [f"if not os.environ.get({PASSWORD!r}):"]
    lines += [f"    os.environ[{PASSWORD!r}] = getpass({asked!r})"]
    return "\n".join(lines)


def ci(stack: Stack) -> str:
    """For GitHub Actions: run it in the repository whose workflow logs.

    printf is the shell's own, so no other process sees the password among its arguments.
    """
    if isinstance(stack, LocalStack):
        raise OperationError(
            "FORMAT=ci is for a stack on Google Cloud, for example STACK=dev: "
            "GitHub's machines don't reach this computer."
        )
    variables = {name: str(stack.outputs[output]) for name, output in OUTPUTS.items()}
    variables |= _auth(stack)
    lines = [
        f"gh variable set {name} --body {shlex.quote(value)}" for name, value in variables.items()
    ]
    lines += [f'printf %s "$({_ask_password(stack)})" | gh secret set {PASSWORD}', ""]
    lines += ["# and in the workflow, for the steps that log:", "#   env:"]
    lines += [f"#     {name}: ${{{{ vars.{name} }}}}" for name in variables]
    lines += [f"#     {PASSWORD}: ${{{{ secrets.{PASSWORD} }}}}"]
    return "\n".join(lines)


FORMATS: Mapping[str, Callable[[Stack], str]] = {
    "shell": shell,
    "dotenv": dotenv,
    "direnv": direnv,
    "notebook": notebook,
    "ci": ci,
}


def env(stack: Stack, *, format: str) -> None:
    if format not in FORMATS:
        raise OperationError(
            f"FORMAT={format!r} isn't known: one of {', '.join(FORMATS)}, for example "
            "FORMAT=dotenv."
        )
    print(FORMATS[format](stack))
