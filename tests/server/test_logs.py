"""One JSON object per line, with the fields of Cloud Logging and without private data."""

import json
import logging
import subprocess
import sys
from typing import Any

from tracking_server.logs import CloudLoggingFormatter


def line(record: logging.LogRecord) -> dict[str, Any]:
    text = CloudLoggingFormatter("my-project").format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def record(level: int, message: str, **more: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"levelno": level, "levelname": logging.getLevelName(level), "msg": message, **more}
    )


def test_a_record_is_one_line() -> None:
    assert line(record(logging.WARNING, "two\nlines"))["message"] == "two\nlines"
    assert line(record(logging.WARNING, "x"))["severity"] == "WARNING"


def test_only_the_unneeded_lookup_is_not_logged() -> None:
    script = (
        "import logging; from tracking_server import logs; logs.configure('my-project')\n"
        "for path in ('/v1/projects/-/serviceAccounts/a@b.c/allowedLocations', '/b/my-bucket/o'):\n"
        "    logging.getLogger('urllib3.connectionpool').warning('Retrying: %s', path)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    [said] = done.stdout.splitlines()
    assert json.loads(said)["message"] == "Retrying: /b/my-bucket/o"


def test_an_exception_is_in_the_same_line() -> None:
    try:
        raise KeyError("missing")
    except KeyError as error:
        found = line(record(logging.ERROR, "failed", exc_info=(KeyError, error, None)))
    assert "KeyError" in found["stack_trace"]
