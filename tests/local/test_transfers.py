"""Large files by the unmodified client, and the settings that it honours."""

import json
from pathlib import Path

from tests.local.conftest import Stack

SESSION = Path(__file__).with_name("transfer_session.py")
MEBIBYTE = 1 << 20
SIZE = 12 * MEBIBYTE + 5


def test_large_files_move_as_the_clients_settings_say(stack: Stack) -> None:
    files = stack.folder / "storage" / "files"
    before = set(files.iterdir())
    ran = stack.client(
        str(SESSION),
        MLFLOW_EXPERIMENT_NAME="large files",
        MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE=str(10 * MEBIBYTE),
        MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE=str(5 * MEBIBYTE),
        MLFLOW_MULTIPART_DOWNLOAD_MINIMUM_FILE_SIZE=str(10 * MEBIBYTE),
        MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE=str(4 * MEBIBYTE),
        MLFLOW_HTTP_REQUEST_TIMEOUT="77",
        MLFLOW_LOGGING_LEVEL="CRITICAL",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "parts": [2 * MEBIBYTE + 5, 5 * MEBIBYTE, 5 * MEBIBYTE],
        "ranges": [
            f"bytes=0-{4 * MEBIBYTE - 1}",
            f"bytes={12 * MEBIBYTE}-{SIZE - 1}",
            f"bytes={4 * MEBIBYTE}-{8 * MEBIBYTE - 1}",
            f"bytes={8 * MEBIBYTE}-{12 * MEBIBYTE - 1}",
        ],
        "timeouts": True,
        "content": True,
        "unseen until complete": True,
        "a part sent twice": True,
        "no part after it is complete": 404,
        "no part after it is given up": 404,
        "lifetime of a part": ["3600"],
        "lifetime of a download": ["300"],
        "strangers": {
            "another object": 403,
            "another part": 403,
            "another method": 403,
            "another upload": 403,
        },
        "a download of another": 403,
        "an upload by a download's": 403,
        "given up": True,
        "listed": True,
        "proxied": True,
        "proxied alone": True,
    }
    # The parts of the two that were completed, and the one that came through the server.
    assert len(set(files.iterdir()) - before) == 3 + 2 + 1
