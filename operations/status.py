"""`make status`: shows what is deployed, its state and its cost, or why a part isn't known."""

from __future__ import annotations

import http.client
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fake_google.state import LocalError
from operations import cli_tools, monitoring, tracking
from operations.database import connection
from operations.errors import OperationError
from operations.monitoring import Monitoring
from operations.stack import CloudStack, LocalStack, Stack

Part = tuple[str, Callable[[], str]]


def status(stack: Stack) -> None:
    outputs = stack.outputs
    print(f"{stack}: {outputs['tracking_uri']}\n", flush=True)
    parts: list[Part] = [
        ("version", lambda: deployed_version(outputs)),
        ("answers", lambda: answers(stack)),
    ]
    parts += cloud_parts(stack) if isinstance(stack, CloudStack) else local_parts(stack)
    parts.append(("cost a month", lambda: str(outputs["monthly_cost_estimate"])))
    print(table(parts))


def table(parts: Sequence[Part]) -> str:
    width = max(len(name) for name, _ in parts)
    with ThreadPoolExecutor() as pool:
        told = pool.map(lambda part: _told(part[1]), parts)
        return "\n".join(
            f"{name:{width}}  {text}" for (name, _), text in zip(parts, told, strict=True)
        )


def deployed_version(outputs: Mapping[str, Any]) -> str:
    if "version" not in outputs:
        raise OperationError("an older release deployed the stack: `pulumi up` adds it")
    return str(outputs["version"])


def _told(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except (OperationError, LocalError, OSError) as error:
        return f"not known: {error}"


def size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


# The server's responses


def answers(stack: Stack) -> str:
    address = stack.outputs["tracking_uri"]
    opener, login = tracking.opener(stack), tracking.authorization(stack)
    started = time.monotonic()
    health, _ = _get(opener, f"{address}/health", {})
    seconds = time.monotonic() - started
    code, version = _get(opener, f"{address}/version", {"Authorization": login})
    if health == 200 and code == 200:
        return f"yes, in {seconds:.1f} s; MLflow {version[:40]} with the password"
    if health == 200 and code == 401:
        return "yes, but it refuses the password: `pulumi up` sets the password of the outputs"
    access = stack.setting("access") or "public"
    front = "" if access == "public" else f"; with access {access}, Google's front decides first"
    return f"not as expected: /health {health}, /version with the password {code}{front}"


def _get(
    opener: urllib.request.OpenerDirector, address: str, headers: dict[str, str]
) -> tuple[int, str]:
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 an output of the stack
    try:
        with opener.open(request, timeout=tracking.ANSWER_SECONDS) as answer:
            return answer.status, answer.read(1000).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except (OSError, http.client.HTTPException) as error:
        raise OperationError(f"no answer from {address} ({error})") from None


# On Google Cloud


def cloud_parts(stack: CloudStack) -> list[Part]:
    database = stack.connection_name
    # One token for all metrics, requested while the other commands run.
    token = ThreadPoolExecutor(1).submit(cli_tools.gcloud, "auth", "print-access-token")
    metrics = Monitoring(project=stack.project, token=lambda: token.result().strip())
    in_sql = {"project_id": database.project, "database_id": database.database_id}
    bucket = str(stack.outputs["artifact_bucket"])

    def instances() -> str:
        found = metrics.newest(
            monitoring.INSTANCES, service_name=stack.service, location=stack.region
        )
        return f"{found or 0:.0f}, some minutes ago"

    def instance() -> str:
        told = cli_tools.gcloud_json(
            *("sql", "instances", "describe", database.instance),
            f"--project={database.project}",
        )
        return instance_line(told)

    def in_use() -> str:
        disk = metrics.newest(monitoring.DISK, **in_sql)
        connections = metrics.newest(monitoring.CONNECTIONS, **in_sql)
        if disk is None and connections is None:
            raise OperationError("nothing was measured in the last minutes")
        return f"{size(disk or 0)} of disk, connections: {connections or 0:.0f}"

    def storage() -> str:
        stored = metrics.newest(monitoring.STORED, bucket_name=bucket)
        objects = metrics.newest(monitoring.OBJECTS, bucket_name=bucket)
        if stored is None:
            return f"{bucket}: nothing yet (it is measured once a day)"
        count = f"{objects or 0:.0f} objects"
        return f"{bucket}: {size(stored)}, {count}, with older versions, at the last day's end"

    return [
        ("revision", lambda: _revisions(stack)),
        ("instances", instances),
        ("database", instance),
        ("in use", in_use),
        ("storage", storage),
    ]


def _revisions(stack: CloudStack) -> str:
    return revision_line(
        cli_tools.gcloud_json(
            *("run", "services", "describe", stack.service),
            *(f"--region={stack.region}", f"--project={stack.project}"),
        )
    )


def revision_line(service: Mapping[str, Any]) -> str:
    """Formats https://cloud.google.com/run/docs/reference/rest/v1/namespaces.services#ServiceStatus"""
    told = service.get("status", {})
    traffic = [
        f"{target.get('percent', 0)} % {target.get('revisionName', '')}"
        for target in told.get("traffic", ())
        if target.get("percent")
    ]
    created, ready = told.get("latestCreatedRevisionName"), told.get("latestReadyRevisionName")
    line = ", ".join(traffic) or "none has traffic"
    if created == ready:
        return line
    why = next(
        (one.get("message", "") for one in told.get("conditions", ()) if one["status"] == "False"),
        "",
    )
    return f"{line}; the newest, {created}, isn't ready. {why}".rstrip()


def instance_line(told: Mapping[str, Any]) -> str:
    """Formats https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1/instances"""
    settings = told.get("settings", {})
    version = str(told.get("databaseInstalledVersion") or told.get("databaseVersion"))
    version = version.replace("POSTGRES_", "PostgreSQL ").replace("_", ".")
    standby = ", with a standby" if settings.get("availabilityType") == "REGIONAL" else ""
    return (
        f"{told.get('name')} is {told.get('state')}, {version}, {settings.get('tier')}{standby}, "
        f"{settings.get('dataDiskSizeGb')} GB of disk"
    )


# On this computer


def local_parts(stack: LocalStack) -> list[Part]:
    def server() -> str:
        known = stack.state.load("processes.json").items()
        pids = [entry["pid"] for name, entry in known if name.startswith("server ")]
        if not pids:
            raise OperationError("it is being started again")
        return f"process {pids[-1]}, {size(_resident(pids[-1]))} of memory"

    def database() -> str:
        with connection(stack) as asked:
            [[version, bytes_used, connections]] = asked.run(
                "SELECT current_setting('server_version'), pg_database_size(current_database()),"
                " (SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid())"
            )
        return f"PostgreSQL {version}, {size(bytes_used)} of disk, connections: {connections}"

    def storage() -> str:
        from fake_google.storage.objects import usage

        bucket = stack.outputs["artifact_bucket"]
        count, stored = usage(stack.state.path("storage"), bucket)
        return f"{bucket}: {size(stored)}, {count} objects"

    return [("server", server), ("database", database), ("storage", storage)]


def _resident(pid: int) -> float:
    told = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], check=False, capture_output=True, text=True
    ).stdout
    if not told.strip():
        raise OperationError(f"process {pid} has ended")
    return int(told) * 1024
