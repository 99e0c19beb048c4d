"""Limits sizes, counts and locations in requests to MLflow's API, before the view runs.

MLflow checks many fields itself. This module adds the missing limits for those that could use up
the server's memory or expose its credentials.
"""

import json
import re
from collections.abc import Iterable, Mapping
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import parse_qs, unquote

from flask import Flask, Response, g, request
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from tracking_server.gate.json_limits import NOT_JSON
from tracking_server.mlflow import gateway_policy, internals

MAX_TEXT = 32 * 1024
"""Characters of a filter, which takes 160 times as much memory while it is parsed. The longest ones
of MLflow's page, with a run's id in each term, have some thousand."""

MAX_TOKEN = 8 * 1024
"""Characters of a page token."""

MAX_GRAPHQL = 8 * 1024
"""Characters of a GraphQL query. A thousand take 40 ms to parse; the page's queries have up to four
thousand."""

MAX_CLAUSES = 20
"""Conditions of a filter; each on a metric, parameter or tag is a join, and SQLAlchemy keeps a
statement of 60 of them in 7 MiB."""

MAX_TERMS = 10
"""Terms of an order; each may be a join."""

MAX_TRACES = 100
"""Traces that are read in full in one request; MLflow's client asks for 10."""

MAX_MODELS = 20
"""Models of a gateway's endpoint, which are tried one after the other."""

MAX_MONTHS = 1200
"""Units of a budget's duration; MLflow loops over them."""

LONGEST_EXPIRATION = 3600
"""Seconds for which a signed address is valid; changing the password doesn't revoke it."""

MAX_ITEMS = 10_000
"""Ids and other items of a list."""

MAX_RESULTS = 50_000
"""Results of one page; MLflow has this limit for runs, and its client asks for 10,000 at most."""

MAX_HISTORY = 25_000
"""Values of a metric in one response, as many as MLflow's client asks for at a time."""

MAX_GRAPHQL_RESULTS = 1000
"""Results of a search by GraphQL; each may cause another database query."""

MAX_PARTS = 10_000
"""Parts of an upload; Cloud Storage's own limit:
https://cloud.google.com/storage/quotas#requests"""

MAX_GRAPHQL_BRACKETS = 200
"""Levels, lists and arguments of a GraphQL query, which is parsed recursively."""

_ARTIFACTS = re.compile(
    r"mlflow-artifacts:/(?:[^/].*)?|gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](?:/.*)?"
)
"""Locations that artifacts may have: the server can reach them, and they outlive it. Bucket names:
https://cloud.google.com/storage/docs/buckets#naming"""

_BACK_REFERENCE = re.compile(r"\brlike\b.*\\[1-9]", re.IGNORECASE | re.DOTALL)
"""With a back reference Postgres tries every way to match; without one it takes linear time:
https://www.postgresql.org/docs/current/functions-matching.html#POSIX-MATCHING-RULES"""

_FILTERS = frozenset({"filter", "filterstring"})
_TEXTS = {"filter": MAX_TEXT, "filterstring": MAX_TEXT, "pagetoken": MAX_TOKEN}
_LISTS = {"orderby": MAX_TERMS, "modelconfigs": MAX_MODELS}
_NUMBERS = {
    "maxresults": (0, MAX_RESULTS),
    "numparts": (1, MAX_PARTS),
    "expiration": (1, LONGEST_EXPIRATION),
    "durationvalue": (1, MAX_MONTHS),
}
_LOCATIONS = frozenset({"artifactlocation", "defaultartifactroot"})
_NESTED = 4
"""Levels of nested objects in a request that are checked."""

_WAITS = re.compile(r"/(?:ajax-)?api/2\.0/mlflow/webhooks/[^/]+/test")
_WAITING = BoundedSemaphore(2)
"""Requests at a time that wait for an address chosen by a caller; each blocks a thread."""


