"""`make backup`: backs up the database. Artifacts are in the bucket, which keeps versions."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime

from operations import cli_tools
from operations.database import DatabaseLogin, program
from operations.errors import OperationError
from operations.stack import CloudStack, LocalStack, Stack


def backup(stack: Stack) -> None:
    if isinstance(stack, CloudStack):
        _cloud(stack)
    else:
        _local(stack)


def _cloud(stack: CloudStack) -> None:
    project, instance = stack.connection_name.project, stack.connection_name.instance
    if stack.setting("existingDatabaseInstance"):
        print(f"{instance} isn't the stack's own: a backup or restore covers everything in it.")
    print(f"backing up {instance}, which takes some minutes", file=sys.stderr)
    cli_tools.gcloud(
        *("sql", "backups", "create", f"--instance={instance}", f"--project={project}"),
        f"--description=make backup of {stack}",
    )
    where = f"--project {project}"
    restore = [
        f"gcloud sql backups list --instance {instance} {where}",
        f"gcloud sql backups restore BACKUP_ID --restore-instance {instance} {where}",
    ]
    print("Done. The backup stays until you delete it. To restore it, and lose all later data:")
    print("\n".join(f"  {command}" for command in restore))
    print('See docs/runbooks.md, "Restore the database", for the other steps.')


def _local(stack: LocalStack) -> None:
    login = DatabaseLogin.of(stack.database_url())
    pg_dump = program("pg_dump", stack)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sql"
    file = stack.state.directory("backups") / name
    # Another suffix until the backup is complete, so that no one uses an incomplete one.
    part = file.with_suffix(".part")
    # One transaction: the script replaces everything or nothing.
    stack.state.write(f"backups/{part.name}", "BEGIN;\n")
    try:
        with part.open("a") as script:
            done = subprocess.run(
                [pg_dump, "--clean", "--if-exists"],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=script,
                stderr=subprocess.PIPE,
                text=True,
                env=login.environment(stack.sockets(), write=False),
            )
            script.write("COMMIT;\n")
        if done.returncode:
            said = cli_tools.refusal(done.stderr) or f"pg_dump: exit code {done.returncode}"
            raise OperationError(said)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    print(
        f"{file}\n"
        "To restore it, and lose all later data:\n"
        f"  make psql STACK=local WRITE=1 < {shlex.quote(str(file))}\n"
        "`make local-clean` removes it with the rest: copy it to keep it."
    )
