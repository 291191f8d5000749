"""The breaks can be made: each names one place of today's source, and tests that are there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from benchmarks.mutants import Mutant
from benchmarks.mutation import MUTANTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_break_has_its_one_place_and_its_tests(mutant: Mutant) -> None:
    text = (ROOT / "src" / "vlm_pruner" / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.old!r} in {mutant.file}"
    assert mutant.new != mutant.old
    words = shlex.split(mutant.tests)
    paths = words[: words.index("-k")] if "-k" in words else words
    assert paths
    assert [path for path in paths if not (ROOT / "tests" / path).exists()] == []


def test_no_two_breaks_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
