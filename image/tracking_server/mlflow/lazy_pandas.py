"""Delays the import of pandas until it is first used.

pandas accounts for a tenth of the time, and a sixth of the memory, of importing MLflow's server,
which names its classes in signatures and uses it in a few rare calls. MLflow's own modules are
imported unchanged; `import pandas` gives them an empty module that becomes pandas when it is used.
"""

import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

NAME = "pandas"

_IN_SIGNATURES = frozenset({"DataFrame", "Series"})


@contextmanager
def only_named() -> Iterator[None]:
    """Within this context and thread, `import pandas` gives the module without running it."""
    _FINDER.install()
    _FINDER.naming = threading.get_ident()
    try:
        yield
    finally:
        _FINDER.use()


class _Pandas(ModuleType):
    """The module that stands for pandas, and becomes pandas at its first use."""

    def __getattr__(self, name: str) -> Any:
        # Python reads these names itself during an import.
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _IN_SIGNATURES and _FINDER.only_named() and not _is_run(self):
            return _InSignature(name, (), {"__module__": NAME})
        _FINDER.use()
        importlib.import_module(NAME)
        try:
            return vars(self)[name]
        except KeyError:
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}") from None


class _InSignature(type):
    """Stands for a class of pandas in a signature; before pandas runs it has no instances."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real(cls.__name__))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _real(cls.__name__))


def _real(name: str) -> Any:
    module = sys.modules.get(NAME)
    return () if module is None or not _is_run(module) else getattr(module, name)


def _is_run(module: ModuleType) -> bool:
    """Whether the module has run, or is running in a thread that holds its import lock."""
    return not (module.__spec__ and isinstance(module.__spec__.loader, _NotYet))


class _Finder(MetaPathFinder):
    """Finds pandas. Within `only_named`, the import doesn't run it; otherwise, it does."""

    def __init__(self) -> None:
        self._module = _Pandas(NAME)
        # The thread that is within `only_named`.
        self.naming: int | None = None

    def install(self) -> None:
        if NAME not in sys.modules and self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def only_named(self) -> bool:
        return self.naming == threading.get_ident()

    def use(self) -> None:
        """Let imports of pandas run it from now on, under Python's own import lock."""
        self.naming = None
        module = sys.modules.get(NAME)
        if module is not None and not _is_run(module):
            del sys.modules[NAME]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            loader = _NotYet if self.only_named() else _Now
            spec.loader = loader(self._module, spec.origin)
        return spec


class _Now(SourceFileLoader):
    def __init__(self, module: ModuleType, path: str) -> None:
        super().__init__(NAME, path)
        self._module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module


class _NotYet(_Now):
    def exec_module(self, module: ModuleType) -> None:
        pass


_FINDER = _Finder()
