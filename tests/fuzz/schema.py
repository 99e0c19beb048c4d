"""MLflow's whole API as one OpenAPI document: FastAPI's own, and Flask's routes from protobuf.

Flask has no schema, but its routes parse their arguments with protobuf messages.
"""

import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from mlflow.server import handlers
from tracking_server.mlflow import internals

from tests.server.parity.routes import flask_routes

Schema = dict[str, Any]

DEEPEST = 3
"""The depth of nested messages; some messages contain themselves."""

# Parsing it fills the database with examples, which takes most of a minute each time.
LEFT_OUT = {"/ajax-api/3.0/mlflow/demo/generate", "/ajax-api/3.0/mlflow/demo/delete"}

_KINDS = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "integer"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}


def whole_api() -> Schema:
    document: Schema = internals.import_fastapi().openapi()
    for template, methods in _flask_operations().items():
        if template not in LEFT_OUT:
            document["paths"].setdefault(_as_openapi(template), {}).update(methods)
    return document


def _flask_operations() -> dict[str, dict[str, Schema]]:
    """Returns operations by template and lower-case method; without a message, any body will do."""
    operations: dict[str, dict[str, Schema]] = {}
    for route in flask_routes():
        if route.method not in {"HEAD", "OPTIONS"}:
            operation = _operation(route.template, route.method, {"type": "object"})
            operations.setdefault(route.template, {})[route.method.lower()] = operation
    # MLflow returns the message's class in place of the route's handler.
    for template, message, methods in handlers.get_endpoints(get_handler=lambda kind: kind):
        if not (isinstance(message, type) and issubclass(message, Message)):
            continue
        for method in methods:
            schema = _schema(message.DESCRIPTOR, 0)
            operations[template][method.lower()] = _operation(template, method, schema)
    return operations


def _operation(template: str, method: str, schema: Schema) -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"<(?:path:)?([^>]+)>", template)
    ]
    operation: Schema = {"parameters": parameters, "responses": {"200": {"description": "."}}}
    if method == "GET":
        parameters += [
            {"name": name, "in": "query", "schema": kind}
            for name, kind in schema.get("properties", {}).items()
        ]
    else:
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _schema(message: Descriptor, depth: int) -> Schema:
    if depth > DEEPEST:
        return {"type": "object"}
    return {
        "type": "object",
        "properties": {field.name: _field(field, depth) for field in message.fields},
    }


def _field(field: FieldDescriptor, depth: int) -> Schema:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        kind = _schema(field.message_type, depth + 1)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        kind = {"enum": [value.name for value in field.enum_type.values]}
    else:
        kind = _KINDS[field.cpp_type]
    return {"type": "array", "items": kind, "maxItems": 3} if field.is_repeated else kind


def _as_openapi(template: str) -> str:
    return re.sub(r"<(?:path:)?([^>]+)>", r"{\1}", template)
