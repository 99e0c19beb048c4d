"""Stand-ins for the programs in the pages' commands, as strict about arguments as the real ones.

In a shell, each stand-in records its arguments and prints what the page needs to continue. This
module then checks the record: an unknown command, option or file must be removed from the page, or
added to these tables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.test_names import settings
from tests.infra.declared import ROOT

# By command: its options, with `=` if they require a value, and the number of its other arguments.
Table = dict[str, tuple[str, int]]

GCLOUD: Table = {
    "auth application-default login": ("--impersonate-service-account=", 0),
    "auth login": ("", 0),
    "billing accounts list": ("", 0),
    "compute addresses list": ("--filter=", 0),
    "iam service-accounts delete": ("--quiet", 1),
    "iam service-accounts disable": ("", 1),
    "iam service-accounts enable": ("", 1),
    "kms keys list": ("", 0),
    "logging read": ("--freshness= --limit= --format=", 1),
    "run revisions list": ("--service= --region=", 0),
    "run services delete": ("--region= --quiet", 1),
    "run services proxy": ("--region=", 1),
    "run services update": ("--region= --ingress=", 1),
    "run services update-traffic": ("--region= --to-revisions=", 1),
    "secrets create": ("--data-file=", 1),
    "secrets versions access": ("--secret=", 1),
    "services vpc-peerings list": ("--network=", 0),
    "sql backups create": ("--instance= --description=", 0),
    "sql backups list": ("--instance=", 0),
    "sql backups restore": ("--restore-instance= --backup-instance=", 1),
    "sql databases list": ("--instance=", 0),
    "sql instances clone": ("--point-in-time=", 2),
    "sql instances delete": ("", 1),
    "sql instances describe": ("--format=", 1),
    "sql instances list": ("", 0),
    "sql instances get-latest-recovery-time": ("", 1),
    "sql instances patch": ("--no-deletion-protection", 1),
    "storage buckets add-iam-policy-binding": ("--role= --member=", 1),
    "storage cp": ("", 2),
    "storage ls": ("--all-versions --soft-deleted --recursive", 1),
    "storage restore": ("", 1),
    "storage rsync": ("--recursive", 2),
}
PULUMI: Table = {
    "config get": ("", 1),
    "config rm": ("", 1),
    "config set": ("--path --secret", 2),
    "destroy": ("", 0),
    "install": ("", 0),
    "new": ("", 0),
    "package add": ("", 0),
    "import": ("--file= --protect= --generate-code= --yes", 0),
    "login": ("", 1),
    "preview": ("", 0),
    "stack": ("--show-name", 0),
    "stack change-secrets-provider": ("", 1),
    "stack init": ("", 1),
    "stack output": ("--show-secrets", 1),
    "up": ("--refresh", 0),
}
# https://github.com/sigstore/cosign/tree/main/doc
COSIGN: Table = {
    "copy": ("", 2),
    "verify": ("--certificate-identity= --certificate-oidc-issuer=", 1),
}
GH: Table = {
    "api": ("--field= --input= --jq= --method=", 1),
    "attestation verify": ("--repo=", 1),
    "secret set": ("--env=", 1),
    "variable set": ("--body= --env=", 1),
}
MLFLOW: Table = {
    "db prepopulate-trace-analytics": ("", 1),
    "db upgrade": ("", 1),
    "experiments restore": ("--experiment-id=", 0),
    "gc": ("--older-than= --backend-store-uri=", 0),
    "migrate-filestore": ("--source= --target=", 0),
    "runs restore": ("--run-id=", 0),
    "server": ("--backend-store-uri= --artifacts-destination= --app-name= --workers=", 0),
}
OTHERS: dict[str, tuple[str, int]] = {
    # https://cloud.google.com/sql/docs/postgres/connect-auth-proxy
    "cloud-sql-proxy": ("--port= --unix-socket=", 1),
    # https://direnv.net/man/direnv.1.html
    "direnv": ("", 1),
    # https://pgloader.readthedocs.io/en/latest/pgloader.html
    "pgloader": ("", 1),
    # https://www.postgresql.org/docs/17/app-pgdump.html and the pages of psql and pg_restore
    "pg_dump": ("--format= --no-owner --no-privileges --schema= --file=", 1),
    "pg_restore": (
        "--clean --if-exists --no-owner --no-privileges --exit-on-error --dbname=",
        1,
    ),
    "psql": ("--command=", 1),
    "sleep": ("", 1),
}


@dataclass(frozen=True)
class Wrong(Exception):
    """The program's complaint."""

    why: str


def judged(argv: Sequence[str]) -> str:
    """Returns what is wrong with the command; an empty text if it is fine."""
    program, *words = argv
    try:
        _PROGRAMS[program](words)
    except Wrong as wrong:
        return f"{shlex.join(argv)}: {wrong.why}"
    except KeyError:
        return f"{shlex.join(argv)}: no test starts {program}"
    return ""


