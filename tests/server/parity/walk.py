"""Collects one server's responses to the whole sequence."""

from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from tests.server.parity.answer import Answer, comparable
from tests.server.parity.call import Call, Names, found


@dataclass(frozen=True)
class Step:
    call: Call
    answer: Answer


def walk(client: httpx.Client, calls: Iterable[Call], names: Names) -> list[Step]:
    """Send `calls` one after the other; add the values that they keep to `names`."""
    steps = []
    names["server"] = client.base_url.netloc.decode()
    for call in calls:
        filled = call.filled(names)
        try:
            answer = client.request(filled.method, filled.path, **filled.options())
        except httpx.TransportError as error:
            raise AssertionError(f"{filled} got no response: {error!r}") from error
        if answer.status_code < 300:
            names |= {name: found(answer.json(), place) for name, place in call.keep.items()}
        steps.append(Step(call, comparable(answer, names)))
    return steps
