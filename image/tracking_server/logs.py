"""Formats log records as one JSON object per line, with the fields that Cloud Logging knows.

https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields
"""

import json
import logging
import sys
import threading
import warnings
from contextvars import ContextVar
from random import getrandbits
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False).encode

_trace: ContextVar[str | None] = ContextVar("trace", default=None)
_request_id: ContextVar[str] = ContextVar("request_id", default="")


class CloudLoggingFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the trace of the request that it belongs to."""

    def __init__(self, project: str | None) -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0]:
            entry["stack_trace"] = self.formatException(record.exc_info)
        if identifier := _request_id.get():
            entry["request_id"] = identifier
        # Log-based metrics use these fields: infra/google/log_metrics.py refers to them by name.
        entry |= getattr(record, "fields", {})
        if request := getattr(record, "http_request", None):
            entry["httpRequest"] = request
        if self._project and (trace := _trace.get()):
            entry["logging.googleapis.com/trace"] = f"projects/{self._project}/traces/{trace}"
        return _encode(entry)


def begin_request(trace: str | None) -> None:
    """Give all records of this context a new request's id, and its trace in Cloud Trace."""
    _trace.set(trace)
    _request_id.set(f"{getrandbits(64):016x}")  # only tells requests apart


def request_id() -> str:
    """Returns the id of the current request in the log, or an empty string outside of one."""
    return _request_id.get()


def configure(project: str | None) -> None:
    """Send log records, warnings and uncaught exceptions through one handler to stdout."""
    # The format has none of these: https://docs.python.org/3/howto/logging.html#optimization
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(CloudLoggingFormatter(project))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(True)
    # MLflow imports it. The pin in requirements.in makes sure that it still exists.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    for chatty in ("alembic", "google", "urllib3", "_granian"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").addFilter(_is_news)
    uncaught = logging.getLogger("tracking_server.uncaught")
    sys.excepthook = lambda kind, error, trace: uncaught.critical(
        "uncaught %s", kind.__name__, exc_info=(kind, error, trace)
    )
    threading.excepthook = lambda args: uncaught.error(
        "uncaught %s in a thread",
        args.exc_type.__name__,
        exc_info=(args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback),
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Filter out the warning that google-auth can't ask where its account may be used from.

    google-auth asks during the first requests, has no setting to turn that off, and continues
    without a response. Without access to Google, as on a computer without a network, each boot
    would begin with three warnings.
    https://github.com/googleapis/google-cloud-python/issues/17653
    """
    return "/allowedLocations" not in record.getMessage()
