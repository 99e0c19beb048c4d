"""Limits the depth and the number of values of a JSON text without parsing it.

MLflow also parses the JSON in some strings of its requests, such as a dataset's records. So the
values in a string that looks like JSON are counted too.
"""

import json
import re

NOT_JSON = "/upload-artifact"
"""The end of the path of the only route that accepts a small file with any content."""

MAX_DEPTH = 64
"""Levels of nested JSON; MLflow's own requests have about ten."""

_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
"""JSON's strings and brackets. The possessive quantifiers make it linear in time and memory."""

_ESCAPED = re.compile(rb"\\u00(?:5b|7b|2c)", re.IGNORECASE)
"""`[`, `{` and `,` in a string."""

_LOOKS_LIKE_JSON = re.compile(
    rb'"(?:\s|\\[nrt]|\\u00(?:20|09|0a|0d))*+(?:[\[{]|\\"|\\u00(?:5b|7b|22))', re.IGNORECASE
)


class _TooMuch(Exception):
    pass


def json_problem(body: bytes, *, values: int, depth: int = MAX_DEPTH) -> str:
    """Returns why a text is too much for a JSON parser, or an empty string if it isn't.

    The text may be invalid JSON, which MLflow refuses.
    """
    opened = body.count(b"[") + body.count(b"{")
    # This also counts characters inside strings; even so, most bodies are far below the limits.
    if b"\\u00" in body:
        opened += len(_ESCAPED.findall(body))
    if opened <= depth and opened + body.count(b",") <= values:
        return ""
    if not json.detect_encoding(body).startswith("utf-8"):
        return "A large body must be in UTF-8, and this is in UTF-16 or UTF-32"
    try:
        _count(body, values, depth)
    except _TooMuch as error:
        return f"{error}. At most {values} values in {depth} levels are allowed"
    return ""


def _count(body: bytes, values: int, depth: int) -> int:
    """Returns how many values a text has.

    Raises:
        _TooMuch: if they, or their levels, exceed the limits.
    """
    level = count = 0
    for token in _TOKENS.finditer(body):
        first = token[0][0]
        if first in b'"':
            if _LOOKS_LIKE_JSON.match(token[0]):
                # Each string within a string has its quotes escaped once more, so there are few.
                count += _count(_decoded(token[0]), values - count, depth - level)
        elif first in b"[{":
            level += 1
            count += 1
        elif first in b"]}":
            level -= 1
        else:
            count += 1
        if count > values:
            raise _TooMuch("The body's JSON has too many values: send them in several requests")
        if level > depth:
            raise _TooMuch("The body's JSON is nested too deeply: send it flatter")
    return count


def _decoded(string: bytes) -> bytes:
    try:
        text: str = json.loads(string)
    except ValueError:
        # MLflow's parser refuses the whole body.
        return b""
    return text.encode("utf-8", "surrogatepass")
