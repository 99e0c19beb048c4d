"""`make env`: prints a client's settings in the format that the user chooses.

Only `shell` and `dotenv` contain the password. The other formats are for files that others may
see, and ask for the password instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from local.person import RUN_CONTEXT, run_context
from operations.cli_tools import ROOT
from operations.errors import OperationError
from operations.stack import CloudStack, LocalStack, Stack

PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 the variable's name
OUTPUTS = {
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "MLFLOW_TRACKING_USERNAME": "tracking_username",
}
# The sample client's plug-in for `access`, sample_client/google_login.
AUTH = {"iam": "google-iam", "iap": "google-iap"}


@dataclass(frozen=True, kw_only=True)
class Client:
    """The variables to set, and those to unset because they would interfere."""

    environment: Mapping[str, str]
    unset: Sequence[str] = ()


def client(stack: Stack) -> Client:
    if isinstance(stack, LocalStack):
        _ = stack.outputs  # raises if the stack doesn't run, as the file would be useless
        return sourced(stack.state.path("env").read_text())
    environment = {
        **{name: str(stack.outputs[output]) for name, output in OUTPUTS.items()},
        PASSWORD: stack.password(),
        RUN_CONTEXT: run_context(),
    }
    return Client(environment=environment | _auth(stack))


def sourced(text: str) -> Client:
    """Parses the file that `local/` writes, as a shell would."""
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
    return {"MLFLOW_TRACKING_AUTH": AUTH[access]} if access in AUTH else {}


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
    """Quotes a value for python-dotenv, https://github.com/theskumar/python-dotenv#file-format.

    Values that every reader understands stay unquoted, such as all generated passwords. In single
    quotes, only \\\\ and \\' are escapes, but ${NAME} is still replaced: ${:-$}, a variable without
    a name and with the default $, stands for the $.
    """
    if re.fullmatch(r"[\w./:@%+,=-]+", value, re.ASCII):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped.replace('${', '${:-$}{')}'"


def direnv(stack: Stack) -> str:
    """Returns an `.envrc` that asks Pulumi for the values, so that it contains no password."""
    if isinstance(stack, LocalStack):
        _ = stack.outputs
        return f". {shlex.quote(str(stack.state.path('env')))}"
    _ = stack.outputs
    asked = {name: _ask(stack, output) for name, output in OUTPUTS.items()}
    asked[PASSWORD] = _ask_password(stack)
    lines = [f'export {name}="$({command})"' for name, command in asked.items()]
    lines.append(f"export {RUN_CONTEXT}={shlex.quote(run_context())}")
    return "\n".join([*lines, *(f"export {name}={value}" for name, value in _auth(stack).items())])


def _ask(stack: CloudStack, *output: str) -> str:
    """Returns a command that prints an output and works in any folder."""
    where = ("--stack", stack.name, "--cwd", str(ROOT))
    return shlex.join(["pulumi", "stack", "output", *output, *where])


def _ask_password(stack: CloudStack) -> str:
    if version := stack.password_secret:
        return shlex.join(["gcloud", "secrets", "versions", "access", version])
    return _ask(stack, "tracking_password", "--show-secrets")


def notebook(stack: Stack) -> str:
    """Returns a notebook cell without the password: it asks unless the kernel already has it."""
    known: Mapping[str, str]
    unset: Sequence[str] = ()
    if isinstance(stack, LocalStack):
        found = client(stack)
        known, unset = found.environment, found.unset
    else:
        known = {name: str(stack.outputs[output]) for name, output in OUTPUTS.items()}
        known = known | _auth(stack)
    lines = ["import json", "import os", "from getpass import getpass", ""]
    lines += [f"os.environ.pop({name!r}, None)" for name in unset]
    asked_for = (PASSWORD, RUN_CONTEXT)
    lines += [f"os.environ[{name!r}] = {v!r}" for name, v in known.items() if name not in asked_for]
    asked = f"Password of {known['MLFLOW_TRACKING_USERNAME']}: "
    lines += [f"if not os.environ.get({PASSWORD!r}):"]
    lines += [f"    os.environ[{PASSWORD!r}] = getpass({asked!r})"]
    # Others may run the same notebook.
    lines += [f"if not os.environ.get({RUN_CONTEXT!r}):"]
    lines += ["    person = input(\"Your e-mail address, for 'Created by': \")"]
    lines += [f"    os.environ[{RUN_CONTEXT!r}] = json.dumps({{'mlflow.user': person}})"]
    return "\n".join(lines)


def ci(stack: Stack) -> str:
    """Returns commands for GitHub Actions, to run in the repository whose workflow logs runs.

    printf is a shell builtin, so no other process can see the password in its arguments.
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
    lines += [f"""#     {RUN_CONTEXT}: '{{"mlflow.user": "${{{{ github.actor }}}}"}}'"""]
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