def command_of(table: Table, words: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the longest command of the table that the words begin with, and the other words."""
    for count in range(len(words), 0, -1):
        if (command := " ".join(words[:count])) in table:
            return command, [*words[count:]]
    raise Wrong("no such command")


def given(options: str, count: int, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the options with their values, and the other words."""
    known = options.split()
    found, plain, left = {}, [], iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            plain.append(word)
        elif f"{name}=" in known:
            found[name] = value if equals else next(left, "")
            if not found[name]:
                raise Wrong(f"{name} takes a value")
        elif word in known:
            found[name] = ""
        else:
            raise Wrong(f"no such option: {name}")
    if len(plain) != count:
        raise Wrong(f"{count} arguments expected, {len(plain)} given")
    if empty := [word for word in plain if not word]:
        raise Wrong(f"{len(empty)} arguments are empty")
    return found, plain


def _with(table: Table) -> Callable[[Sequence[str]], None]:
    def judge(words: Sequence[str]) -> None:
        command, rest = command_of(table, words)
        given(*table[command], rest)

    return judge


def _alone(options: str, count: int) -> Callable[[Sequence[str]], None]:
    def judge(words: Sequence[str]) -> None:
        given(options, count, words)

    return judge


def _pulumi(words: Sequence[str]) -> None:
    command, rest = command_of(PULUMI, words)
    _, plain = given(*PULUMI[command], rest)
    if command.startswith("config"):
        key = plain[0].partition("[")[0]
        if key.partition(".")[0] not in settings():
            raise Wrong(f"Pulumi.yaml has no setting {key}")


def _make(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)).split())
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and not re.search(rf"\$\({name}\)|\$\$\{{?{name}\b", makefile):
            raise Wrong(f"the Makefile reads no {name}")
        if not equals and word not in phony:
            raise Wrong(f"the Makefile makes no {word}")


def _python(words: Sequence[str]) -> None:
    match words:
        case ["-m", "pytest", *arguments]:
            there = [word for word in arguments if "/" in word]
        case ["-m", module, *_]:
            there = [module.replace(".", "/")]
        case [script, *_]:
            there = [script]
        case []:
            raise Wrong("nothing to run")
    for path in there:
        _exists(path)


def _pip(words: Sequence[str]) -> None:
    if words[:1] != ["install"]:
        raise Wrong("no such command")
    match words[1:]:
        case ["-r", path]:
            _exists(path)
        case [*packages] if packages:
            for package in packages:
                if "/" in package:
                    _exists(package)
                elif not re.fullmatch(r"[a-z0-9-]+(\[[a-z]+\])?(==[\w.]+)?", package):
                    raise Wrong(f"no package: {package}")
        case _:
            raise Wrong("nothing to install")


def _git(words: Sequence[str]) -> None:
    match words:
        case ["clone", url] if url.startswith("https://"):
            pass
        case ["tag", _] | ["pull"]:
            pass
        case _:
            raise Wrong("no such command")


def _exists(path: str) -> None:
    if not (ROOT / path).exists():
        raise Wrong(f"no such file: {path}")


_PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {
    "cosign": _with(COSIGN),
    "gcloud": _with(GCLOUD),
    "gh": _with(GH),
    "git": _git,
    "make": _make,
    "mlflow": _with(MLFLOW),
    "pip": _pip,
    "pulumi": _pulumi,
    "python": _python,
    **{program: _alone(*known) for program, known in OTHERS.items()},
}
NAMES = tuple(_PROGRAMS)

# Prints what the page needs to continue.
STAND_IN = r"""#!/bin/sh
# In one write, because some run at the same time.
words=$(printf '%s\036' "${{0##*/}}" "$@"; printf '\035')
printf '%s' "$words" >> "{log}"
# A program that pipes a value into one that doesn't read it may be ended by the closed pipe.
if [ -p /dev/stdin ]; then cat > /dev/null; fi
case "${{0##*/}} $*" in
    "make local-up") echo "export MLFLOW_TRACKING_URI=http://127.0.0.1:8080" > .local/env ;;
    "pulumi stack output database_connection_name") echo my-project:us-central1:mlflow-1 ;;
    "pulumi stack output "*) echo "an-output" ;;
    "pulumi stack --show-name") echo dev ;;
    "gh api "*" --jq .id") echo 74 ;;
    "pulumi config get gcp:project") echo my-project ;;
    "pulumi config get "*) exit 1 ;;
    "gcloud secrets versions access latest --secret "*)
        echo "postgresql+pg8000://mlflow:word@/mlflow?unix_sock=/cloudsql/x/.s.PGSQL.5432" ;;
    "cloud-sql-proxy "*) exec /bin/sleep 30 >/dev/null 2>&1 ;;
esac
"""


def started(log: Path) -> Iterator[list[str]]:
    """Returns the arguments of each start of a stand-in, in order."""
    for entry in log.read_text().split("\035")[:-1]:
        yield entry.split("\036")[:-1]
