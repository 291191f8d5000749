"""Breaks drawn by chance from the syntax tree of the whole package, and the tests that are nearest to each: those that
run the broken line, and those of its file's name.

Five kinds, in turn: comparisons, arithmetic, conditions, constants, returned values. What is left alone: annotations,
assertions (they tell types), docstrings, `__all__`, what stands inside f-strings, blocks for type checkers, and files
that are tested in environments of their own.
"""

from __future__ import annotations

import ast
import copy
import random
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.mutants import Mutant

__all__ = ["ELSEWHERE", "EQUIVALENT", "KINDS", "draw"]

KINDS = ("comparison", "arithmetic", "condition", "constant", "returned value")
_OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Mult, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip
EQUIVALENT: dict[str, str] = {
    "engine/busy.py: 0.5 -> (1.5)": "how often the end of threads that died is looked for; those that leave wake it up",
    "methods/_density.py: return not bool((group > 0).any()) -> return None": "spares work on frames without a group, "
    "of which the work would find the same: no score and no distances",
    "ops/facility/numba.py: above > 0 -> (above >= 0)": "where it is 0, 0 is added either way",
    "ops/maxmin/torch.py: len(held) < _CACHED -> (len(held) <= _CACHED)": "one strip more of rows that are held, not "
    "computed again",
    "engine/vision.py: number > 0 -> (number >= 0)": "no model of transformers reads hidden state 0 of its tower: "
    "LLaVA itself fails where its configuration says so",
    "ops/maxmin/torch.py: 1 -> (2)": "where tokens have no weights, one more for all changes no order",
    "ops/maxmin/triton.py: interpreted() -> (not (interpreted()))": "how many channels are read at a time",
    "ops/screen/numba.py: 24 -> (25)": "half of the bound is still more than what sums of eight times eight rows lose",
    "ops/screen/torch.py: 20 -> (21)": "how much is held at a time",
    "budget.py: sum(dealt(middle)) <= keep -> (sum(dealt(middle)) < keep)": "what the last step of the rate deals out "
    "are the largest fractions left over before it, which come next in any case",
    # rooms around the methods: web, viz, cli, evaluation, serving, models, scenes
    "viz/squares.py: (place - place.round()).abs() < 1e-3 -> ((place - place.round()).abs() <= 0.001)": (
        "places of tokens lie at whole and half numbers, never a thousandth beside one"
    ),
    "viz/labels.py: True -> False": "which place is better is asked of all, and all are alike",
    "viz/merges.py: x + dx -> (x - dx)": "which regions touch does not depend on the side from which one looks",
    "viz/geometry.py: position[:, 2] < columns - 0.5 - 1e-3 -> (position[:, 2] <= columns - 0.5 - 0.001)": (
        "no centre of a cell lies exactly a thousandth before half a column"
    ),
    "asking/opening.py: 2 -> (3)": "the decoder halves by whole steps, as often as the side that asks for less allows; "
    "the other 2 of the file is tested",
    "models/embedded/train/dense.py: (ground != 0).float() + torch.rand(ground.shape, device=ground.device) -> "
    "((ground != 0).float() - torch.rand(ground.shape, device=ground.device))": "a chance turned round is a chance",
    "models/embedded/train/loop.py: elapsed - logged > stage.every -> (elapsed - logged >= stage.every)": (
        "no clock of nanoseconds strikes the second that was asked for"
    ),
    "models/embedded/train/video.py: rng.random() < 0.6 -> (rng.random() <= 0.6)": "never exactly there",
    "scenes/layout.py: rng.random() < 0.65 -> (rng.random() <= 0.65)": "never exactly there",
    "scenes/layout.py: y + height + gap < b -> (y + height + gap <= b)": (
        "a place drawn at random from the real numbers never lies exactly at the edge"
    ),
}
"""Name of a break that changes nothing anybody could see, without its line -> why."""

ELSEWHERE = re.compile(r"serving/vllm/[cmpr]|serving/batch/on_|evaluation/lmms/(model|scenes_task)")
"""Files left out: `make test-serving` and `make test-eval` run them, in environments of their own."""

TESTS = Path(__file__).parents[1] / "tests"
_NEAREST = 80  # tests that look for one break
_PAGES = "benchmarks/test_tables.py docs/test_pages.py"  # defaults of commands, parameters of methods


def draw(package: Path, count: int, seed: int, coverage: Path) -> list[Mutant]:
    """`count` breaks of the files below `package`, the same for the same seed and source.

    Args:
        coverage: data of a run of the suite on this source, with the test as context of every line
            (`make coverage` leaves it).
    """
    found: dict[str, list[tuple[str, str, tuple[int, int, int, int], str]]] = {kind: [] for kind in KINDS}
    files = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*.py"))}
    sources = {file: path.read_text(encoding="utf-8") for file, path in files.items() if not ELSEWHERE.match(file)}
    for file, text in sources.items():
        for kind, node, new in _breaks(ast.parse(text)):
            where = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
            found[kind].append((file, kind, where, new))
    chance = random.Random(seed)
    for places in found.values():
        chance.shuffle(places)
    turns = [places[i] for i in range(max(map(len, found.values()))) for places in found.values() if i < len(places)]
    known = _contexts(coverage)
    named: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        named.setdefault(path.stem, []).append(str(path.relative_to(TESTS)))
    mutants = [_mutant(sources[turn[0]], *turn, known) for turn in turns[:count]]
    return [replace(m, tests=" ".join([m.tests, *_by_name(m, named)]).strip()) for m in mutants]


