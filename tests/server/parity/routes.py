"""Every route that MLflow serves, as its two apps list them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path
from tracking_server.mlflow import internals

from tests.server.flask_app import import_flask

_PARAMETER = re.compile(r"\{[^}]+\}|<[^>]+>")


@dataclass(frozen=True, order=True)
class Route:
    """A method and a path, with parameters in the app's notation."""

    method: str
    template: str

    @property
    def path(self) -> str:
        """Returns a path that the route accepts, for an object that doesn't exist."""
        return _PARAMETER.sub("x", self.template)

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


def native_routes() -> list[Route]:
    """Returns FastAPI's routes in matching order. The mount has no methods."""
    app = internals.import_fastapi()
    return [
        Route(method, str(context.path))
        for context in iter_route_contexts(app.routes)
        for method in sorted(context.methods or ())
    ]


def flask_routes() -> list[Route]:
    flask = import_flask()
    return [
        Route(method, rule.rule)
        for rule in flask.url_map.iter_rules()  # type: ignore[attr-defined]
        for method in sorted(rule.methods or ())
    ]


def every_route() -> list[Route]:
    return sorted({*native_routes(), *flask_routes()})


class Router:
    """Finds the route of a request: the first native one, or else Flask's most specific one."""

    def __init__(self) -> None:
        self._routes = [
            (route, _pattern(route.template))
            for route in (*native_routes(), *sorted(flask_routes(), key=_parameters))
        ]

    def route(self, method: str, path: str) -> Route | None:
        return next(
            (r for r, pattern in self._routes if r.method == method and pattern.fullmatch(path)),
            None,
        )

    def reached(self, requests: Iterable[tuple[str, str]]) -> set[Route]:
        return {route for request in requests if (route := self.route(*request))}


def _parameters(route: Route) -> int:
    return len(_PARAMETER.findall(route.template))


def _pattern(template: str) -> re.Pattern[str]:
    # Starlette's notation for Flask's parameters, <path:x> and <x>.
    starlette = re.sub(r"<path:([^>]+)>", r"{\1:path}", template)
    return compile_path(re.sub(r"<([^>]+)>", r"{\1}", starlette))[0]
