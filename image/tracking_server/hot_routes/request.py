"""Reads the requests that a hot route understands completely; MLflow handles all others.

The rules are MLflow's own (`mlflow.utils.validation`), or stricter.
"""

import json
import math
import posixpath
import re
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

LARGEST_BODY = 1_000_000
"""Bytes; MLflow's own limit for a batch."""

LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000
"""Characters of a key, and of the values of a parameter and a tag."""

LONGEST_USER, LONGEST_EXPERIMENT = 256, 256
"""Characters of a user's and an experiment's name."""

LONGEST_DATASET, LONGEST_DIGEST = 500, 36
"""Characters of a dataset's name and digest."""

MOST_METRICS, MOST_PARAMS, MOST_TAGS, MOST_TOGETHER = 1000, 100, 100, 1000
"""Entries of one batch."""

MOST_TERMS = 3
"""Terms of an order."""

LARGEST_DOUBLE = 1.7976931348623157e308
"""MLflow stores an infinite value as the largest finite one."""

METRIC = frozenset(
    {"key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest"}
)
"""The fields of a metric, which may also be one of a logged model."""

RUN_NAME = "mlflow.runName"
"""A tag that is also a column of the run; MLflow writes both."""

RUN_USER = "mlflow.user"
"""A tag with the user that created the run."""

_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_RUN_ID = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_-]{0,31}")
_NAME = re.compile(r"[/0-9a-zA-Z_.\- :]{1,250}")
_EXPERIMENT_ID = re.compile(r"0|[1-9][0-9]{0,8}")
_OFFSET = re.compile(rb'\{"offset": ([1-9][0-9]{0,8})\}')
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Fields = Mapping[str, Any]


class NotHot(Exception):
    """MLflow's own route has to handle this request."""


@dataclass(slots=True)
class Metrics:
    """The columns of the metrics in a batch, in the order of the request."""

    keys: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    nans: list[bool] = field(default_factory=list)
    models: list[str | None] = field(default_factory=list)
    dataset_names: list[str | None] = field(default_factory=list)
    dataset_digests: list[str | None] = field(default_factory=list)

    def add(self, given: Fields) -> None:
        """Add a metric, whose other fields are known too.

        Raises:
            NotHot: unless each of the fields in METRIC is in its range.
            KeyError: if a required one is missing.
        """
        value = number(given["value"])
        not_a_number = value != value
        self.keys.append(name(given["key"]))
        self.values.append(0.0 if not_a_number else finite(value))
        self.timestamps.append(integer(given["timestamp"], lowest=1))
        self.steps.append(integer(given.get("step", 0)))
        self.nans.append(not_a_number)
        model = dataset = digest = None
        if "model_id" in given:
            model = _model_id(given["model_id"])
        if "dataset_name" in given or "dataset_digest" in given:
            dataset = _dataset(given["dataset_name"], LONGEST_DATASET)
            digest = _dataset(given["dataset_digest"], LONGEST_DIGEST)
        self.models.append(model)
        self.dataset_names.append(dataset)
        self.dataset_digests.append(digest)

    def models_columns(self) -> tuple[list[str | None], list[str | None], list[str | None]]:
        return self.models, self.dataset_names, self.dataset_digests

    def columns(self) -> tuple[list[str], list[float], list[int], list[int], list[bool]]:
        return self.keys, self.values, self.timestamps, self.steps, self.nans


def body_fields(body: bytes, allowed: Collection[str]) -> Fields:
    """Returns the fields of a JSON body.

    Raises:
        NotHot: if it is too long, isn't an object, or has a field that isn't in `allowed`.
        ValueError: if it isn't JSON.
    """
    if len(body) > LARGEST_BODY:
        raise NotHot
    return only(json.loads(body), allowed)


def query_fields(query: bytes, allowed: Collection[str]) -> Mapping[str, str]:
    """Returns the fields of a query, each of which may occur once.

    Raises:
        NotHot: if a field isn't in `allowed` or occurs twice.
        ValueError: if there are too many fields.
    """
    pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=8)
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise NotHot
    only(fields, allowed)
    return fields


def only(fields: Any, allowed: Collection[str]) -> Fields:
    """Returns the fields if they are an object and all of them are known."""
    if type(fields) is not dict or fields.keys() - allowed:
        raise NotHot
    return fields


def run_id(fields: Fields) -> str:
    """Returns a run's id; older clients send it as `run_uuid` too."""
    given = fields.get("run_id")
    if type(given) is not str or not _RUN_ID.fullmatch(given):
        raise NotHot
    if fields.get("run_uuid", given) != given:
        raise NotHot
    return given


def _model_id(given: Any) -> str:
    if type(given) is not str or not _MODEL_ID.fullmatch(given):
        raise NotHot
    return given


def _dataset(given: Any, longest: int) -> str:
    if given == "":
        raise NotHot
    return text(given, longest)


def experiment_id(given: Any) -> int:
    """Returns an experiment's id as the number that it is in the database."""
    if type(given) is not str or not _EXPERIMENT_ID.fullmatch(given):
        raise NotHot
    return int(given)


def name(given: Any) -> str:
    """Returns the key of a metric or parameter, or a tag's."""
    if type(given) is not str or not _is_name(given):
        raise NotHot
    return given


@lru_cache(4096)
def _is_name(given: str) -> bool:
    # Keys can be paths, and two paths to the same file must not differ.
    path = posixpath.normpath(given)
    return bool(
        _NAME.fullmatch(given) and path == given != "." and not given.startswith(("..", "/"))
    )


def text(given: Any, longest: int) -> str:
    """Returns a text that Postgres can store."""
    if type(given) is not str or len(given) > longest or "\0" in given:
        raise NotHot
    if not given.isascii():
        given.encode()  # JSON can have half of a surrogate pair, which UTF-8 can't
    return given


def offset(token: Any) -> int:
    """Returns the offset in a page token, which is empty for the first page."""
    if token == "":
        return 0
    found = _OFFSET.fullmatch(b64decode(text(token, 100), validate=True))
    if not found:
        raise NotHot
    return int(found[1])


def page_token(following: int) -> str:
    """Returns the token of the page that begins at this offset."""
    return b64encode(b'{"offset": %d}' % following).decode()


def number(given: Any) -> float:
    """Returns a number; in protobuf's JSON, those that aren't finite are strings."""
    if type(given) in (int, float) and abs(given) <= LARGEST_DOUBLE:
        return float(given)
    if type(given) is str and given in _NOT_FINITE:
        return _NOT_FINITE[given]
    raise NotHot


def finite(value: float) -> float:
    """Returns the value as MLflow stores it."""
    return math.copysign(LARGEST_DOUBLE, value) if math.isinf(value) else value


def integer(given: Any, *, lowest: int = -(2**63), highest: int = 2**63 - 1) -> int:
    """Returns an integer in this range."""
    if type(given) is not int or not lowest <= given <= highest:
        raise NotHot
    return given
