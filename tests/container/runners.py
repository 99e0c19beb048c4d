"""Runs a container of the image: with Docker, or with runc alone.

Both run it as Cloud Run does, or with less: the image's own user and entry point, no capabilities,
a read-only root, `/tmp` in memory, the connector's sockets under `/cloudsql`. Only the network is
this machine's, where Google's stand-ins listen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

NAME = "mlflow-gcp-test"

MEMORY = 1 << 30
"""The default of the setting `memory`. Files in /tmp count, as on Cloud Run."""


class Runner(Protocol):
    """Has plain fields only, so that it can be written to a file for `launch.py`."""

    def command(
        self,
        *,
        name: str,
        env: Mapping[str, str],
        sockets: Mapping[str, Path],
        arguments: Sequence[str] | None = None,
        folder: Path,
    ) -> list[str]:
        """Returns the command that runs a container in the foreground.

        `arguments` replace those of the entry point.
        """


@dataclass(frozen=True)
class Docker:
    def command(
        self,
        *,
        name: str,
        env: Mapping[str, str],
        sockets: Mapping[str, Path],
        arguments: Sequence[str] | None = None,
        folder: Path,
    ) -> list[str]:
        entry = ["--entrypoint", arguments[0]] if arguments else []
        return [
            *("docker", "run", "--rm", "--name", name, "--network", "host", "--read-only"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--tmpfs", "/tmp:mode=1777", "--memory", str(MEMORY), "--memory-swap", str(MEMORY)),
            *(option for key, value in env.items() for option in ("--env", f"{key}={value}")),
            *(
                option
                for path, socket in sockets.items()
                for option in ("--mount", f"type=bind,source={socket},target={path}")
            ),
            *entry,
            NAME,
            *(arguments[1:] if arguments else ()),
        ]


@dataclass(frozen=True)
class Runc:
    rootfs: str
    user: str
    entrypoint: Sequence[str]
    env: Sequence[str]
    working_dir: str

    def command(
        self,
        *,
        name: str,
        env: Mapping[str, str],
        sockets: Mapping[str, Path],
        arguments: Sequence[str] | None = None,
        folder: Path,
    ) -> list[str]:
        uid, gid = map(int, self.user.split(":"))
        merged = dict(entry.split("=", 1) for entry in self.env) | dict(env)
        in_memory = {"type": "tmpfs", "source": "tmpfs"}
        specification = {
            "ociVersion": "1.0.2",
            "root": {"path": self.rootfs, "readonly": True},
            "process": {
                "user": {"uid": uid, "gid": gid},
                "cwd": self.working_dir,
                "args": [*(arguments or self.entrypoint)],
                "env": [f"{key}={value}" for key, value in merged.items()],
                "noNewPrivileges": True,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", **in_memory, "options": ["nosuid", "mode=755"]},
                {"destination": "/tmp", **in_memory, "options": ["nosuid", "nodev", "mode=1777"]},
                {"destination": "/cloudsql", **in_memory, "options": ["nosuid", "mode=755"]},
                *(
                    {"destination": path, "source": str(socket), "options": ["bind"]}
                    for path, socket in sockets.items()
                ),
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
                "resources": {"memory": {"limit": MEMORY, "swap": MEMORY}},
            },
        }
        bundle = folder / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(specification))
        return ["runc", "--root", str(folder / "runc"), "run", "--bundle", str(bundle), name]


def dump(runner: Docker | Runc) -> str:
    return json.dumps({"engine": type(runner).__name__, **asdict(runner)})


def load(text: str) -> Runner:
    fields = json.loads(text)
    kind: type[Docker | Runc] = {"Docker": Docker, "Runc": Runc}[fields.pop("engine")]
    return kind(**fields)
