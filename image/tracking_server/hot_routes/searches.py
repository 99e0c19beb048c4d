"""Turns a search for runs into one SQL statement, with MLflow's own parser and conditions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any

from tracking_server.hot_routes.request import NotHot, text
from tracking_server.hot_routes.statements import with_values

LONGEST_TEXT = 300
"""Characters of a filter or of a term of the order. They are parsed on the event loop, in a time
that grows with the square of the length."""

REMEMBERED_SEARCHES = 128

SLOW_FOR = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Search:
    """A statement, and the values of its parameters or, for those of each request, their names."""

    statement: str
    parameters: tuple[tuple[str, Any], ...]

    def values(self, **given: object) -> list[object]:
        return [given.get(name, value) for name, value in self.parameters]


Compile = Callable[[str, Sequence[str], str], tuple[str, tuple[tuple[str, Any], ...]]]
"""`internals.runs_query`."""


class Searches:
    """Compiles searches, and keeps those that were used last."""

    def __init__(self, compile_query: Compile) -> None:
        self._compile = compile_query
        self._compiled = lru_cache(REMEMBERED_SEARCHES)(self._compile_search)
        self._slow: dict[str, float] = {}

    def search(self, filter_text: object, order: Sequence[object], view: object) -> Search:
        """Returns the statement for a filter, the terms of an order, and the kind of runs.

        Raises:
            NotHot: if MLflow has to handle the request, for example to refuse it.
        """
        terms = tuple(text(term, LONGEST_TEXT) for term in order)
        search = self._compiled(text(filter_text, LONGEST_TEXT), terms, text(view, 20))
        if self._slow.get(search.statement, 0) > monotonic():
            raise NotHot
        return search

    def leave_to_mlflow(self, search: Search) -> None:
        """Leave a search that took too long to MLflow for a while; the connections are few."""
        if len(self._slow) >= REMEMBERED_SEARCHES:
            self._slow.clear()
        self._slow[search.statement] = monotonic() + SLOW_FOR

    def _compile_search(self, filter_text: str, order: tuple[str, ...], view: str) -> Search:
        try:
            query, parameters = self._compile(filter_text, order, view)
        except Exception:
            # MLflow's parser raises many kinds of errors; its own route says which.
            raise NotHot from None
        return Search(with_values(query), parameters)