def enforce(flask: Flask) -> None:
    """Check each request after its route is found and before its view runs."""

    @internals.error_answers
    def check() -> Response | None:
        if request.method == "OPTIONS":  # Flask responds without the view
            return None
        fields = given_fields()
        if request.path.endswith("/graphql"):
            check_graphql(fields)
        check_fields(fields)
        if request.path.endswith("/traces/batchGet"):
            check_traces(fields.get("trace_ids"))
        return None

    flask.before_request(check)


def enforce_on_stored(flask: Flask) -> None:
    """Check each request against what is stored, after the caller's permissions."""

    @internals.error_answers
    def check() -> Response | None:
        if request.method == "OPTIONS":
            return None
        if request.path.endswith("/metrics/get-history"):
            fields = given_fields()
            if not fields.get("max_results"):
                check_history(fields)
        gateway_policy.check()
        if _WAITS.fullmatch(request.path):
            if not _WAITING.acquire(blocking=False):
                raise MlflowException(
                    "Other webhooks are being tested: try again in a moment",
                    TEMPORARILY_UNAVAILABLE,
                )
            g.waiting = True
        return None

    def done(_: BaseException | None) -> None:
        if g.pop("waiting", False):
            _WAITING.release()

    flask.before_request(check)
    flask.teardown_request(done)


def query_problem(query: bytes) -> str:
    """Returns why a query asks for too much, or an empty string if it doesn't."""
    try:
        found = parse_qs(query.decode("latin-1"), max_num_fields=MAX_ITEMS)
    except ValueError:
        return f"The query has more than {MAX_ITEMS} fields: send fewer"
    try:
        check_fields(_query_fields(found.items()))
    except MlflowException as error:
        return str(error.message)
    return ""


def given_fields() -> Mapping[str, Any]:
    """Returns the request's fields as MLflow reads them: from a GET's query or from JSON.

    Like MLflow, it accepts JSON that is encoded twice.
    """
    if request.path.endswith(NOT_JSON) or (request.method in ("GET", "HEAD") and request.args):
        return _query_fields(request.args.lists())
    # Cached for MLflow's own call with the same arguments.
    fields = request.get_json(force=True, silent=True)
    if isinstance(fields, str):
        try:
            fields = json.loads(fields)
        except ValueError:
            return {}
    return fields if isinstance(fields, dict) else {}


def _query_fields(query: Iterable[tuple[str, list[str]]]) -> Mapping[str, Any]:
    """Returns a query's fields: a list only if a field is given several times."""
    return {name: values if len(values) > 1 else values[0] for name, values in query}


def check_fields(fields: Mapping[str, Any], *, levels: int = _NESTED) -> None:
    """Check each field, including those of nested objects.

    Raises:
        MlflowException: as `check_field`.
    """
    for name, value in fields.items():
        check_field(name, value)
        if isinstance(value, dict) and levels:
            if name == "duration" and "value" in value:
                check_field("duration_value", value["value"])
            check_fields(value, levels=levels - 1)


def check_field(name: str, value: Any) -> None:
    """Check one field by its name, in snake case or in protobuf's camel case.

    Raises:
        MlflowException: if the value is too long or too large, has too many items, or names a
            location that isn't allowed.
    """
    key = name.replace("_", "").lower()
    if isinstance(value, str):
        limit = _TEXTS.get(key)
        if limit is not None and len(value) > limit:
            raise _refused(
                f"{name} has {len(value)} characters, and at most {limit} are allowed: split it "
                "into several requests"
            )
        if key in _FILTERS and _BACK_REFERENCE.search(value):
            raise _refused(
                f"{name} has a regular expression with a back reference such as \\1, which can "
                "keep the database busy for hours: use one without"
            )
        if key in _FILTERS and len(re.findall(r"\band\b", value, re.IGNORECASE)) >= MAX_CLAUSES:
            raise _refused(
                f"{name} has more than {MAX_CLAUSES} conditions: split it into several requests or "
                "use IN with a list"
            )
        if key in _LOCATIONS and value:
            check_location(name, value)
    elif isinstance(value, list):
        limit = _LISTS.get(key, MAX_ITEMS)
        if len(value) > limit:
            raise _refused(
                f"{name} has {len(value)} items, and at most {limit} are allowed: send them in "
                "several requests"
            )
        if key in _LISTS and any(len(str(term)) > MAX_TOKEN for term in value):
            raise _refused(f"A term of {name} has more than {MAX_TOKEN} characters")
    if key in _NUMBERS:
        lowest, highest = _NUMBERS[key]
        # MLflow itself refuses values that aren't numbers.
        if (number := _integer(value)) is not None and not lowest <= number <= highest:
            raise _refused(
                f"Invalid value {str(value)[:40]} for parameter '{name}' supplied: it must be a "
                f"number from {lowest} to {highest}"
            )


