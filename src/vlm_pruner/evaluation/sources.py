"""What an answer depends on besides weights and questions: the source code that computes it."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

__all__ = ["code_hash", "imported"]

PACKAGE = "vlm_pruner"
METHODS = f"{PACKAGE}.methods"  # its modules are named one by one


@functools.cache
def code_hash(*modules: str) -> str:
    """Hash of the source of `modules` and of every module of this package that they import, at any depth.

    A new method file, a new plot or a new page changes no hash but its own, so that old answers stay good.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_closure(modules).items()):
        digest.update(name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _closure(modules: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and (file := _file(name)):
            found[name] = file
            waiting += imported(name, file)
    return found


def imported(name: str, file: Path) -> Iterator[str]:
    """Modules of this package that the module `name` names in import statements, a few too many rather than too few.

    A package also names its own modules: some choose among them only when they run.
    """
    if file.name == "__init__.py" and name != METHODS:
        yield from (f"{name}.{path.stem}" for path in file.parent.iterdir() if path.stem != "__init__")
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base.split(".")[0] == PACKAGE:
                yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _file(name: str) -> Path | None:
    """Source of a module; None for the package itself, which only lists exports, and for what is no module."""
    if name == PACKAGE:
        return None
    try:
        spec = find_spec(name)
    except (ModuleNotFoundError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None
