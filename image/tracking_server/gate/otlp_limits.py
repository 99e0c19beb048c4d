"""Limits the spans and fields in a body of OpenTelemetry's protocol before it is parsed.

An empty span takes two bytes of protobuf and some thousand bytes of memory, so a limit for the
body's size isn't enough. The encoding: https://protobuf.dev/programming-guides/encoding/
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

MAX_SPANS = 10_000
"""Spans of one request; OpenTelemetry's exporter sends 512 at a time by default:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor"""

MAX_PARTS = 500_000
"""Fields of one request; a span has some ten, and each of its attributes four."""

PATH = "/v1/traces"

MAX_DEPTH = 64

_SPAN = "opentelemetry.proto.trace.v1.Span"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Nested = dict[int, "Descriptor"]


def is_protobuf(content_type: str) -> bool:
    """Whether this is OTLP's binary format: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request"""
    return content_type.partition(";")[0].strip().lower() == "application/x-protobuf"


def problem(body: bytes) -> str:
    """Returns why a request is too much, or an empty string if it isn't.

    An invalid request isn't a problem here, because the parser reports it. Only messages are
    followed; the contents of other fields are skipped.
    """
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = parts = 0
    open_messages = [(ExportTraceServiceRequest.DESCRIPTOR, 0, len(body))]
    levels = [1]
    try:
        while open_messages:
            message, at, end = open_messages.pop()
            level = levels.pop()
            nested = _nested(message)
            while at < end:
                key, at = _varint(body, at)
                kind = key & 7
                parts += 1
                if kind == _BYTES:
                    size, at = _varint(body, at)
                    if inner := nested.get(key >> 3):
                        spans += inner.full_name == _SPAN
                        if level > MAX_DEPTH:
                            return f"Attributes are nested more than {MAX_DEPTH} levels deep."
                        open_messages.append((inner, at, min(at + size, end)))
                        levels.append(level + 1)
                    at += size
                elif kind == _VARINT:
                    _, at = _varint(body, at)
                elif kind in (_FIXED64, _FIXED32):
                    at += 8 if kind == _FIXED64 else 4
                else:
                    return ""
                if spans > MAX_SPANS or parts > MAX_PARTS:
                    return (
                        f"The request has more than {MAX_SPANS} spans, or more than {MAX_PARTS} "
                        "values in them: export in smaller batches, for example "
                        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=512."
                    )
    except IndexError:
        return ""
    return ""


@cache
def _nested(message: "Descriptor") -> Nested:
    """Returns the fields of a message that are messages themselves."""
    return {field.number: field.message_type for field in message.fields if field.message_type}


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """Returns the number at this position, and where it ends.

    Raises:
        IndexError: if there is none.
    """
    byte = body[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    for _ in range(9):
        at += 1
        byte = body[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise IndexError("no varint")
