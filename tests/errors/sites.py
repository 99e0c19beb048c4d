"""Where in the code an error is worded for people, found by what it is made with.

What passes on another's words alone has none of its own and is no site.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# By folder: the call that makes an error, and which of its arguments is the text. Google words what
# imitates its own refusals (fake_google/errors.py); the samples beside check_tracking.py have a
# table of their own in tests/gallery, and operations/doctor/ says findings, not errors.
MAKERS: Mapping[str, Mapping[str, int | str]] = {
    "infra/**/*.py": {
        "problem": "wanted",
        "text": "wanted",
        "Problem": "wanted",
        "_list": "wanted",
    },
    "infra/docker_daemon.py": {"__init__": 0},
    "local/*.py": {"LocalError": 0, "BootFailed": 0},
    "fake_google/**/*.py": {"LocalError": 0, "BootFailed": 0},
    "image/tracking_server/**/*.py": {
        "BootError": 0,
        "append": 0,
        "check": 2,
        "Refusal": 1,
        "_answer": 2,
        "DatabaseUnavailable": 0,
    },
    "sample_client/check_tracking.py": {"Problem": 0, "print": 0},
    "sample_client/google_login/*.py": {"LoginProblem": 0},
    "moving/*.py": {"exit": 0, "print": 0},
    "tools/cost.py": {"exit": 0},
    "tests/engine/previous_release.py": {"exit": 0},
}

OPERATIONS: Mapping[str, Mapping[str, int | str]] = {"operations/*.py": {"OperationError": 0}}

# In `problems.append` and the like only these are errors.
LISTS = {"problems"}

HOLE = "…"
# Fewer letters than this are punctuation around somebody else's words.
WORDS = 5
# As many characters in a row, or all there are, tell one text from another.
TELLING = 15

NEVER_SAID = {
    # A reason that image/tracking_server/boot/schema.py asks again for.
    "the database it is silent",
    # Whoever connects to what does not run is a mistake in local/.
    "… is recorded only.",
    # Cloud SQL's own words.
    "Error 400: Invalid request: failed: ….",
}


@dataclass(frozen=True)
class Site:
    place: str
    # The text, with `…` where it depends on what happened.
    text: str

    def met_by(self, said: str) -> bool:
        """Whether all parts of it are in what is said, in turn."""
        position = 0
        for part in self.text.split(HOLE):
            position = said.find(part, position) + len(part)
            if position < len(part):
                return False
        return True

    def partly_in(self, other: str) -> bool:
        """Whether a telling piece of it is there."""
        parts = self.text.split(HOLE)
        length = min(TELLING, max(map(len, parts)))
        pieces = (part[n : n + length] for part in parts for n in range(len(part) - length + 1))
        return any(piece in other for piece in pieces)

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def sites(makers_by_folder: Mapping[str, Mapping[str, int | str]] = MAKERS) -> list[Site]:
    found: list[Site] = []
    for glob, makers in makers_by_folder.items():
        for path in sorted(ROOT.glob(glob)):
            found += _in(path, makers)
    return found


def _in(path: Path, makers: Mapping[str, int | str]) -> Iterator[Site]:
    tree = ast.parse(path.read_text())
    scopes: dict[ast.AST, Sequence[ast.AST]] = {}
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = [*ast.walk(scope)]
            scopes |= dict.fromkeys(inside, inside)
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or (text := _text_of(call, makers)) is None:
            continue
        places: list[Sequence[ast.AST]] = [scopes.get(call, []), tree.body]
        for said in dict.fromkeys(_alternatives(text, places, path)):
            if sum(map(str.isalpha, said)) >= WORDS and said not in NEVER_SAID:
                place = f"{path.relative_to(ROOT)}:{call.lineno}"
                yield Site(place, said.strip())


def _text_of(call: ast.Call, makers: Mapping[str, int | str]) -> ast.expr | None:
    match call.func:
        case ast.Name(id=name):
            pass
        case ast.Attribute(value=value, attr=name):
            if name == "append" and not (isinstance(value, ast.Name) and value.id in LISTS):
                return None
        case _:
            return None
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "print" and "file" not in keywords:
        return None
    where = makers.get(name)
    if isinstance(where, int):
        return call.args[where] if where < len(call.args) else None
    return keywords.get(where)


def _alternatives(node: ast.expr, scopes: Sequence[Sequence[ast.AST]], path: Path) -> list[str]:
    """All that an expression can say."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return _joined([_alternatives(part, scopes, path) for part in parts])
        case ast.FormattedValue(value=value):
            return _alternatives(value, scopes, path)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined([_alternatives(left, scopes, path), _alternatives(right, scopes, path)])
        case ast.IfExp(body=body, orelse=orelse):
            return [*_alternatives(body, scopes, path), *_alternatives(orelse, scopes, path)]
        case ast.Name(id=name):
            for scope in scopes:
                if given := _assigned(scope, name):
                    added = _alternatives_of(given.added, scopes, path) if given.added else []
                    first = _alternatives_of(given.values, scopes, path)
                    return [*first, *_joined([first, added])] if added else first
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            other = path.with_name(f"{module}.py")
            if other.exists():
                there: Sequence[ast.AST] = ast.parse(other.read_text()).body
                if found := _assigned(there, name):
                    return _alternatives_of(found.values, [there], other)
    return [HOLE]


def _alternatives_of(
    nodes: Sequence[ast.expr], scopes: Sequence[Sequence[ast.AST]], path: Path
) -> list[str]:
    return [text for node in nodes for text in _alternatives(node, scopes, path)]


@dataclass(frozen=True)
class Given:
    values: list[ast.expr]
    added: list[ast.expr]


def _assigned(scope: Sequence[ast.AST], name: str) -> Given | None:
    """What a name is given by `=`, and what by `+=`: in a whole function, or at a module's top."""
    given = Given([], [])
    for node in scope:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                # A value made of itself would be followed without end.
                parts = [part for part in ast.walk(value) if isinstance(part, ast.Name)]
                given.values.extend([value] if name not in {part.id for part in parts} else [])
            case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                given.added.append(value)
    return given if given.values else None


def _joined(parts: list[list[str]]) -> list[str]:
    said = [""]
    for alternatives in parts:
        said = [text + more for text in said for more in alternatives]
    return said
