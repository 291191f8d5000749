"""Writes docs/api/*.md, the reference of every public name: `python -m docs.api`.

A page has one room of the package. What stands on it is read from `__all__`; the text of each name is its docstring,
which mkdocstrings puts in when the site is built.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Public", "pages", "public_names", "rooms"]

FOLDER = Path(__file__).parent / "api"
SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = "vlm_pruner"
ELSEWHERE = {
    "cli": "the command line has [a page of its own](../cli.md)",
    "web": "the page in the browser is started by [`vlm-pruner demo`](../demo.md)",
    "config_fields": "a helper of the adapters",
    "json_text": "a helper of all that reads JSON",
    "stage": "`vlm_pruner.plan` offers what it defines",
    "torchvision_fit": "runs by itself when the package is imported",
}
"""Rooms without a page of the reference, and why."""
SERVING = ("batch", "http", "vllm")


class Public(NamedTuple):
    """A public name: the module that offers it, the one that defines it, and its docstring."""

    offered: str
    home: str
    name: str
    text: str


def rooms() -> dict[str, list[str]]:
    """Page -> the modules whose `__all__` it shows, first the package itself."""
    found = {"index": [PACKAGE]}
    for path in sorted((SOURCE / PACKAGE).iterdir()):
        room = path.stem
        if room not in ELSEWHERE and not room.startswith("_") and (path.suffix == ".py" or path.is_dir()):
            inner = [f"{PACKAGE}.{room}.{name}" for name in SERVING] if room == "serving" else [f"{PACKAGE}.{room}"]
            if any(_all_of(module) for module in inner):
                found[room] = inner
    return found


def public_names(module: str) -> Iterator[Public]:
    """What a module offers, in the order of its `__all__`."""
    for name in _all_of(module):
        home = _home(module, name)
        yield Public(module, home, name, _text(home, name))


def pages() -> dict[Path, str]:
    """Every page of the reference and what it should say."""
    return {FOLDER / f"{room}.md": _page(room, modules) for room, modules in rooms().items()}


def _page(room: str, modules: list[str]) -> str:
    title = "API reference" if room == "index" else f"vlm_pruner.{room}"
    lines = [f"# {title}", "", "<!-- Made by `python -m docs.api` from the docstrings; do not edit. -->", ""]
    if room == "index":
        lines += [
            "What `import vlm_pruner as vp` offers stands at the end. The modules have pages of their own:",
            "",
        ]
        lines += [f"- [`vlm_pruner.{other}`]({other}.md): {_summary(of[0])}" for other, of in list(rooms().items())[1:]]
        lines += [
            "",
            *[f"`vlm_pruner.{other}` is not listed: {why}." for other, why in ELSEWHERE.items() if "[" in why],
            "",
        ]
        lines += ["## Names of the package", "", "| name | what it is |", "| --- | --- |"]
        lines += [f"| {_linked(public)} | {public.text.splitlines()[0]} |" for public in public_names(PACKAGE)]
        lines += [""]
    for module in modules:
        if room != "index":
            lines += [f"`{module}`: {_summary(module)}", ""]
        for public in public_names(module):
            if _pages_of()[public.home, public.name] == room:
                lines += [f"::: {public.home}.{public.name}", ""]
            elif room != "index":
                lines += [f"{_linked(public)}: {public.text.splitlines()[0]}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _linked(public: Public) -> str:
    page = _pages_of()[public.home, public.name]
    return f"[`{public.name}`]({page}.md#{public.home}.{public.name})"


@cache
def _pages_of() -> dict[tuple[str, str], str]:
    """The page that shows a name: of two modules that offer it the first one, the package only where no other does."""
    found: dict[tuple[str, str], str] = {}
    for room, modules in [*list(rooms().items())[1:], ("index", [PACKAGE])]:
        for public in (public for module in modules for public in public_names(module)):
            found.setdefault((public.home, public.name), room)
    return found


def _summary(module: str) -> str:
    return (ast.get_docstring(_tree(module)) or "").split("\n\n")[0].replace("\n", " ")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _all_of(module: str) -> list[str]:
    if module == PACKAGE:
        return sorted(name for names in _lazy().values() for name in names)
    if not _file(module).exists():
        return []
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


@cache
def _lazy() -> dict[str, tuple[str, ...]]:
    assigned = [node for node in _tree(PACKAGE).body if isinstance(node, ast.Assign)]
    (value,) = [node.value for node in assigned if ast.unparse(node.targets[0]) == "_HOMES"]
    homes: dict[str, tuple[str, ...]] = ast.literal_eval(value)
    return homes


def _home(module: str, name: str) -> str:
    """The module that defines a name which `module` offers."""
    if module == PACKAGE:
        return _home(next(home for home, names in _lazy().items() if name in names), name)
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and name in (alias.asname or alias.name for alias in node.names):
            within = module if _file(module).name == "__init__.py" else module.rpartition(".")[0]
            origin = ".".join(part for part in (within if node.level else "", node.module) if part)
            return _home(origin, name)
    return module


def _text(module: str, name: str) -> str:
    """The docstring of a name; of a constant, the string behind it."""
    body = _tree(module).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign | ast.AnnAssign) and name == ast.unparse(
            node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        ):
            behind = following.value if isinstance(following, ast.Expr) else None
            return behind.value if isinstance(behind, ast.Constant) and isinstance(behind.value, str) else ""
    return ""


def main() -> None:
    """Write the pages, and remove those of rooms that are gone."""
    wanted = pages()
    FOLDER.mkdir(exist_ok=True)
    for path in set(FOLDER.glob("*.md")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {len(wanted)} pages in {FOLDER}")


if __name__ == "__main__":
    main()
