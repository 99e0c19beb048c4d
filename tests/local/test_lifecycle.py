"""Start, stop and failure: each ends in one clear line, and data stays."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.local.conftest import ROOT, Stack
from tests.local.test_stack import CHECK

STOPS = "`make local-down` stops it."
OF_BEFORE = """
import mlflow
(run,) = mlflow.search_runs(experiment_names=["before"], output_format="list")
print(mlflow.MlflowClient().download_artifacts(run.info.run_id, "texts/notes.txt"))
"""


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the foreground command's output until the text appears."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended without saying {text!r}")


def test_data_and_credentials_outlive_a_restart(own_stack: Stack) -> None:
    """The second start stores artifacts directly, which needs Google credentials."""
    assert own_stack.up().returncode == 0
    before = own_stack.environment()
    assert own_stack.client(CHECK, MLFLOW_EXPERIMENT_NAME="before").returncode == 0
    again = own_stack.up()
    assert (again.returncode, "already runs" in again.stdout) == (0, True)
    refused = own_stack.run(own_stack.command("clean"))
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)

    stopped = own_stack.down()
    assert (stopped.returncode, "the data stays" in stopped.stdout) == (0, True)
    assert own_stack.client(CHECK).returncode == 1
    twice = own_stack.down()
    assert (twice.returncode, "Nothing runs" in twice.stdout) == (0, True)

    own_stack.config = ("artifacts=direct",)
    started = own_stack.up()
    assert started.returncode == 0, started.stdout + started.stderr
    assert own_stack.environment().items() >= before.items()
    # Artifacts logged through the server earlier are still read through it.
    earlier = own_stack.client("-c", OF_BEFORE)
    assert earlier.returncode == 0, earlier.stderr
    (own_stack.folder / "log" / "server.log").write_text("")
    ran = own_stack.client(CHECK)
    assert ran.returncode == 0, ran.stderr
    requests = (own_stack.folder / "log" / "server.log").read_text()
    assert "/mlflow-artifacts/" not in requests
    nobody = own_stack.client(
        CHECK, GCE_METADATA_HOST="127.0.0.1:9", GCE_METADATA_IP="127.0.0.1:9", NO_GCE_CHECK="true"
    )
    assert nobody.returncode == 1
    assert "there are no Google credentials here" in nobody.stderr
    assert "gcloud auth application-default login" in nobody.stderr

    own_stack.down()
    assert own_stack.run(own_stack.command("clean")).returncode == 0
    assert not own_stack.folder.exists()


def test_two_starts_at_once(light_stack: Stack) -> None:
    """One of them runs and keeps the terminal; the other prints the address."""
    stacks = [light_stack, Stack(light_stack.folder, python=light_stack.python)]
    for _ in range(3):
        starting = [
            subprocess.Popen(
                stack.starting("up"), cwd=ROOT, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for stack in stacks
        ]  # fmt: skip
        said = [process.communicate(timeout=120)[0] for process in starting]
        assert [process.returncode for process in starting] == [0, 0], said
        lost = [shown.startswith("It already runs") for shown in said]
        assert sorted(lost) == [False, True], said
        won = stacks[lost.index(False)]
        address = f"http://127.0.0.1:{won.port}"
        assert said[lost.index(True)] == f"It already runs, at {address}. {STOPS}\n"
        shown = said[lost.index(False)]
        assert shown.count(f"  address    {address}\n") == shown.count("ready in") == 1
        assert (light_stack.folder / "log" / "local.log").read_text() == shown
        light_stack.down()


def test_ctrl_c_stops_everything(light_stack: Stack) -> None:
    with subprocess.Popen(
        light_stack.starting("run"),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as running:
        wait_for(running, "Ctrl-C stops it")
        second = light_stack.run(light_stack.starting("run"))
        assert (second.returncode, "It already runs, at http://" in second.stderr) == (1, True)
        assert len(processes_of(light_stack)) >= 2
        running.send_signal(signal.SIGINT)
        wait_for(running, "the data stays")
        assert running.wait(30) == 0
    assert processes_of(light_stack) == []


def test_leftovers_of_a_killed_run_are_removed(light_stack: Stack) -> None:
    running = subprocess.Popen(
        light_stack.starting("run"),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    wait_for(running, "Ctrl-C stops it")
    running.kill()
    running.communicate()
    left = processes_of(light_stack)
    assert left
    started = light_stack.up()
    assert started.returncode == 0, started.stdout + started.stderr
    assert "left by a run that was killed" in started.stdout
    assert not set(left) & set(processes_of(light_stack))


def test_a_busy_port_is_named(light_stack: Stack) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", light_stack.port))
        other.listen()
        refused = light_stack.up()
    assert refused.returncode == 1
    assert f"Port {light_stack.port} can't be used" in refused.stdout + refused.stderr
    assert "make local" in refused.stdout + refused.stderr
    assert processes_of(light_stack) == []


def test_invalid_settings_are_refused_before_anything_is_created(own_stack: Stack) -> None:
    own_stack.config = ("memory=100Mi", "maxInstances=50", "colour=blue")
    refused = own_stack.up()
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1
    assert "Traceback" not in said
    for key in ("memory", "databaseConnections", "colour"):
        assert f"mlflow-gcp:{key}" in said
    assert not (own_stack.folder / "postgres").exists()


@pytest.mark.parametrize(
    ("file", "declared", "instead", "said"),
    [
        (
            "infra/google/secrets.py",
            "roles/secretmanager.secretAccessor",
            "roles/secretmanager.viewer",
            "lacks roles/secretmanager.secretAccessor on it",
        ),
        (
            "infra/google/database.py",
            "roles/cloudsql.client",
            "roles/cloudsql.viewer",
            "does the service's account have roles/cloudsql.client?",
        ),
        (
            "infra/google/service.py",
            "_SECRET",
            "_SECRETS",
            "TRACKING_PASSWORD_SECRET is not set",
        ),
    ],
    ids=["secret's grant", "database's grant", "secrets' names"],
)
def test_a_mistake_in_the_program_fails_locally_first(
    own_stack: Stack, tmp_path: Path, file: str, declared: str, instead: str, said: str
) -> None:
    """A copy of the program with one mistake; the server's own message is shown."""
    copy = tmp_path / "copy"
    for name in ("infra", "local", "fake_google"):
        shutil.copytree(ROOT / name, copy / name)
    shutil.copy(ROOT / "__main__.py", copy)
    source = (copy / file).read_text()
    assert declared in source
    (copy / file).write_text(source.replace(declared, instead))
    own_stack.root = copy
    failed = own_stack.up()
    output = failed.stdout + failed.stderr
    assert failed.returncode == 1
    assert said in output
    assert "Traceback" not in output
    assert processes_of(own_stack) == []


def processes_of(stack: Stack) -> list[int]:
    """Returns the processes with the stack's folder in their command or environment."""
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, which this system does not have")
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(") ")[2][0]
        except OSError:
            continue
        mine = str(stack.folder).encode() in seen and state != "Z"
        if mine and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