def check_location(name: str, location: str) -> None:
    """Refuse an artifact location that is lost with this instance, or that it can't reach.

    Raises:
        MlflowException: saying what to use.
    """
    inside = ".." not in unquote(unquote(location)).replace("\\", "/").split("/")
    if not (inside and location.isprintable() and _ARTIFACTS.fullmatch(location)):
        raise _refused(
            f"{name} is {location[:200]!r}: this server doesn't store files itself. Leave it out "
            "to keep artifacts in the stack's bucket, or name a folder in the bucket, for example "
            "mlflow-artifacts:/my-folder"
        )


def check_history(fields: Mapping[str, Any]) -> None:
    """Refuse to read a long history in one request; MLflow's client asks for pages.

    Raises:
        MlflowException: saying how to ask for a page.
    """
    run_id, key = fields.get("run_id") or fields.get("run_uuid"), fields.get("metric_key")
    if (
        isinstance(run_id, str)
        and isinstance(key, str)
        and internals.history_exceeds(run_id, key, MAX_HISTORY)
    ):
        raise _refused(
            f"The metric has more than {MAX_HISTORY} values: ask for pages with max_results, for "
            f"example max_results={MAX_HISTORY}, and page_token"
        )


def check_traces(trace_ids: Any) -> None:
    """Refuse to read more full traces than fit in memory.

    Raises:
        MlflowException: saying how many are allowed.
    """
    if isinstance(trace_ids, list) and len(trace_ids) > MAX_TRACES:
        raise _refused(
            f"trace_ids has {len(trace_ids)} ids, and at most {MAX_TRACES} are allowed: split it "
            "into several requests"
        )


def check_graphql(fields: Mapping[str, Any]) -> None:
    """Refuse a query that is far longer, or asks for far more, than those of MLflow's page.

    Raises:
        MlflowException: saying how much is allowed.
    """
    query = fields.get("query")
    if not isinstance(query, str):
        raise _refused("query is missing: a GraphQL query is needed, for example {query: ...}")
    brackets = sum(map(query.count, "{[("))
    if len(query) > MAX_GRAPHQL or brackets > MAX_GRAPHQL_BRACKETS:
        raise _refused(
            f"The query has more than {MAX_GRAPHQL} characters, or more than "
            f"{MAX_GRAPHQL_BRACKETS} selections, lists and arguments: split it into several "
            "requests"
        )
    asked = re.findall(r"max_?results\W*(\d+)", query, re.IGNORECASE)
    asked += re.findall(r"(?<![\w\"])\d+(?![\w\"])", json.dumps(fields.get("variables")))
    if any(int(number[:30]) > MAX_GRAPHQL_RESULTS for number in asked):
        raise _refused(f"maxResults may be {MAX_GRAPHQL_RESULTS} at most: ask for several pages")


def _integer(value: Any) -> int | None:
    if isinstance(value, list):
        value = value[0] if value else None
    try:
        # Like protobuf's parser, which accepts 1e4 as 10,000. Longer numbers exceed every range.
        return int(float(str(value)[:30]))
    except (ValueError, OverflowError):
        return None


def _refused(text: str) -> MlflowException:
    return MlflowException(text, INVALID_PARAMETER_VALUE)
