"""Starts a container of the image where `local/` would start the server's process.

`local/` gives a process what Cloud Run gives a container, and passes SIGTERM to it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from tests.container.runners import load

# The variables that the image sets, and the one that stands for a container's mount.
NOT_THE_CONTAINERS = ("PATH", "HOME", "LANG", "PYTHONPATH", "PWD", "CLOUDSQL_ROOT")


def main(folder: Path) -> int:
    env = {key: value for key, value in os.environ.items() if key not in NOT_THE_CONTAINERS}
    root = Path(os.environ["CLOUDSQL_ROOT"])
    sockets = {
        f"/cloudsql/{link.relative_to(root)}": link.resolve()
        for link in root.glob("*/.s.PGSQL.5432")
    }
    runner = load((folder / "runner.json").read_text())
    name = f"mlflow-gcp-test-{os.getpid()}"
    command = runner.command(name=name, env=env, sockets=sockets, folder=folder)
    # The tool itself needs this machine's variables, such as the address of its daemon.
    machine = json.loads((folder / "environment.json").read_text())
    container = subprocess.Popen(command, env=machine)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        container.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    code = container.wait()
    (folder / "exit-code").write_text(str(code))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
