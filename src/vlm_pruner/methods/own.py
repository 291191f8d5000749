"""Methods of one's own, read from a Python file."""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path

from vlm_pruner.errors import InputError, first_line
from vlm_pruner.methods.base import PruningMethod, register

__all__ = ["methods_from"]


def methods_from(file: Path | str) -> list[type[PruningMethod]]:
    """Register the methods that a Python file defines, and return them.

    The file is imported under its own name, from its own folder: worker processes find it, too. Its code is run.

    Raises:
        InputError: there is no such file, it cannot be imported, it defines no method, or one that is not complete.
        PlanError: the name of one of its methods is taken.
    """
    file = Path(file).resolve()
    if not file.is_file() or file.suffix != ".py" or not file.stem.isidentifier():
        raise InputError(f"{str(file)!r} is no Python file with a name that can be imported, like my_method.py")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(file.stem)
    except Exception as error:  # it is somebody's program
        raise InputError(f"{file.name} cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    if Path(module.__file__ or "").resolve() != file:
        raise InputError(f"another module is called {file.stem!r}: give {file.name} another name")
    made = [value for value in vars(module).values() if _is_own(value, file.stem)]
    if not made:
        raise InputError(f"{file.name} defines no method: a dataclass derived from vlm_pruner.PruningMethod")
    for method in made:
        _check(method, file.name)
    return [register(method) for method in made]


def _is_own(thing: object, module: str) -> bool:
    return isinstance(thing, type) and issubclass(thing, PruningMethod) and thing.__module__ == module


def _check(method: type[PruningMethod], file: str) -> None:
    missing = [name for name in ("name", "title", "source") if not isinstance(getattr(method, name, None), str)]
    if missing:
        raise InputError(f"{file}: {method.__name__} needs {', '.join(missing)} as text")
    if inspect.isabstract(method):
        raise InputError(f"{file}: {method.__name__} needs {', '.join(sorted(method.__abstractmethods__))}")
    if not is_dataclass(method):
        raise InputError(f"{file}: {method.__name__} must be a dataclass: @dataclass(frozen=True)")
