"""Each format, evaluated by its own program, with passwords that are hard to quote."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from operations import env
from operations.stack import CloudStack
from tests.operations.machine import OUTPUTS, PASSWORD, Machine
from tests.page_commands import ROOT, stand_in

CLIENT = ROOT / ".venvs" / "client" / "bin" / "python"
PASSWORDS = [
    "OnlyLettersAndDigits123",
    PASSWORD,
    "it's",
    '"',
    "'",
    "'quoted'",
    "$HOME ${HOME} ${} ${:-x} $${A} $(id) `id`",
    "back\\slash \\' \\n \\",
    "  spaces around  ",
    "#hash = sign; & | > <",
    "ünïcödé 🙂",
    "!bang ~ * ? [a] {a,b} %s",
    "-n",
]


class Deployed(CloudStack):
    """A stack with fixed outputs."""

    outputs: Mapping[str, Any] = OUTPUTS

    def __init__(self, password: str, access: str = "public") -> None:
        super().__init__("dev")
        self._password, self._access = password, access

    def password(self) -> str:
        return self._password

    def setting(self, key: str) -> str:
        assert key == "access"
        return self._access


RUN_CONTEXT = json.dumps({"mlflow.user": "ada@example.com"})


@pytest.fixture(autouse=True)
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git knows the person's address."""
    for name, value in {"COUNT": "1", "KEY_0": "user.email", "VALUE_0": "ada@example.com"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)


def wanted(password: str) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": OUTPUTS["tracking_uri"],
        "MLFLOW_TRACKING_USERNAME": "mlflow",
        "MLFLOW_TRACKING_PASSWORD": password,
        "MLFLOW_RUN_CONTEXT": RUN_CONTEXT,
    }


