"""`make upkeep`: runs the upkeep job now, or shows what it would do, and prints its log."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

from infra.facts.names import upkeep_job
from operations import cli_tools
from operations.errors import OperationError
from operations.logs import Entry, line, local_line
from operations.stack import CloudStack, LocalStack, Stack

DRY_RUN = "--dry-run"
# The last line of a run, which may be readable later than the job's end.
LAST = "upkeep: "
_ASKS, _ASK_SECONDS = 12, 5
_MOST = 1000


def upkeep(stack: Stack, *, dry_run: bool) -> int:
    """Runs the job and returns its exit code."""
    arguments = [DRY_RUN] if dry_run else []
    if isinstance(stack, CloudStack):
        return _cloud(stack, arguments)
    return _local(stack, arguments)


def _off(stack: Stack, how: str) -> OperationError:
    return OperationError(
        f"{stack} has no upkeep job, because neither cleanupAfterDays nor archiveTracesAfterDays "
        f"is set: {how}, for example, has it delete what users deleted more than 30 days ago."
    )


def _local(stack: LocalStack, arguments: Sequence[str]) -> int:
    job = stack.entry["jobs"].get(upkeep_job(stack.service))
    if job is None:
        raise _off(stack, "`make local-up CONFIG=cleanupAfterDays=30`")
    environment = job["environment"]
    with subprocess.Popen(
        [*job["command"], *arguments],
        env=environment,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101
        for text in process.stdout:
            print(local_line(text.rstrip("\n")).lstrip(), flush=True)
    return process.returncode


def _cloud(stack: CloudStack, arguments: Sequence[str]) -> int:
    _ = stack.outputs  # refuses a stack that isn't up
    days = [stack.setting(key) for key in ("cleanupAfterDays", "archiveTracesAfterDays")]
    if not {*days} - {"", "0"}:
        raise _off(stack, f"`pulumi config set cleanupAfterDays 30 --stack {stack.name}`")
    where = (f"--region={stack.region}", f"--project={stack.project}")
    given = [f"--args={argument}" for argument in arguments]
    name = upkeep_job(stack.service)
    execution = cli_tools.gcloud_json("run", "jobs", "execute", name, "--wait", *given, *where)
    entries = _read(stack, execution["metadata"]["name"])
    for entry in entries:
        print(line(entry))
    return 0


def _read(stack: CloudStack, execution: str) -> Sequence[Entry]:
    """Returns the log of one execution, once its last line is readable."""
    chosen = (
        'resource.type="cloud_run_job"'
        f' AND resource.labels.location="{stack.region}"'
        f' AND labels."run.googleapis.com/execution_name"="{execution}"'
    )
    entries: list[Entry] = []
    for _ in range(_ASKS):
        entries = cli_tools.gcloud_json(
            *("logging", "read", chosen, f"--limit={_MOST}", "--order=asc", "--freshness=1d"),
            f"--project={stack.project}",
        )
        if any(LAST in (entry.get("jsonPayload") or {}).get("message", "") for entry in entries):
            break
        time.sleep(_ASK_SECONDS)
    return entries
