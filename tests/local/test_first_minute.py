"""The output of `make local` for a newcomer, with and without obstacles."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fake_google.state import State
from local.supervise import fitting, screen, took
from tests.local.conftest import Stack
from tests.local.test_lifecycle import processes_of

NOWHERE = "http://127.0.0.1:9"
PROXY = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), NOWHERE)
READ = "import mlflow; print(len(mlflow.search_experiments()))"


@contextmanager
def disk(place: Path, options: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a disk that is small or can't be written")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize(
    ("installing", "starting", "said"),
    [
        (33.4, 8.2, "ready in 41 s: 33 s installing, 8 s starting"),
        (0.0, 3.6, "ready in 4 s"),
        (0.0, 0.2, "ready in 1 s"),
    ],
)
def test_only_steps_that_were_taken_are_timed(
    installing: float, starting: float, said: str
) -> None:
    assert took(installing=installing, starting=starting) == said


@pytest.mark.parametrize(
    ("viewer", "said"),
    [({}, ""), ({"username": "guest", "password": "seen"}, "\n  viewer     guest, with seen")],
)
def test_logins_are_printed(tmp_path: Path, viewer: dict[str, str], said: str) -> None:
    user = {"uri": "http://127.0.0.1:1", "username": "me", "password": "mine"}
    outputs = {f"tracking_{what}": value for what, value in user.items()}
    outputs |= {f"viewer_{what}": value for what, value in viewer.items()}
    shown = screen(State(tmp_path), outputs, ready="ready", detached=True)
    assert f"  username   me\n  password   mine{said}\n\n" in shown


ROTATED = {
    f"mlflow-gcp:{name}": "2"
    for name in (
        "trackingPasswordVersion",
        "viewerPasswordVersion",
        "databasePasswordVersion",
        "encryptionKeyVersion",
    )
}


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"viewerUsername": "viewer"}, set()),
        ({}, {"viewerPasswordVersion"}),
        ({"viewerUsername": ""}, {"viewerPasswordVersion"}),
        (
            {"viewerUsername": "viewer", "viewerPassword": "a long password of mine"},
            {"viewerPasswordVersion"},
        ),
        (
            {"viewerUsername": "viewer", "viewerPasswordSecret": "projects/p/secrets/s/versions/1"},
            {"viewerPasswordVersion"},
        ),
        (
            {"trackingPassword": "a long password of mine"},
            {"viewerPasswordVersion", "trackingPasswordVersion"},
        ),
        (
            {"trackingPasswordSecret": "projects/p/secrets/s/versions/1"},
            {"viewerPasswordVersion", "trackingPasswordVersion"},
        ),
        ({"trackingPassword": "", "viewerUsername": "viewer"}, set()),
    ],
)
def test_versions_that_conflict_with_the_settings_are_left_out(
    given: dict[str, str], left_out: set[str]
) -> None:
    held = fitting(ROTATED, {f"mlflow-gcp:{key}": value for key, value in given.items()})
    assert {key.removeprefix("mlflow-gcp:") for key in ROTATED.keys() - held.keys()} == left_out
    assert set(held.values()) == {"2"}


def test_a_rotated_password_outlives_a_start_without_its_user(light_stack: Stack) -> None:
    light_stack.config = ("viewerUsername=viewer",)
    assert light_stack.up().returncode == 0
    rotate = [sys.executable, "-m", "operations", "--state", str(light_stack.folder)]
    rotate += ["--stack", "local", "rotate", "--what", "viewer"]
    rotated = light_stack.run(rotate)
    assert rotated.returncode == 0, rotated.stdout + rotated.stderr
    passwords = [viewers_password(light_stack)]
    for config in ((), ("viewerUsername=viewer",)):
        light_stack.down()
        light_stack.config = config
        started = light_stack.up()
        assert started.returncode == 0, started.stdout + started.stderr
        passwords.append(viewers_password(light_stack))
    assert passwords == [passwords[0], None, passwords[0]]


def viewers_password(stack: Stack) -> str | None:
    password: str | None = State(stack.folder).supervisor()["outputs"].get("viewer_password")
    return password


@pytest.mark.parametrize("port", ["abc", "0", "70000", "-1"])
def test_an_invalid_port_is_refused(own_stack: Stack, port: str) -> None:
    refused = own_stack.run([*own_stack.starting("up"), f"--port={port}"])
    assert refused.returncode == 1
    assert refused.stderr == (
        f"error: PORT is a number from 1 to 65535, such as 8080, not {port!r}.\n"
    )


def test_behind_a_proxy(own_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the server nor its clients use a company's proxy for local addresses."""
    for name, address in PROXY.items():
        monkeypatch.setenv(name, address)
    started = own_stack.up()
    assert started.returncode == 0, started.stdout + started.stderr
    assert "ready in" in started.stdout
    assert "installing" not in started.stdout
    read = own_stack.client("-c", READ, **PROXY)
    assert (read.returncode, read.stdout) == (0, "1\n"), read.stderr


def test_a_full_disk_stops_the_start_in_one_line() -> None:
    with TemporaryDirectory(prefix="mlflow-gcp-small-") as folder:
        # Otherwise the database's user can't reach the folder, and the data is stored elsewhere.
        Path(folder).chmod(0o711)
        with disk(Path(folder, "small"), "size=20m"):
            stack = Stack(Path(folder, "small", "state"))
            failed = stack.up()
            stack.down()
            stack.run(stack.command("clean"))
    assert failed.returncode == 1
    *_, line = (failed.stdout + failed.stderr).splitlines()
    assert line.startswith("error: PostgreSQL could not make its database: the disk is full.")
    assert "Traceback" not in failed.stdout + failed.stderr
    assert processes_of(stack) == []


def test_a_full_disk_does_not_prevent_a_stop(tmp_path: Path) -> None:
    with disk(tmp_path / "small", "size=1m"):
        state = State(tmp_path / "small" / "state")
        state.create()
        state.save("processes.json", {"one": {}, "two": {}})
        (tmp_path / "small" / "rest").write_bytes(bytes(900_000))
        filled = subprocess.run(
            ["dd", "if=/dev/zero", "bs=1k", f"of={tmp_path / 'small' / 'last'}"],
            check=False, capture_output=True,
        )  # fmt: skip
        assert b"No space left" in filled.stderr
        state.forget("one")
        assert "two" in state.load("processes.json")
