"""Finds the stack, its settings and the resources that it has created already."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.settings.reader import load
from infra.settings.refusals import SettingsError, command_line
from infra.settings.schema import Settings
from operations.stack import LOCAL, NAME, settings_file, with_settings

from .findings import Finding, fix, not_checked, ok, warning
from .tools import run

DEFAULT = "dev"
# The version that tests/engine uses; we haven't tested older ones.
OLDEST_PULUMI = (3, 259, 0)
PULUMI_SECONDS = 30
INSTALL = "https://www.pulumi.com/docs/install/"


@dataclass(frozen=True, kw_only=True)
class Pulumi:
    """What Pulumi's command line reports about itself and the stack."""

    # Empty: Pulumi isn't installed.
    version: str
    user: str = ""
    # Why no user is logged in.
    logged_out: str = ""
    selected: str = ""


@dataclass(frozen=True, kw_only=True)
class Stack:
    name: str
    why: str
    config: Mapping[str, Any]
    # Empty if the file is valid.
    trouble: str = ""


def ask_pulumi(*, selected: bool, folder: Path) -> Pulumi:
    if shutil.which("pulumi") is None:
        return Pulumi(version="")
    version = _pulumi(folder, "version")
    if version.returncode:
        return Pulumi(version="")
    user = _pulumi(folder, "whoami")
    name = (
        _pulumi(folder, "stack", "--show-name").stdout if selected and not user.returncode else ""
    )
    return Pulumi(
        version=version.stdout.strip(),
        user="" if user.returncode else user.stdout.strip(),
        logged_out=user.stderr.strip() if user.returncode else "",
        selected=name.strip(),
    )


INSTANCE = "gcp:sql/databaseInstance:DatabaseInstance"
SUFFIX = ("random:index/randomId:RandomId", "instance-suffix")


@dataclass(frozen=True, kw_only=True)
class Suffix:
    """The random end of an instance's name, which the state has before the instance exists."""

    hex: str
    # The URN of the component that declares the instance.
    parent: str


@dataclass(frozen=True, kw_only=True)
class State:
    # Whether Pulumi reports the state; the other fields are valid only then.
    known: bool
    exists: bool = False
    # The types and names of the resources that the stack has created.
    made: frozenset[tuple[str, str]] = frozenset()
    # The names of its Cloud SQL instances.
    instances: frozenset[str] = frozenset()
    suffix: Suffix | None = None


def state_of(stack: str, folder: Path) -> State:
    done = _pulumi(folder, "stack", "export", "--stack", stack)
    if done.returncode:
        return State(known="no stack named" in done.stderr)
    try:
        deployment = json.loads(done.stdout).get("deployment") or {}
        resources = [(_key(each["urn"]), each) for each in deployment.get("resources") or []]
        return State(
            known=True,
            exists=True,
            made=frozenset(key for key, _ in resources),
            instances=frozenset(
                str(each["outputs"]["name"]) for (kind, _), each in resources if kind == INSTANCE
            ),
            suffix=next(
                (
                    Suffix(hex=str(each["outputs"]["hex"]), parent=str(each["parent"]))
                    for key, each in resources
                    if key == SUFFIX
                ),
                None,
            ),
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        return State(known=False)


def _key(urn: str) -> tuple[str, str]:
    """`urn:pulumi:dev::mlflow-gcp::mlflow-gcp:infra:Secrets$gcp:…:Secret::name` -> type, name"""
    _, _, types, name = urn.split("::", 3)
    return types.rpartition("$")[2], name


def _pulumi(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(
        *("pulumi", *arguments, "--non-interactive"),
        seconds=PULUMI_SECONDS,
        folder=folder,
        environment={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
    )


def choose(named: str | None, *, selected: str, folder: Path) -> Stack:
    """Returns the named stack, the one that Pulumi has selected, or this repository's default."""
    name, why = named or selected or DEFAULT, ""
    if not named:
        why = "selected in Pulumi" if selected else "none is selected in Pulumi, so the first"
    if not NAME.fullmatch(name):
        return Stack(
            name=name,
            why=why,
            config={},
            trouble="isn't a stack's name (letters, digits, hyphens, dots and underscores)",
        )
    file = folder / settings_file(name)
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        if name == LOCAL:
            return Stack(
                name=name,
                why=why,
                config={},
                trouble="is the stack on this computer: `make local` checks it itself",
            )
        return Stack(
            name=name,
            why=why,
            config={},
            trouble=f"has no {file.name}; there is one for {with_settings(folder)}",
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return Stack(name=name, why=why, config={}, trouble=f"{file.name} is no YAML")
    config = content.get("config") if isinstance(content, dict) else None
    return Stack(name=name, why=why, config=config if isinstance(config, dict) else {})


def settings_of(stack: Stack) -> Settings | SettingsError:
    """Loads the settings, with placeholders instead of encrypted values."""
    secret = {key for key, value in stack.config.items() if _encrypted(value)}
    config = {
        key: "x" * 32 if key in secret else value
        for key, value in stack.config.items()
        if value is not None
    }
    try:
        return load(config, is_secret=secret.__contains__)
    except SettingsError as error:
        return error


def _encrypted(value: Any) -> bool:
    return isinstance(value, dict) and "secure" in value


def check_stack(stack: Stack) -> Finding:
    if stack.trouble:
        return fix(
            "stack",
            f"{stack.name} {stack.trouble}",
            "make doctor STACK=dev, or make one: pulumi stack init my-stack && "
            "pulumi config set gcp:project my-project",
        )
    return ok("stack", f"{stack.name} ({stack.why})" if stack.why else stack.name)


def check_settings(settings: Settings | SettingsError) -> list[Finding]:
    if isinstance(settings, Settings):
        return [ok("settings", f"they hold together; region {settings.region}")]
    return [
        fix(
            "settings",
            f"{refusal.key}: given {refusal.given}; expected {refusal.expected}",
            command_line(refusal.remedy),
        )
        for refusal in settings.refusals
    ]


def check_pulumi(pulumi: Pulumi) -> list[Finding]:
    if not pulumi.version:
        return [
            fix("pulumi", "no working Pulumi on the PATH", f"install it: {INSTALL}"),
            not_checked("pulumi login", "there is no Pulumi"),
        ]
    oldest = ".".join(map(str, OLDEST_PULUMI))
    number = re.match(r"v?(\d+)\.(\d+)\.(\d+)", pulumi.version)
    if not number or tuple(map(int, number.groups())) < OLDEST_PULUMI:
        version = warning(
            "pulumi",
            f"{pulumi.version}; the oldest version that this program is tested with is v{oldest}",
            f"update it: {INSTALL}",
        )
    else:
        version = ok("pulumi", pulumi.version)
    if not pulumi.user:
        return [
            version,
            fix(
                "pulumi login",
                f"nobody is logged in to where the state is kept: {pulumi.logged_out}",
                "pulumi login, or with the state in a bucket: pulumi login gs://my-state-bucket",
            ),
        ]
    return [version, ok("pulumi login", pulumi.user)]


def check_state(stack: Stack, state: State) -> Finding:
    if not state.known:
        return not_checked("state", "Pulumi does not say what the stack has made already")
    if not state.exists:
        return warning(
            "state", f"Pulumi has no stack {stack.name} yet", f"pulumi stack init {stack.name}"
        )
    count = len([kind for kind, _ in state.made if kind.startswith("gcp:")])
    return ok("state", f"resources created already: {count}" if count else "nothing made yet")
