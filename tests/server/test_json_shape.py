"""Texts that would take too much memory to parse as JSON are detected without parsing."""

import json

import pytest
from tracking_server.gate.json_limits import json_problem

VALUES, DEPTH = 100, 10
MANY = "[" + "{}," * VALUES + "{}]"
FEW = "[" + "{}," * (VALUES // 3) + "{}]"
DEEP = "[" * (DEPTH + 1) + "]" * (DEPTH + 1)
FLAT = "[" * DEPTH + "]" * DEPTH


def within(text: str, times: int = 1) -> str:
    """Returns the text in a JSON string, within another one, and so on."""
    for _ in range(times):
        text = json.dumps(text)
    return text


def escaped(text: str) -> str:
    """Returns the text as a JSON string that consists of escapes."""
    return '"' + "".join(f"\\u{ord(character):04X}" for character in text) + '"'


TOO_MUCH = {
    "values": MANY,
    "levels": DEEP,
    "values in a string": within(MANY),
    "levels in a string": within(DEEP),
    "values in a string's string": within(MANY, 3),
    "values in a field": f'{{"records": {within(MANY)}}}',
    "values in many fields": f"[{','.join([within(FEW)] * 5)}]",
    "levels in a field": f"[[[{within('[' * (DEPTH - 2) + ']' * (DEPTH - 2))}]]]",
    "values behind spaces": within(" \n\t" + MANY),
    "escaped values": escaped(MANY),
    "escaped levels": escaped(DEEP),
    "escaped values in a field": f'{{"records": {escaped(" " + MANY)}}}',
    "a quoted string's start": '{"a":"\\"[{},","b":' + MANY + "}",
    "UTF-16": MANY.encode("utf-16-le"),
    "UTF-16 with quotes in other characters": ('"\u2200"' + MANY).encode("utf-16-be"),
    "UTF-32": MANY.encode("utf-32"),
}

TAKEN = {
    "few values": FEW,
    "few levels": FLAT,
    "a text with commas": json.dumps({"text": "one, two, " * VALUES}),
    "a text with brackets": json.dumps({"text": "see [1], [2] and {3} " * VALUES}),
    "accents": json.dumps({"text": "é, ü, " * VALUES}),
    "few values in a string": within(FEW, 3),
    "UTF-16": '{"a": 1}'.encode("utf-16-le"),
    "no JSON": b"\x00\xff\x22" * 10,
    "nothing": b"",
}


def problem(text: str | bytes) -> str:
    body = text.encode() if isinstance(text, str) else text
    return json_problem(body, values=VALUES, depth=DEPTH)


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
def test_json_with_too_many_values_is_detected(text: str | bytes) -> None:
    assert problem(text)


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_json_with_few_values_is_accepted(text: str | bytes) -> None:
    assert not problem(text)
