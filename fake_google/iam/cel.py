"""Parses and evaluates the part of the Common Expression Language that our conditions use.

https://github.com/google/cel-spec/blob/master/doc/langdef.md

Strings, lists, `==`, `!=`, `in`, `+`, `!`, `&&`, `||`, `?:`, `startsWith`, `endsWith`. A missing
field is an error, which is neither true nor false: `&&` and `||` absorb an error only if the other
side alone decides the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Values = Mapping[str, object]
Expression = Callable[[Values], object]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'[^'\\\n]*'|"[^"\\\n]*")|(?P<word>[A-Za-z_]\w*)"""
    r"""|(?P<sign>&&|\|\||==|!=|[!?:+.,()\[\]]))"""
)
_METHODS: Mapping[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}
_LITERALS = {"true": True, "false": False}


class Malformed(Exception):
    """The expression is wrong, or uses something that isn't supported here."""


class Failed(Exception):
    """The expression has no value for the given input."""


def parse(source: str) -> Expression:
    parser = _Parser(source)
    expression = parser.ternary()
    parser.end()
    return expression


class _Parser:
    """A recursive descent parser, with one method for each level of precedence."""

    def __init__(self, source: str) -> None:
        self._source, self._tokens, self._at = source, _tokens(source), 0

    def ternary(self) -> Expression:
        condition = self._or()
        if not self._takes("?"):
            return condition
        then = self.ternary()
        self._expects(":")
        otherwise = self.ternary()
        return lambda values: (
            then(values) if _boolean(condition(values), "?:") else otherwise(values)
        )

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise Malformed(f"{self._source!r}: nothing more was expected at {self._next()}")

    def _or(self) -> Expression:
        expression = self._and()
        while self._takes("||"):
            expression = _decided_by(True, expression, self._and(), "||")
        return expression

    def _and(self) -> Expression:
        expression = self._relation()
        while self._takes("&&"):
            expression = _decided_by(False, expression, self._relation(), "&&")
        return expression

    def _relation(self) -> Expression:
        left = self._sum()
        for sign, relation in (("==", _equal), ("!=", _unequal), ("in", _within)):
            if self._takes(sign):
                return _both(left, self._sum(), relation)
        return left

    def _sum(self) -> Expression:
        expression = self._unary()
        while self._takes("+"):
            expression = _both(expression, self._unary(), _joined)
        return expression

    def _unary(self) -> Expression:
        if self._takes("!"):
            inner = self._unary()
            return lambda values: not _boolean(inner(values), "!")
        return self._member()

    def _member(self) -> Expression:
        expression = self._primary()
        while self._takes("."):
            name = self._word()
            if self._takes("("):
                if name not in _METHODS:
                    raise Malformed(f"{self._source!r}: {name}() isn't understood here")
                expression = _called(expression, name, self.ternary())
                self._expects(")")
            else:
                expression = _field(expression, name)
        return expression

    def _primary(self) -> Expression:
        if self._takes("("):
            inner = self.ternary()
            self._expects(")")
            return inner
        if self._takes("["):
            items = [self.ternary()]
            while self._takes(","):
                items.append(self.ternary())
            self._expects("]")
            return lambda values: [item(values) for item in items]
        token = self._next()
        if token[:1] in ("'", '"'):
            self._at += 1
            return lambda _: token[1:-1]
        name = self._word()
        if name in _LITERALS:
            return lambda _: _LITERALS[name]
        return _field(lambda values: values, name)

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _takes(self, token: str) -> bool:
        found = self._next() == token
        self._at += found
        return found

    def _expects(self, token: str) -> None:
        if not self._takes(token):
            raise Malformed(
                f"{self._source!r}: {token} was expected, not {self._next() or 'the end'}"
            )

    def _word(self) -> str:
        token = self._next()
        if not token.isidentifier():
            raise Malformed(f"{self._source!r}: a name was expected, not {token or 'the end'}")
        self._at += 1
        return token


def _tokens(source: str) -> list[str]:
    found, at = [], 0
    while at < len(source.rstrip()):
        match = _TOKEN.match(source, at)
        if match is None:
            raise Malformed(f"{source!r}: {source[at:].strip()[:20]!r} isn't understood here")
        found.append(match["text"] or match["word"] or match["sign"])
        at = match.end()
    return found


def _decided_by(decisive: bool, left: Expression, right: Expression, sign: str) -> Expression:
    """Returns `&&` or `||`: if either side is `decisive`, it decides the result."""

    def evaluate(values: Values) -> bool:
        try:
            first = _boolean(left(values), sign)
        except Failed:
            if _boolean(right(values), sign) is decisive:
                return decisive
            raise
        return first if first is decisive else _boolean(right(values), sign)

    return evaluate


def _both(
    left: Expression, right: Expression, relation: Callable[[object, object], object]
) -> Expression:
    return lambda values: relation(left(values), right(values))


def _equal(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def _unequal(left: object, right: object) -> bool:
    return not _equal(left, right)


def _within(item: object, items: object) -> bool:
    if isinstance(items, Mapping):
        return item in items
    if isinstance(items, list):
        return any(_equal(item, each) for each in items)
    raise Failed(f"in: {items!r} is neither a list nor a map")


def _joined(left: object, right: object) -> str:
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    raise Failed(f"+: {left!r} and {right!r} aren't both strings")


def _called(subject: Expression, name: str, argument: Expression) -> Expression:
    def evaluate(values: Values) -> bool:
        text, given = subject(values), argument(values)
        if isinstance(text, str) and isinstance(given, str):
            return _METHODS[name](text, given)
        raise Failed(f"{name}: {text!r} and {given!r} aren't both strings")

    return evaluate


def _field(subject: Expression, name: str) -> Expression:
    def evaluate(values: Values) -> object:
        found = subject(values)
        if isinstance(found, Mapping) and name in found:
            return found[name]
        raise Failed(f"no such key: {name}")

    return evaluate


def _boolean(value: object, sign: str) -> bool:
    if isinstance(value, bool):
        return value
    raise Failed(f"{sign}: {value!r} is neither true nor false")
