"""How deep a JSON text is nested and how many values it has, found out without parsing it."""

import json
import re
from contextlib import suppress

MAX_DEPTH = 64
"""Levels of nested JSON; MLflow's own requests have about ten."""

_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
"""JSON's strings and structure. The possessive quantifiers keep it linear, in time and memory."""


def json_problem(body: bytes, *, values: int, depth: int = MAX_DEPTH) -> str:
    """Why this text is too much for a JSON parser, nothing if it isn't.

    It need not be JSON: what isn't, MLflow refuses.
    """
    if body.lstrip()[:1] == b'"':
        # JSON within JSON, as MLflow's older clients send it.
        with suppress(ValueError, RecursionError):
            inner = json.loads(body)
            return json_problem(inner.encode("utf-8", "surrogatepass"), values=values, depth=depth)
    opened = body.count(b"[") + body.count(b"{")
    # Characters inside strings count here too; even so, most bodies are far below the limits.
    if opened <= depth and opened + body.count(b",") <= values:
        return ""
    level = deepest = count = 0
    for token in _TOKENS.finditer(body):
        first = token[0][0]
        if first in b"[{":
            level += 1
            count += 1
            deepest = max(deepest, level)
        elif first in b"]}":
            level -= 1
        elif first in b",":
            count += 1
        if count > values:
            return f"The body has more than {values} values: send them in several requests."
        if deepest > depth:
            return f"The body's JSON is nested more than {depth} levels deep: send it flatter."
    return ""
