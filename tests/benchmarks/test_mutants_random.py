"""Breaks drawn from the syntax tree: of every kind, in every room, the same for a seed, each a change that parses."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
from benchmarks import mutants_random
from benchmarks.mutants_random import KINDS, draw

SOURCE = '''
"""A module."""

__all__ = ["f"]


def f(a: int, b: int = 3) -> int:
    assert a < 7
    if a < b and b:
        return a + b
    return f"{a + 1}" if a is None else -1
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text(SOURCE, encoding="utf-8")
    seen = {"room/one.py": {10: ["tests/a.py::narrow"], 9: ["tests/a.py::narrow", "tests/a.py::wide[x y]"]}}
    monkeypatch.setattr(mutants_random, "_contexts", lambda coverage: seen)
    return tmp_path


def changes(package: Path, count: int = 99, seed: int = 0) -> list[tuple[str, Any]]:
    return [(m.name, m) for m in draw(package, count, seed, package / "none")]


def test_every_place_and_nothing_else(package: Path) -> None:
    names = {name.removeprefix("room/one.py: ") for name, _ in changes(package)}
    assert names == {
        "a < b -> (a <= b), line 9", "a is None -> (a is not None), line 11", "a + b -> (a - b), line 10",
        "a < b and b -> (a < b or b), line 9", "a < b and b -> (not (a < b and b)), line 9",
        "a is None -> (not (a is None)), line 11", "3 -> (4), line 7", "1 -> (2), line 11",
        "return a + b -> return None, line 10",
        'return f"{a + 1}" if a is None else -1 -> return None, line 11',
    }  # fmt: skip


def test_each_changes_one_place_and_parses(package: Path) -> None:
    for name, mutant in changes(package):
        assert mutant.old == SOURCE
        assert ast.dump(ast.parse(mutant.new)) != ast.dump(ast.parse(SOURCE)), name


def test_kinds_take_turns_and_the_seed_decides(package: Path) -> None:
    first = [name for name, _ in changes(package, len(KINDS))]
    assert len(set(first)) == len(KINDS)
    assert first == [name for name, _ in changes(package, len(KINDS))]
    assert any(first != [name for name, _ in changes(package, len(KINDS), seed)] for seed in range(1, 6))


def test_the_nearest_tests_are_those_that_run_the_line(package: Path) -> None:
    tests = {name.rpartition(" ")[2]: shlex.split(mutant.tests) for name, mutant in changes(package)}
    assert tests["10"] == ["a.py::narrow"]
    assert sorted(tests["9"]) == ["a.py::narrow", "a.py::wide[x y]"]
    pages = ["benchmarks/test_tables.py", "docs/test_pages.py"]  # where defaults are printed
    assert sorted(tests["7"]) == ["a.py::narrow", "a.py::wide[x y]", *pages]  # a default: whatever runs the file


def test_files_that_are_tested_elsewhere_are_left_out(package: Path) -> None:
    source = Path(mutants_random.TESTS).parent / "src" / "vlm_pruner"
    left = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    left = {file for file in left if mutants_random.ELSEWHERE.match(file)}
    assert {"serving/vllm/models.py", "serving/batch/on_ray.py", "evaluation/lmms/model.py"} <= left
    assert "serving/batch/rows.py" not in left
    (package / "serving" / "batch").mkdir(parents=True)
    (package / "serving" / "batch" / "on_ray.py").write_text(SOURCE, encoding="utf-8")
    assert all(mutant.file == "room/one.py" for _, mutant in changes(package))


def test_a_number_that_one_more_does_not_change_stays(package: Path) -> None:
    (package / "room" / "one.py").write_text("LARGE = 1e30\n", encoding="utf-8")
    assert not changes(package)


def test_files_of_the_same_name_look_too_and_the_compiler_for_kernels(package: Path) -> None:
    mutant = changes(package)[0][1]
    named = {f"test_{name}": [f"{name}.py"] for name in ("one", "room", "compiled", "other")}
    assert mutants_random._by_name(mutant, named) == ["one.py", "room.py"]
    several = named | {"test_one": ["hall/one.py", "room/one.py"]}
    assert mutants_random._by_name(mutant, several) == ["room/one.py", "room.py"]
    kernel = dataclasses.replace(mutant, old="import triton\n" + SOURCE)
    assert mutants_random._by_name(kernel, named) == ["one.py", "room.py", "compiled.py"]
