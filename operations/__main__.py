"""`python -m operations`: a stack that stands. `make open`, `env` and their neighbours wrap it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fake_google.state import LocalError, State
from operations.browser import open_page
from operations.commands import ROOT
from operations.env import FORMATS, env
from operations.errors import OperationError
from operations.logs import logs
from operations.rotate import SECRETS, rotate
from operations.stack import find


def _yes(name: str) -> Callable[[str], bool]:
    """Of a value as make passes it on, empty where nothing was given."""

    def read(given: str) -> bool:
        if given not in ("", "1"):
            raise OperationError(
                f"{name}={given!r} isn't known: for example {name}=1 for yes; without it, it's no."
            )
        return given == "1"

    return read


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m operations", description=__doc__)
    parser.add_argument("--stack", default="", help="one of Pulumi's, or local")
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".local", help="where the data of `local` lies"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("open", help="MLflow's page in the browser")
    command = commands.add_parser("env", help="what a client needs")
    command.add_argument("--format", default="", help=", ".join(FORMATS))
    command = commands.add_parser("logs", help="the server's log")
    command.add_argument("--since", default="", help="how far back, such as 30m")
    command.add_argument(
        "--follow", type=_yes("FOLLOW"), default=False, help="1: go on until Ctrl-C"
    )
    commands.add_parser("status", help="what stands, and how it is")
    command = commands.add_parser("rotate", help="another password or key")
    command.add_argument("--what", default="", help=", ".join(SECRETS))
    commands.add_parser("backup", help="the database as it is now")
    command = commands.add_parser("psql", help="a prompt in the database")
    command.add_argument("--write", type=_yes("WRITE"), default=False, help="1: let it write")
    return parser.parse_args(arguments)


def _run(arguments: argparse.Namespace) -> int:
    stack = find(
        arguments.stack,
        state=State(arguments.state),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    # What a database takes is imported where it is needed: `env` may run at every new shell.
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
            rotate(stack, what=arguments.what or "tracking")
        case "backup":
            from operations.backup import backup

            backup(stack)
        case _:
            from operations.psql import psql

            return psql(stack, write=arguments.write)
    return 0


def _end(signum: int, _frame: object) -> None:
    sys.exit(128 + signum)


def main() -> int:
    # A terminal that is closed, or who ends this, also ends the way to the database.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        code = _run(_parse(sys.argv[1:]))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads has seen enough, as `make logs | head`; nor is anything flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OperationError, LocalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