def _by_name(mutant: Mutant, named: dict[str, list[str]]) -> list[str]:
    """Test files named as the file or its folder, those of its own room where several are, and that which compiles
    kernels, for lines that none is seen to run: what Numba and Triton make of them runs unseen."""
    names = [
        Path(mutant.file).stem.lstrip("_"),
        Path(mutant.file).parent.name,
        "compiled" * ("import triton" in mutant.old),
    ]
    found = [named.get("test_" + name, []) for name in dict.fromkeys(names)]
    room = mutant.file.partition("/")[0] + "/"
    return [path for paths in found for path in [p for p in paths if p.startswith(room)] or paths]


def _mutant(text: str, file: str, kind: str, where: tuple[int, int, int, int], new: str, known: Any) -> Mutant:
    lines = text.encode().splitlines(keepends=True)  # columns of the tree count bytes
    first, start, last, end = where
    before = b"".join(lines[: first - 1]) + lines[first - 1][:start]
    behind = lines[last - 1][end:] + b"".join(lines[last:])
    old = text.encode()[len(before) : len(text.encode()) - len(behind)].decode()
    name = f"{file}: {' '.join(old.split())} -> {' '.join(new.split())}, line {first}"
    return Mutant(name, file, text, before.decode() + new + behind.decode(), _nearest(known.get(file, {}), first, last))


def _breaks(tree: ast.AST) -> Iterator[tuple[str, Any, str]]:
    """(kind, node, what is written in its place) of every place that can be broken."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "format_spec"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or _left_alone(node):
                continue
            yield from _of(node)
            yield from _breaks(node)


def _left_alone(node: Any) -> bool:
    if isinstance(node, ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _of(node: Any) -> Iterator[tuple[str, Any, str]]:
    changed: Any
    if isinstance(node, ast.Compare):
        changed = copy.deepcopy(node)
        changed.ops[0] = _OTHER[type(node.ops[0])]()
        yield "comparison", node, f"({ast.unparse(changed)})"
    elif isinstance(node, ast.BinOp) and type(node.op) in _OTHER and not _of_text(node):
        changed = copy.deepcopy(node)
        changed.op = _OTHER[type(node.op)]()
        yield "arithmetic", node, f"({ast.unparse(changed)})"
    elif isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = _OTHER[type(node.op)]()
        yield "condition", node, f"({ast.unparse(changed)})"
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition", node.test, f"(not ({ast.unparse(node.test)}))"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", node, str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value + 1 != node.value:
        yield "constant", node, f"({node.value + 1!r})"
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "returned value", node, "return None"


def _of_text(node: ast.BinOp) -> bool:
    """Are strings joined or types united? What only an error's words are made of is no behaviour to break."""
    return any(isinstance(part, ast.JoinedStr | ast.Constant) and not _number(part) for part in (node.left, node.right))


def _number(node: Any) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _contexts(coverage: Path) -> dict[str, dict[int, list[str]]]:
    """File under the package -> line -> the tests that run it."""
    from coverage import CoverageData

    data = CoverageData(str(coverage))
    data.read()
    out = {}
    for path in data.measured_files():
        lines = data.contexts_by_lineno(path)
        tests = {line: [name.rpartition("|")[0] for name in names if name] for line, names in lines.items()}
        out[path.rpartition("/vlm_pruner/")[2]] = tests
    return out


def _nearest(lines: dict[int, list[str]], first: int, last: int) -> str:
    """Arguments of pytest: tests that run the lines `first` to `last`, of as many functions as there are; where no test
    is known to run them (a constant of the module), those of the whole file and of pages made from the package.
    Those that run least of it come first."""
    seen = {test for line in range(first, last + 1) for test in lines.get(line, ())}
    pages = "" if seen else " " + _PAGES
    seen = seen or {test for tests in lines.values() for test in tests}
    width = dict.fromkeys(seen, 0)
    for tests in lines.values():
        for test in set(tests) & seen:
            width[test] += 1
    functions: dict[str, list[str]] = {}
    for test in sorted(seen, key=lambda test: (width[test], test)):
        functions.setdefault(test.partition("[")[0], []).append(test)
    turns = [tests[i] for i in range(2) for tests in functions.values() if i < len(tests)]
    return (shlex.join(test.removeprefix("tests/") for test in turns[:_NEAREST]) + pages).strip()
