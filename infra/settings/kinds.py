"""The kinds of settings: how a value is checked, and how a refused value is explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .refusals import Value

PulumiType = Literal["string", "integer", "boolean", "array"]

# How many characters of a refused value a message shows.
SHOWN = 200


@dataclass(frozen=True)
class InvalidError(Exception):
    """A value that its kind refuses. `given` is set if the value must not be shown as it is."""

    expected: str
    example: Value
    given: str | None = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of setting. `default` is the parsed value of a setting that isn't given."""

    pulumi_type: ClassVar[PulumiType]
    # The type of the argument of `TrackingServer`.
    python_type: ClassVar[str]
    default: Any

    def parse(self, given: Any) -> Any:
        """Returns the typed value of a given one, which isn't empty.

        Raises:
            InvalidError: if the value is refused.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Text(Kind):
    pulumi_type = "string"
    python_type = "str"

    default: str | None
    valid: Callable[[str], object]
    # Describes valid values. A function gets the given value, which may be close to a valid one.
    expected: str | Callable[[str], tuple[str, str]]
    example: str
    # Returns what a message shows of a refused value.
    show: Callable[[str], str] = str

    def parse(self, given: Any) -> str:
        text = str(given)
        if self.valid(text):
            return text
        expected, example = (
            (self.expected, self.example) if isinstance(self.expected, str) else self.expected(text)
        )
        raise InvalidError(expected, example, shown(self.show(text)))


@dataclass(frozen=True, kw_only=True)
class Password(Text):
    """A text that must be encrypted in the stack's file, and that no message shows."""

    python_type = "pulumi.Output[str]"

    show: Callable[[str], str] = lambda _: "(hidden)"


@dataclass(frozen=True, kw_only=True)
class Choice(Kind):
    """One of several values; the first is the default."""

    pulumi_type: ClassVar[PulumiType] = "string"
    python_type = "str"

    choices: tuple[str, ...] | tuple[int, ...]
    default: str | int = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", self.choices[0])

    def parse(self, given: Any) -> str | int:
        for choice in self.choices:
            if str(given) == str(choice):
                return choice
        raise InvalidError(f"one of {', '.join(map(str, self.choices))}", self.default)


@dataclass(frozen=True, kw_only=True)
class IntegerChoice(Choice):
    """One of several whole numbers; the first is the default."""

    pulumi_type = "integer"
    python_type = "int"


@dataclass(frozen=True, kw_only=True)
class Integer(Kind):
    pulumi_type = "integer"
    python_type = "int"

    default: int
    low: int
    high: int
    # The unit of the number, such as " GB".
    unit: str = ""
    # The meaning of a default below `low`, such as "no limit".
    off: str = ""
    example: Value | None = None

    def parse(self, given: Any) -> int:
        text = str(given).strip()
        if re.fullmatch(r"-?[0-9]{1,16}", text) and (
            self.low <= int(text) <= self.high or (self.off and int(text) == self.default)
        ):
            return int(text)
        otherwise = f", or {self.default} for {self.off}" if self.off else ""
        raise InvalidError(
            f"a whole number from {self.low} to {self.high}{self.unit}{otherwise}",
            self.default if self.example is None else self.example,
        )


@dataclass(frozen=True, kw_only=True)
class Boolean(Kind):
    pulumi_type = "boolean"
    python_type = "bool"

    default: bool

    def parse(self, given: Any) -> bool:
        text = str(given).lower()
        if text in ("true", "false"):
            return text == "true"
        raise InvalidError("true or false", self.default)


@dataclass(frozen=True, kw_only=True)
class Texts(Kind):
    """A list of texts, without duplicates and each in its normal form."""

    pulumi_type = "array"
    python_type = "Sequence[str]"

    default: tuple[str, ...] = ()
    valid: Callable[[str], object]
    expected: str
    example: str
    normal: Callable[[str], str] = str

    def parse(self, given: Any) -> tuple[str, ...]:
        try:
            items = json.loads(given) if isinstance(given, str) else given
        except json.JSONDecodeError:
            items = None
        if isinstance(items, list | tuple) and all(
            isinstance(item, str) and self.valid(item) for item in items
        ):
            return tuple(dict.fromkeys(self.normal(item) for item in items))
        raise InvalidError(self.expected, (self.example,))


def shown(value: Any) -> str:
    """Returns the value on one line, shortened to `SHOWN` characters."""
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
