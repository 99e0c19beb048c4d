"""Everything missing or wrong is reported in one line with a next step, and exit code 1."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fake_google.state import State
from tests.operations.machine import PASSWORD, Machine
from tests.operations.test_commands import DATABASE_URL, PROXY, PSQL, SECRET

COMMANDS = ("open", "env", "logs", "status", "rotate", "people", "backup", "upkeep", "psql")
Prepare = Callable[[Machine], None]


def nothing(machine: Machine) -> None:
    machine.environment["PATH"] = str(machine.bin)


def pulumi_says(stderr: str, code: int = 1) -> Prepare:
    def prepare(machine: Machine) -> None:
        machine.stands()
        machine.pulumi("stack", "output", "--json", stderr=stderr, code=code)
        machine.pulumi("stack", "--show-name", stack=None, stderr=stderr, code=code)

    return prepare


def gcloud_says(stderr: str) -> Prepare:
    def prepare(machine: Machine) -> None:
        machine.stands()
        stand_ins(machine)
        machine.gcloud(*SECRET, stderr=stderr, code=1)

    return prepare


def stand_ins(machine: Machine) -> None:
    for name, script in (("psql", PSQL), ("cloud-sql-proxy", PROXY)):
        path = machine.bin / name
        path.write_text(script)
        path.chmod(0o755)


def without(program: str) -> Prepare:
    def prepare(machine: Machine) -> None:
        machine.stands()
        stand_ins(machine)
        machine.gcloud(*SECRET, stdout=DATABASE_URL)
        (machine.bin / program).unlink()
        machine.environment["PATH"] = str(machine.bin)

    return prepare


def as_a_person(machine: Machine) -> None:
    machine.stands(accounts="true", access="iap")
    account = {"core": {"account": "ada@example.com"}}
    machine.gcloud("config", "list", "--format=json", stdout=json.dumps(account))


def standing(**settings: str) -> Prepare:
    return lambda machine: machine.stands(**settings)


def no_outputs(machine: Machine) -> None:
    machine.stands()
    machine.pulumi("stack", "output", "--json", stdout="{}\n")


REFUSALS = {
    "no pulumi": (
        nothing,
        ["--stack", "dev", "env"],
        *("pulumi", "https://www.pulumi.com/docs/install/", "STACK=local"),
    ),
    "nothing at all": (nothing, ["status"], "`make local-up`"),
    "not logged in": (
        pulumi_says("error: PULUMI_ACCESS_TOKEN must be set for login during …\n", 3),
        ["--stack", "dev", "env"],
        "`pulumi login`",
    ),
    "no stack selected": (
        pulumi_says("error: no stack selected; please use `pulumi stack select`\n"),
        ["env"],
        "No stack was named",
        "none selected",
    ),
    "Pulumi and a local stack are missing": (
        nothing,
        ["rotate"],
        "No stack was named",
        "Pulumi isn't installed",
    ),
    "an invalid name of a stack": (
        standing(),
        ["--stack=dev'; echo INJECTED; '\n", "env"],
        "STACK=\"dev'; echo INJECTED; '\\n\"",
        "letters, digits",
    ),
    "an option for a stack": (standing(), ["--stack=-x", "env"], "STACK='-x'", "letters, digits"),
    "another stack": (
        pulumi_says("error: no stack named 'dev' found\n", 6),
        ["--stack", "dev", "env"],
        "'dev'",
        "`pulumi stack ls`",
    ),
    "no passphrase": (
        pulumi_says("error: passphrase must be set with PULUMI_CONFIG_PASSPHRASE or …\n"),
        ["--stack", "dev", "env"],
        "PULUMI_CONFIG_PASSPHRASE",
        "PULUMI_CONFIG_PASSPHRASE_FILE=",
    ),
    "something else": (
        pulumi_says("warning: x\nerror: the state is locked\nadvice\n"),
        ["--stack", "dev", "env"],
        "pulumi stack output: the state is locked",
    ),
    "not up yet": (
        no_outputs,
        ["--stack", "dev", "env"],
        "'dev'",
        "`pulumi up --stack dev`",
    ),
    "the local stack is not up": (
        nothing,
        ["--stack", "local", "env"],
        "`make local-up`",
    ),
    "no local log": (nothing, ["--stack", "local", "logs"], "this computer"),
    "format": (
        standing(),
        ["--stack", "dev", "env", "--format", "json"],
        "FORMAT='json'",
        "shell, dotenv, direnv, notebook, ci",
    ),
    "since": (
        standing(),
        ["--stack", "dev", "logs", "--since", "yesterday"],
        "SINCE='yesterday'",
        "s, m, h or d",
        "SINCE=30m",
    ),
    "a negative since": (
        standing(),
        ["--stack=dev", "logs", "--since=-1h"],
        "SINCE='-1h'",
        "SINCE=30m",
    ),
    "another script's digits": (
        standing(),
        ["--stack=dev", "logs", "--since=\uff11h"],
        "SINCE='\uff11h'",
        "SINCE=30m",
    ),
    "follow": (
        nothing,
        ["logs", "--follow=no"],
        "FOLLOW='no'",
        "FOLLOW=1",
    ),
    "write": (
        nothing,
        ["psql", "--write=0"],
        "WRITE='0'",
        "WRITE=1",
    ),
    "what": (
        standing(),
        ["--stack", "dev", "rotate", "--what", "all"],
        "WHAT='all'",
        "tracking, viewer, database, encryption",
    ),
    "what to do with people": (
        standing(accounts="true"),
        ["--stack", "dev", "people", "--what", "fire"],
        "WHAT='fire'",
        "add, remove",
    ),
    "a person without a name": (
        standing(accounts="true"),
        ["--stack", "dev", "people", "--what", "add"],
        "PERSON=''",
        "PERSON=ada@example.com",
    ),
    "a name that HTTP Basic can't have": (
        standing(accounts="true"),
        ["--stack", "dev", "people", "--what", "add", "--person", "a:b"],
        "PERSON='a:b'",
        "PERSON=ada@example.com",
    ),
    "no resource": (
        standing(accounts="true"),
        ["--stack", "dev", "people", "--what", "grant", "--person", "ada", "--resource", "12"],
        "RESOURCE='12'",
        "RESOURCE=experiment/12",
    ),
    "no permission": (
        standing(accounts="true"),
        [
            *("--stack", "dev", "people", "--what", "grant", "--person", "ada"),
            *("--resource", "experiment/12", "--permission", "WRITE"),
        ],
        "PERMISSION='WRITE'",
        "READ, USE, EDIT",
    ),
    "no accounts": (
        standing(),
        ["--stack", "dev", "people"],
        "`pulumi config set accounts true`",
    ),
    "people behind Identity-Aware Proxy": (
        as_a_person,
        ["--stack", "dev", "people"],
        "gcloud is logged in as ada@example.com",
        "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT=train@",
    ),
    "a password that the user set": (
        standing(trackingPassword="set"),
        ["--stack", "dev", "rotate"],
        "`pulumi config set --secret trackingPassword`",
        "`pulumi up`",
    ),
    "a secret that the user named": (
        standing(viewerUsername="viewer", viewerPasswordSecret="projects/p/secrets/s/versions/1"),
        ["--stack", "dev", "rotate", "--what", "viewer"],
        "`pulumi config set viewerPasswordSecret projects/…/versions/2`",
        "`pulumi up`",
    ),
    "no viewer": (
        standing(),
        ["--stack", "dev", "rotate", "--what", "viewer"],
        "`pulumi config set viewerUsername viewer`",
        "`pulumi up`",
    ),
    "no cleanup": (
        standing(cleanupAfterDays="0"),
        ["--stack", "dev", "upkeep"],
        "neither cleanupAfterDays nor archiveTracesAfterDays is set",
        "`pulumi config set cleanupAfterDays 30 --stack dev`",
    ),
    "no gcloud": (
        without("gcloud"),
        ["--stack", "dev", "backup"],
        "gcloud",
        "https://cloud.google.com/sdk/docs/install",
    ),
    "no gcloud to follow logs with": (
        without("gcloud"),
        ["--stack", "dev", "logs", "--follow=1"],
        *("gcloud", "https://cloud.google.com/sdk/docs/install"),
    ),
    "no psql": (
        without("psql"),
        ["--stack", "dev", "psql"],
        "psql",
        "`apt install postgresql-client`",
    ),
    "no proxy": (
        without("cloud-sql-proxy"),
        ["--stack", "dev", "psql"],
        "https://cloud.google.com/sql/docs/postgres/sql-proxy#install",
    ),
    "gcloud is not logged in": (
        gcloud_says("ERROR: (gcloud.secrets) You do not…\nPlease run:\n\n  $ gcloud auth login\n"),
        ["--stack", "dev", "psql"],
        "`gcloud auth login`",
    ),
    "gcloud may not": (
        gcloud_says("ERROR: (gcloud.secrets.versions.access) PERMISSION_DENIED: you\n- '@type'\n"),
        ["--stack", "dev", "psql"],
        "gcloud secrets versions access: PERMISSION_DENIED: you",
    ),
}


@pytest.mark.parametrize("row", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_one_line(
    machine: Machine, row: tuple[Prepare, list[str], *tuple[str, ...]]
) -> None:
    prepare, arguments, *facts = row
    prepare(machine)
    done = machine.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    *before, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not [fact for fact in facts if fact not in line], line
    # Commands that take long print a line before they start.
    assert not [other for other in before if not other.startswith(("database", "backing"))]
    assert PASSWORD not in done.stderr


FAILURES = {
    "logged out": (
        "error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions\n",
        "`pulumi login`",
    ),
    "an unreachable state": (
        'error: unable to open state directory "file:///gone": stat /gone: no such file\n',
        'unable to open state directory "file:///gone": stat /gone: no such file',
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("stderr", "said"), FAILURES.values(), ids=FAILURES)
def test_an_error_of_pulumi_does_not_choose_the_local_stack(
    machine: Machine, command: str, stderr: str, said: str
) -> None:
    pulumi_says(stderr)(machine)
    state = State(machine.folder / "state")
    state.create()
    assert state.acquire()
    done = machine.run(command)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: No stack was named")
    assert said in line
    assert "STACK=local" in line


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (nothing, "Pulumi isn't installed"),
        (
            pulumi_says("error: no stack selected; please use `pulumi stack select` or …\n"),
            "Pulumi has none selected",
        ),
    ],
    ids=["no Pulumi", "none selected"],
)
def test_the_local_stack_is_the_default_without_a_pulumi_stack(
    machine: Machine, prepare: Prepare, why: str
) -> None:
    prepare(machine)
    state = State(machine.folder / "state")
    state.create()
    assert state.acquire()
    done = machine.run("env")
    chosen, error = done.stderr.splitlines()
    assert why in chosen
    assert "STACK=dev" in chosen
    assert error.startswith("error: ")
    assert "`make local-up`" in error


def test_pulumis_selected_stack_is_the_default(deployed: Machine) -> None:
    done = deployed.run("env", "--format", "notebook")
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("stack dev")
    assert "STACK=local" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reports_a_stack_that_is_not_up(machine: Machine, command: str) -> None:
    no_outputs(machine)
    done = machine.run("--stack", "dev", command)
    missing = "cloud-sql-proxy" in done.stderr
    assert done.returncode == 1
    assert missing or "isn't up yet" in done.stderr
