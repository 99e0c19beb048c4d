"""Large files with the unmodified client, and the client settings that apply to them."""

import json
from pathlib import Path

from tests.local.conftest import Stack

SESSION = Path(__file__).with_name("transfer_session.py")
MEBIBYTE = 1 << 20


def test_large_files_move_as_the_clients_settings_say(stack: Stack) -> None:
    files = stack.folder / "storage" / "files"
    before = set(files.iterdir())
    ran = stack.client(
        str(SESSION),
        MLFLOW_EXPERIMENT_NAME="large files",
        MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE=str(10 * MEBIBYTE),
        MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE=str(5 * MEBIBYTE),
        MLFLOW_HTTP_REQUEST_TIMEOUT="77",
        MLFLOW_LOGGING_LEVEL="CRITICAL",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "parts": [2 * MEBIBYTE + 5, 5 * MEBIBYTE, 5 * MEBIBYTE],
        "downloaded from": ["server"],
        "timeouts": True,
        "content": True,
        "unseen until complete": True,
        "a part sent twice": True,
        "a part after completion": 404,
        "a part after abandonment": 404,
        "lifetime of a part": ["43200"],
        "strangers": {
            "another object": 403,
            "another part": 403,
            "another method": 403,
            "another upload": 403,
        },
        "given up": True,
        "listed": True,
        "proxied": True,
        "proxied alone": True,
    }
    # The parts of the two completed uploads, and the file that came through the server.
    assert len(set(files.iterdir()) - before) == 3 + 2 + 1
