"""runs/get and runs/search respond exactly as MLflow's own views do."""

import hashlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.protos.service_pb2 import GetRun, SearchRuns
from mlflow.utils.proto_json_utils import message_to_json
from tracking_server.mlflow import internals
from tracking_server.mlflow.proto_json import to_json
from tracking_server.mlflow.runs import answer_at_once

from tests.server.flask_app import import_flask

_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type:
        return fields_of(field.message_type)
    if field.enum_type:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.cpp_type in _LIMITS:
        low, high = _LIMITS[field.cpp_type]
        return st.integers(low, high)
    return {
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_STRING: st.text(max_size=20),
    }[field.cpp_type]


def fields_of(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            field.name: st.lists(values(field), max_size=3) if field.is_repeated else values(field)
            for field in descriptor.fields
        },
    )


@pytest.mark.parametrize("kind", [GetRun.Response, SearchRuns.Response])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_every_message_is_serialized_as_by_mlflow(kind: type[Message], data: st.DataObject) -> None:
    message = kind(**data.draw(fields_of(kind.DESCRIPTOR)))
    assert to_json(message) == message_to_json(message)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 1e300, 5e-324, 3.0])
def test_every_number_is_serialized_as_by_mlflow(value: float) -> None:
    message = SearchRuns.Response()
    message.runs.add().data.metrics.add(key="é\n\u2028😀\x7f", value=value, step=-(2**63))
    assert to_json(message) == message_to_json(message)


@pytest.mark.parametrize("message", [Timestamp(seconds=1), Struct(fields={})])
def test_messages_with_a_special_json_form_are_refused(message: Message) -> None:
    with pytest.raises(TypeError, match="a special JSON form"):
        to_json(message)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("_get_run", "ee630dfb5148"),
        ("_search_runs", "7549b2693d06"),
        ("_get_request_message", "6f8d3d06867c"),
    ],
)
def test_the_replaced_views_have_the_known_source(name: str, digest: str) -> None:
    from mlflow.server import handlers

    source = inspect.getsource(getattr(handlers, name))
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == digest


def test_the_replaced_views_belong_to_the_routes() -> None:
    flask = import_flask()
    by_view: dict[object, set[str]] = {}
    for rule in flask.url_map.iter_rules():
        by_view.setdefault(flask.view_functions[rule.endpoint], set()).add(rule.rule)
    found = [by_view[view] for view in internals.run_messages()]
    prefixes = ("/api/2.0", "/ajax-api/2.0")
    assert found == [
        {f"{prefix}/mlflow/runs/{name}" for prefix in prefixes} for name in ("get", "search")
    ]


def test_the_response_comes_before_the_view_and_after_every_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def view() -> str:
        return "MLflow's"

    def own() -> Message:
        return GetRun.Response()

    monkeypatch.setattr(internals, "run_messages", lambda: {view: own})
    flask = Flask(__name__)
    flask.add_url_rule("/known", view_func=view)
    flask.add_url_rule("/other", endpoint="other", view_func=lambda: "other")

    @flask.before_request
    def refuse() -> Response | None:
        from flask import request

        return Response(status=403) if "refused" in request.args else None

    answer_at_once(flask)
    client = flask.test_client()
    get: Callable[[str], Any] = client.get
    assert (get("/known").json, get("/known").mimetype) == ({}, "application/json")
    assert get("/known?refused").status_code == 403
    assert client.options("/known").headers["Allow"]
    assert get("/other").text == "other"
    assert get("/missing").status_code == 404
