"""Writes a protobuf message as the JSON text that MLflow makes of it, in one step.

MLflow converts a message to dictionaries, twice, and these to text with json's Python encoder,
because the C encoder doesn't indent. That is half the cost of a search for runs.
"""

import math
from collections.abc import Callable
from functools import cache
from json.encoder import encode_basestring_ascii
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

_INTEGERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)

Write = Callable[[Any, str], str]
"""Writes a value. The second argument is the line break with the current indentation."""


def to_json(message: Message) -> str:
    """Returns exactly what `mlflow.utils.proto_json_utils.message_to_json` returns.

    Raises:
        TypeError: if a field has a type that isn't supported here.
    """
    return _writer(message.DESCRIPTOR)(message, "\n")


@cache
def _writer(descriptor: Descriptor) -> Write:
    if descriptor.full_name.startswith("google.protobuf."):
        raise TypeError(f"{descriptor.full_name} has a special JSON form")
    fields: dict[int, tuple[str, Write]] = {}

    def write(message: Message, line: str) -> str:
        inside = line + "  "
        parts = []
        for field, value in message.ListFields():
            known = fields.get(field.number)
            if known is None:
                known = fields[field.number] = f'"{field.name}": ', _field_writer(field)
            name, write_value = known
            parts.append(inside + name + write_value(value, inside))
        return f"{{{','.join(parts)}{line}}}" if parts else "{}"

    return write


def _field_writer(field: FieldDescriptor) -> Write:
    write = _value_writer(field)
    if not field.is_repeated:
        return write

    def write_all(values: Any, line: str) -> str:
        inside = line + "  "
        return f"[{','.join([inside + write(value, inside) for value in values])}{line}]"

    return write_all


def _value_writer(field: FieldDescriptor) -> Write:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
        return _writer(field.message_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        return lambda value, _: encode_basestring_ascii(value)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_writer(field.enum_type)
    if kind in _INTEGERS:
        return lambda value, _: str(value)
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return _write_double
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return lambda value, _: "true" if value else "false"
    raise TypeError(f"{field.full_name} is of a kind that isn't written here")


def _enum_writer(enum: EnumDescriptor) -> Write:
    names = {number: f'"{value.name}"' for number, value in enum.values_by_number.items()}
    return lambda value, _: names[value] if value in names else str(value)


def _write_double(value: float, _: str) -> str:
    if math.isfinite(value):
        return repr(value)
    # https://protobuf.dev/programming-guides/json/
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'
