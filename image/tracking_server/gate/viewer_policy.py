"""Defines what a viewer may do: read and download everything, and change nothing.

Routes that aren't known to only read are refused, including those of later MLflow versions. Allowed
requests can't write either, because their database transactions are read-only.
tests/server/test_viewer.py sends every call that the server has, and checks the database and the
bucket for changes.
"""

import re
from contextvars import ContextVar

LOOKING: ContextVar[bool] = ContextVar("looking", default=False)
"""Whether the current request is a viewer's; the driver makes its transactions read-only."""

_READ = frozenset({"GET", "HEAD"})

# GET routes that do more than read: those of the assistant, which run programs and query models.
_DOES_MORE = re.compile(
    r"/(?:ajax-)?api/3\.0/mlflow/assistant/(?:providers/|sessions/).*", re.DOTALL
)

# POST routes that only read, mostly searches. One path lacks a slash in MLflow's page as well.
_READ_BY_POST = re.compile(
    r"/graphql|"
    r"/(?:ajax-)?api/2\.0/mlflow/(?:"
    r"artifacts/presigned-download-url|"
    r"experiments/search|experiments/search-datasets|"
    r"logged-models/search|"
    r"registered-models/get-latest-versions|"
    r"runs/search"
    r")|"
    r"/(?:ajax-)?api/2\.0mlflow/experiments/search-datasets|"
    r"/(?:ajax-)?api/3\.0/(?:jobs/search|mlflow/(?:"
    r"datasets/search|"
    r"issues/search|"
    r"prompt-optimization/jobs/search|"
    r"traces/batchGetInfos|traces/calculate-filter-correlation|traces/metrics|traces/search"
    r"))"
)


def may_view(method: str, path: str) -> bool:
    """Whether a request only reads. `path` is the path that routes are matched against."""
    if method in _READ:
        return not _DOES_MORE.fullmatch(path)
    return method == "POST" and _READ_BY_POST.fullmatch(path) is not None