def evaluated(script: str, *, by: str, path: str = os.defpath) -> dict[str, str]:
    """Returns the variables that a shell has after it ran the script."""
    done = subprocess.run(
        [by, "-euc", f"{script}\nenv -0"],
        check=True, env={"PATH": path, "HOME": "/"}, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stderr
    pairs = [entry.split("=", 1) for entry in done.stdout.split("\0") if entry]
    return {name: value for name, value in pairs if name.startswith("MLFLOW_")}


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("password", PASSWORDS)
def test_a_shell_evaluates_its_format(password: str, shell: str) -> None:
    assert evaluated(env.shell(Deployed(password)), by=shell) == wanted(password)


READ = """
import io, json, sys
from dotenv import dotenv_values
files = json.load(sys.stdin)
print(json.dumps([dict(dotenv_values(stream=io.StringIO(file))) for file in files]))
"""


def test_python_dotenv_reads_its_format() -> None:
    files = [env.dotenv(Deployed(password)) for password in PASSWORDS]
    done = subprocess.run(
        [CLIENT, "-c", READ],
        check=True, env={"HOME": "/home"}, input=json.dumps(files), capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [wanted(password) for password in PASSWORDS]
    # A generated password needs no quotes, so that simpler readers can read it.
    assert "PASSWORD=OnlyLettersAndDigits123" in files[0]


@pytest.mark.parametrize("known", [True, False], ids=["in the kernel", "asked for"])
def test_a_notebook_runs_its_format(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = env.notebook(Deployed(PASSWORD))
    assert PASSWORD not in cell
    for name in wanted(""):
        monkeypatch.delenv(name, raising=False)
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return PASSWORD

    monkeypatch.setattr("getpass.getpass", answer)
    monkeypatch.setattr("builtins.input", lambda _: "ada@example.com")
    if known:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT", RUN_CONTEXT)
    exec(cell, {})  # noqa: S102
    assert {name: os.environ[name] for name in wanted("")} == wanted(PASSWORD)
    assert asked == ([] if known else ["Password of mlflow: "])


def knowing_ada(machine: Machine) -> Machine:
    stand_in(machine.bin, "git", "#!/bin/sh\necho ada@example.com\n")
    return machine


def asking(machine: Machine) -> None:
    """Expect the calls of Pulumi that direnv makes from another folder."""
    for output in ("tracking_uri", "tracking_username", "tracking_password"):
        secret = output == "tracking_password"
        machine.tell(
            [
                *("pulumi", "stack", "output", output, *(["--show-secrets"] if secret else [])),
                *("--stack", "dev", "--cwd", str(ROOT)),
            ],
            f"{PASSWORD if secret else OUTPUTS[output]}\n",
        )


def test_direnv_reads_the_password_from_pulumi(deployed: Machine) -> None:
    done = knowing_ada(deployed).run("--stack", "dev", "env", "--format", "direnv")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout
    assert not [call for call in deployed.calls("pulumi") if "--show-secrets" in call]
    asking(deployed)
    path = deployed.environment["PATH"]
    assert evaluated(done.stdout, by="bash", path=path) == wanted(PASSWORD)


def test_a_password_in_an_existing_secret_is_read_from_google(machine: Machine) -> None:
    version = "projects/my-project/secrets/my-password/versions/3"
    machine.stands(outputs={"tracking_password_secret": version})
    read = ("secrets", "versions", "access", version)
    machine.gcloud(*read, stdout=PASSWORD)
    shell = knowing_ada(machine).run("--stack", "dev", "env")
    assert evaluated(shell.stdout, by="sh") == wanted(PASSWORD)
    asking(machine)
    machine.tell(["gcloud", *read], PASSWORD)
    direnv = machine.run("--stack", "dev", "env", "--format", "direnv").stdout
    path = machine.environment["PATH"]
    assert evaluated(direnv, by="bash", path=path) == wanted(PASSWORD)
    assert not [call for call in machine.calls("pulumi") if "--show-secrets" in call]


GH = f"""#!{sys.executable} -IS
import json, sys
from pathlib import Path
given = "" if sys.argv[1] == "variable" else sys.stdin.read()
with (Path(__file__).parent / "calls").open("a") as calls:
    print(json.dumps(["gh", *sys.argv[1:], given]), file=calls)
"""


def test_gh_gets_the_password_on_stdin(deployed: Machine) -> None:
    done = deployed.run("--stack", "dev", "env", "--format", "ci")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout
    asking(deployed)
    stand_in(deployed.bin, "gh", GH)
    (deployed.bin / "calls").write_text("")
    subprocess.run(["sh", "-eu"], check=True, input=done.stdout, text=True,
                   env=deployed.environment)  # fmt: skip
    called = [json.loads(line) for line in (deployed.bin / "calls").read_text().splitlines()]
    assert [arguments for name, *arguments in called if name == "gh"] == [
        ["variable", "set", "MLFLOW_TRACKING_URI", "--body", OUTPUTS["tracking_uri"], ""],
        ["variable", "set", "MLFLOW_TRACKING_USERNAME", "--body", "mlflow", ""],
        ["secret", "set", "MLFLOW_TRACKING_PASSWORD", PASSWORD],
    ]
    steps = "".join(line[2:] for line in io.StringIO(done.stdout) if line.startswith("#   "))
    assert yaml.safe_load(steps)["env"] == {
        "MLFLOW_TRACKING_URI": "${{ vars.MLFLOW_TRACKING_URI }}",
        "MLFLOW_TRACKING_USERNAME": "${{ vars.MLFLOW_TRACKING_USERNAME }}",
        "MLFLOW_TRACKING_PASSWORD": "${{ secrets.MLFLOW_TRACKING_PASSWORD }}",
        "MLFLOW_RUN_CONTEXT": '{"mlflow.user": "${{ github.actor }}"}',
    }


@pytest.mark.parametrize(("access", "plug_in"), [("iam", "google-iam"), ("iap", "google-iap")])
@pytest.mark.parametrize("format", env.FORMATS)
def test_every_format_names_the_google_login_where_needed(
    format: str, access: str, plug_in: str
) -> None:
    written = env.FORMATS[format](Deployed("x" * 20, access))
    assert "MLFLOW_TRACKING_AUTH" in written
    assert plug_in in written
    assert "MLFLOW_TRACKING_AUTH" not in env.FORMATS[format](Deployed("x" * 20))


def test_the_file_of_the_local_stack_is_parsed_as_by_a_shell(tmp_path: Path) -> None:
    text = "unset A B\nexport ONE='it'\"'\"'s $1'\nexport TWO=2=2\nexport NONE=''\n"
    found = env.sourced(text)
    assert found.environment == {"ONE": "it's $1", "TWO": "2=2", "NONE": ""}
    assert found.unset == ["A", "B"]
