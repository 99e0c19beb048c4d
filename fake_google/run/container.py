"""Cloud Run: runs a container's process, with its probes and its log.

https://cloud.google.com/run/docs/container-contract,
https://cloud.google.com/run/docs/configuring/healthchecks
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from fake_google.state import LocalError, State

# Cloud Run's time between SIGTERM and SIGKILL.
GRACE_SECONDS = 10
_MAX_RESTARTS = 3
_LOG_BYTES = 16 << 20


class BootFailed(LocalError):
    """The server ended, or didn't respond to its startup probe in time."""


@dataclass(frozen=True)
class Probe:
    path: str
    period: float = 10
    timeout: float = 1
    failures: int = 3
    delay: float = 0

    @classmethod
    def declared(cls, probe: Mapping[str, Any] | None) -> Probe | None:
        if not probe or "httpGet" not in probe:
            return None
        return cls(
            path=probe["httpGet"].get("path", "/"),
            period=float(probe.get("periodSeconds", cls.period)),
            timeout=float(probe.get("timeoutSeconds", cls.timeout)),
            failures=int(probe.get("failureThreshold", cls.failures)),
            delay=float(probe.get("initialDelaySeconds", cls.delay)),
        )

    def passes(self, address: str) -> bool:
        request = urllib.request.Request(  # noqa: S310 our own http address
            address + self.path, headers={"User-Agent": "GoogleHC/1.0"}
        )
        try:
            with _DIRECT.open(request, timeout=self.timeout) as answer:
                return 200 <= int(answer.status) < 400
        except (OSError, http.client.HTTPException):
            # A response that isn't HTTP is from another program, which used the port before.
            return False


# A proxy in the environment can't reach this computer's own addresses.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def describe(line: str) -> tuple[str, str]:
    """Returns a log line's severity and text, from Cloud Logging's fields if it is JSON."""
    try:
        entry = json.loads(line)
    except ValueError:
        return "DEFAULT", line
    return described(entry) if isinstance(entry, dict) else ("DEFAULT", line)


def described(entry: Mapping[str, Any]) -> tuple[str, str]:
    severity, text = str(entry.get("severity", "DEFAULT")), str(entry.get("message", ""))
    if http := entry.get("httpRequest"):
        fields = ("requestMethod", "requestUrl", "status", "latency")
        text = " ".join(str(http[name]) for name in fields if name in http)
    return severity, text


def stamped(line: bytes) -> bytes:
    """Adds the time of arrival to a line without a time, as Cloud Logging does."""
    if not line.startswith(b'{"'):
        return line
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return b'{"timestamp": "%s", %s' % (now.encode(), line[1:])


class Service:
    def __init__(
        self,
        *,
        state: State,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        port: int | None,
        startup: Probe | None,
        liveness: Probe | None,
        say: Callable[[str], None],
        stopping: threading.Event,
        log: str = "server",
    ) -> None:
        """Without a port, the container serves nothing, and is ready once it runs."""
        self._state, self._name, self._command = state, name, list(command)
        self._environment, self._say = dict(environment), say
        # Cloud Run's default is a TCP probe; here, any HTTP response counts.
        self._startup = startup or Probe(path="/", period=240, timeout=240, failures=1)
        self._liveness = liveness
        self._serves = port is not None
        self.address = f"http://127.0.0.1:{port}"
        self.log = state.directory("log") / f"{log}.log"
        self._what = f"the {log}"
        self._process: subprocess.Popen[bytes] | None = None
        self._last_error = ""
        self._stopping = stopping
        self._retired = False
        self.ended = threading.Event()
        """Set when the server has ended and is not started again."""

    def start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self._spawn()
        threading.Thread(target=self._watch, name="liveness", daemon=True).start()

    def _spawn(self) -> None:
        """Starts the process, and returns when its startup probe succeeds."""
        self._last_error = ""
        process = self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=self._environment["HOME"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # only the supervisor gets Ctrl-C, and stops things in order
        )
        assert process.stdout is not None  # noqa: S101
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        self._state.remember(
            self._name,
            process.pid,
            command=self._command[-1],
            how=signal.SIGTERM,
            seconds=GRACE_SECONDS,
        )
        if not self._serves:
            return
        probe = self._startup
        time.sleep(probe.delay)
        deadline = time.monotonic() + probe.period * probe.failures
        while (
            process.poll() is None and time.monotonic() < deadline and not self._stopping.is_set()
        ):
            if probe.passes(self.address):
                return
            time.sleep(0.05)
        code = process.poll()
        self._terminate()
        reader.join(timeout=1)
        what = (
            f"The server did not answer {probe.path} within {probe.period * probe.failures:.0f} s."
            if code is None
            else f"The server ended with exit code {code} before it was ready."
        )
        last = self._last_error or "nothing"
        raise BootFailed(f"{what} It said: {last}\n  Its log: {self.log}")

    def _read(self, stream: IO[bytes]) -> None:
        with self.log.open("ab", buffering=0) as log:
            self.log.chmod(0o600)
            for line in stream:
                # On a full disk, the log has gaps, and the server continues.
                with contextlib.suppress(OSError):
                    log.write(stamped(line))
                severity, text = describe(line.decode(errors="replace").rstrip())
                if severity not in ("DEBUG", "INFO", "NOTICE") and text:
                    self._last_error = text
                self._say(f"{severity.lower():8} {text}")

    def _watch(self) -> None:
        """Runs the liveness probe, and restarts a container that has ended."""
        probe, failures, restarts = self._liveness, 0, 0
        asked = time.monotonic()
        # Exits are noticed within a second, whatever the probe's period.
        while not self._stopping.wait(min(probe.period, 1) if probe else 1):
            process = self._process
            code = process.poll() if process else None
            if self._retired:
                return
            if code is None:
                if probe is None or (not failures and time.monotonic() - asked < probe.period):
                    continue
                asked = time.monotonic()
                failures = 0 if probe.passes(self.address) else failures + 1
                if failures < probe.failures:
                    continue
            reason = "failed its liveness probe" if code is None else f"ended with exit code {code}"
            restarts, failures = restarts + 1, 0
            if restarts > _MAX_RESTARTS or self._stopping.is_set():
                self._say(f"error    {self._what} {reason}; it is not started a further time")
                break
            self._say(f"warning  {self._what} {reason}: starting it again")
            self._terminate()
            try:
                self._spawn()
            except BootFailed as failed:
                if not self._stopping.is_set():
                    self._say(f"error    {failed}")
                break
        if not self._stopping.is_set():
            self.ended.set()

    def _terminate(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._state.forget(self._name)

    def stop(self) -> None:
        """Stops the container with SIGTERM and, after ten seconds, SIGKILL, as Cloud Run does."""
        self._retired = True
        self._terminate()


def base_environment(home: Path) -> dict[str, str]:
    """Returns the variables that every container has, and none of this computer's user.

    HOME is an empty folder: in the user's home, google-auth would find the user's credentials.
    """
    return {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8"}
