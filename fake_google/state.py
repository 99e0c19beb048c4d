"""The `.local/` directory: data that outlasts a run, and the processes that belong to it.

```
lock              held (flock) by the running supervisor
supervisor.json   the supervisor's process, address and outputs
processes.json    the programs that it started, to find them after a kill -9
env               a client's settings, for `source`
settings.json     settings of `make rotate`, for all later runs
*.json, keys/     random values, secrets, signing keys: mode 0600
postgres/ storage/ log/ home/
```
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# Settings that outlast a run.
SETTINGS = "settings.json"


class LocalError(Exception):
    """Tells the user what went wrong and what to do about it."""


@dataclass(frozen=True)
class Process:
    """A process, distinguishable from a later one with the same id."""

    pid: int
    started: str
    command: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Returns the running process with this id, or None."""
        proc = Path("/proc") / str(pid)
        try:
            if Path("/proc/self/stat").exists():
                state, *fields = (proc / "stat").read_text().rpartition(") ")[2].split()
                boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
                started = f"{boot}/{fields[18]}"
                command = (proc / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            else:
                row = subprocess.run(
                    ["ps", "-o", "state=,lstart=,command=", "-p", str(pid)],
                    capture_output=True,
                    text=True,
                    check=True,
                    env={**os.environ, "LC_ALL": "C"},
                ).stdout.split(maxsplit=6)
                state, started, command = row[0], " ".join(row[1:6]), row[6]
        except (OSError, subprocess.CalledProcessError, IndexError):
            return None
        return None if state.startswith("Z") else cls(pid, started, command)

    def alive(self) -> bool:
        found = Process.of(self.pid)
        return found is not None and found.started == self.started and self.command in found.command

    def send(self, signum: signal.Signals, *, patience: float) -> bool:
        """Sends a signal and waits. A different process with the same id gets no signal."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)
        deadline = time.monotonic() + patience
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.alive()

    def stop(self, *, how: signal.Signals, seconds: float) -> None:
        """Stops the process with the signal, then with SIGKILL."""
        if not self.send(how, patience=seconds):
            self.send(signal.SIGKILL, patience=5)


class State:
    """One `.local/` directory."""

    def __init__(self, root: Path, *, lock: int | None = None) -> None:
        """`lock` is a lock that the parent process has taken and passes on."""
        self.root = root.resolve()
        self.lock = lock
        if lock is not None:
            os.set_inheritable(lock, False)

    @property
    def digest(self) -> str:
        """Returns a name for shared directories that differs between clones on one computer."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def directory(self, *parts: str) -> Path:
        path = self.path(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def create(self) -> None:
        """Creates the directory. The database's user may pass through it, but not list it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # The file marks the directory as ours, so that `clean` may remove it.
            if not self.path("lock").exists():
                if any(self.root.iterdir()):
                    raise LocalError(
                        f"{self.root} has something else in it. Name a directory that is empty or "
                        "not there yet: `--state ~/mlflow-local`."
                    )
                self.path("lock").touch(0o600)
            self.root.chmod(0o711)
        except OSError as error:
            raise LocalError(
                f"{self.root} can't be made ({error.strerror}). Name a directory that you may "
                "write: `--state ~/mlflow-local`."
            ) from None

    def load(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self.path(name).read_text())
            if not isinstance(content, dict):
                raise ValueError("it holds no JSON object")
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise LocalError(
                f"{self.path(name)} is damaged ({error}). Put back a copy of it, or run "
                "`make local-clean`, which removes the data too, and start again."
            ) from None
        return content

    def save(self, name: str, content: dict[str, Any]) -> None:
        self.write(name, json.dumps(content, indent=1))

    def write(self, name: str, text: str) -> None:
        """Writes a file atomically, readable only by the owner."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(path.name + ".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        temporary.replace(path)

    # One supervisor at a time

    def acquire(self) -> bool:
        """Takes the supervisor's lock, which the kernel releases when the process ends."""
        descriptor = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self.lock = descriptor
        return True

    def release(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def running(self) -> bool:
        if not self.path("lock").exists():
            return False
        if not self.acquire():
            return True
        self.release()
        return False

    def supervisor(self) -> dict[str, Any]:
        return self.load("supervisor.json")

    # Processes

    def remember(
        self, name: str, pid: int, *, command: str, how: signal.Signals, seconds: float
    ) -> None:
        """Records a process. `command` is a part of its command line.

        Just after a start, the kernel may not know the command line yet.
        """
        found = Process.of(pid)
        if found is None:
            return  # It has ended already, and the code that started it reports why.
        process = replace(found, command=command)
        known = self.load("processes.json")
        known[name] = {**asdict(process), "how": int(how), "seconds": seconds}
        self.save("processes.json", known)

    def forget(self, name: str) -> None:
        known = self.load("processes.json")
        known.pop(name, None)
        # Stop processes even if the disk is full; a stale entry does no harm.
        with contextlib.suppress(OSError):
            self.save("processes.json", known)

    def stop_remembered(self) -> list[str]:
        """Stops the processes that a killed supervisor left behind, the newest first."""
        stopped = []
        for name, entry in reversed(self.load("processes.json").items()):
            process = Process(entry["pid"], entry["started"], entry["command"])
            if process.alive():
                process.stop(how=signal.Signals(entry["how"]), seconds=entry["seconds"])
                stopped.append(f"{name} (process {process.pid})")
            self.forget(name)
        return stopped

    # Directories elsewhere

    def outside(self, path: Path, *, mode: int) -> Path:
        """Creates a private directory outside `.local/`, which `clean` also removes."""
        try:
            path.mkdir(mode=mode)
        except FileExistsError:
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise LocalError(
                    f"{path} exists and is not this user's directory: remove it and start again."
                ) from None
        path.chmod(mode)
        known = self.load("outside.json")
        if str(path) not in known:
            self.save("outside.json", {**known, str(path): True})
        return path

    def short_directory(self) -> Path:
        """Creates a directory for Unix sockets: paths have at most 103 bytes (macOS) or 107."""
        return self.outside(Path("/tmp") / f"mlflow-gcp-{os.getuid()}-{self.digest}", mode=0o711)  # noqa: S108

    def cloudsql_root(self) -> Path:
        return self.short_directory() / "sql"

    def clean(self) -> None:
        """Deletes the directory, even if it is damaged."""
        if not self.root.exists():
            return
        if not self.path("lock").exists():
            raise LocalError(f"{self.root} is not removed: nothing in it says that it is ours.")
        with contextlib.suppress(LocalError):
            self.stop_remembered()
        with contextlib.suppress(LocalError):
            for path in self.load("outside.json"):
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.root)
