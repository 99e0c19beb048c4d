"""`python -m operations`: the commands for a deployed stack, which `make open` and others run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fake_google.state import LocalError, State
from operations.browser import open_page
from operations.cli_tools import ROOT
from operations.env import FORMATS, env
from operations.errors import OperationError
from operations.logs import logs
from operations.people import ACTIONS, PERMISSIONS, people
from operations.previous_password import hours
from operations.rotate import SECRETS, rotate
from operations.stack import find


def _yes(name: str) -> Callable[[str], bool]:
    """Returns a parser of a flag: 1 for yes, or empty, which make passes on by default."""

    def read(given: str) -> bool:
        if given not in ("", "1"):
            raise OperationError(
                f"{name}={given!r} isn't known: for example {name}=1 for yes; without it, it's no."
            )
        return given == "1"

    return read


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m operations", description=__doc__)
    parser.add_argument("--stack", default="", help="a Pulumi stack, or local")
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".local", help="the data folder of `local`"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("open", help="open MLflow's page in the browser")
    command = commands.add_parser("env", help="print a client's settings")
    command.add_argument("--format", default="", help=", ".join(FORMATS))
    command = commands.add_parser("logs", help="show the server's log")
    command.add_argument("--since", default="", help="how far back, such as 30m")
    command.add_argument(
        "--follow", type=_yes("FOLLOW"), default=False, help="1: continue until Ctrl-C"
    )
    commands.add_parser("status", help="show what is deployed, and its state")
    command = commands.add_parser("rotate", help="replace a password or key")
    command.add_argument("--what", default="", help=", ".join(SECRETS))
    command.add_argument(
        "--hours", default="", help="how long the previous password is accepted too, such as 24"
    )
    command.add_argument(
        "--end", type=_yes("END"), default=False, help="1: stop accepting the previous password"
    )
    command = commands.add_parser("people", help="list and change people's accounts")
    command.add_argument("--what", default="", help=", ".join(ACTIONS))
    command.add_argument("--person", default="", help="the account's name")
    command.add_argument("--resource", default="", help="such as experiment/12")
    command.add_argument("--permission", default="", help=", ".join(PERMISSIONS))
    commands.add_parser("backup", help="back up the database now")
    command = commands.add_parser("upkeep", help="run the upkeep job now")
    command.add_argument(
        "--dry-run", type=_yes("DRY_RUN"), default=False, help="1: only show what it would do"
    )
    command = commands.add_parser("psql", help="open psql on the database")
    command.add_argument("--write", type=_yes("WRITE"), default=False, help="1: let it write")
    return parser.parse_args(arguments)


def _run(arguments: argparse.Namespace) -> int:
    stack = find(
        arguments.stack,
        state=State(arguments.state),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    # Imports for the database are late, because they are slow: `env` may run in every new shell.
    match arguments.command:
        case "open":
            open_page(stack)
        case "env":
            env(stack, format=arguments.format or "shell")
        case "logs":
            logs(stack, since=arguments.since or "1h", follow=arguments.follow)
        case "status":
            from operations.status import status

            status(stack)
        case "rotate":
            rotate(
                stack,
                what=arguments.what or "tracking",
                accepted_for=hours(arguments.hours),
                end=arguments.end,
            )
        case "people":
            people(
                stack,
                what=arguments.what or "list",
                person=arguments.person,
                resource=arguments.resource,
                permission=arguments.permission,
            )
        case "backup":
            from operations.backup import backup

            backup(stack)
        case "upkeep":
            from operations.upkeep import upkeep

            return upkeep(stack, dry_run=arguments.dry_run)
        case _:
            from operations.psql import psql

            return psql(stack, write=arguments.write)
    return 0


def _end(signum: int, _frame: object) -> None:
    sys.exit(128 + signum)


def main() -> int:
    # Exit normally on these signals, so that the proxy to the database ends too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        code = _run(_parse(sys.argv[1:]))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has closed the pipe, as in `make logs | head`. Python's flush at exit must not
        # fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OperationError, LocalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
