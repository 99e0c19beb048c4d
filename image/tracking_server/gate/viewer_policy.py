"""What a viewer may do: look at everything and download it, and change nothing.

Closed on doubt: a route that isn't known to only read is refused, those of a later MLflow too. And
what is let by writes nothing, since the database doesn't let it.
tests/server/test_viewer.py sends every call that the server has, and looks into the database and
the bucket for what has changed.
"""

import re
from contextvars import ContextVar

LOOKING: ContextVar[bool] = ContextVar("looking", default=False)
"""Whether the request at hand is a viewer's, whose transactions the driver makes read-only."""

_READ = frozenset({"GET", "HEAD"})

# By GET, yet more than reading: the assistant's, which run programs and ask models.
_DOES_MORE = re.compile(
    r"/(?:ajax-)?api/3\.0/mlflow/assistant/(?:providers/|sessions/).*", re.DOTALL
)

# Searches whose question is too long for an address. One path lacks a slash in MLflow's page, too.
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
    """Whether a request to this path, as the routes are matched with, only looks."""
    if method in _READ:
        return not _DOES_MORE.fullmatch(path)
    return method == "POST" and _READ_BY_POST.fullmatch(path) is not None
