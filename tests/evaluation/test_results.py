from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.bench import cell_result, made_up_results

from vlm_pruner.errors import PlanError
from vlm_pruner.evaluation.results import BenchResults


@pytest.mark.parametrize("n", [1, 8, 13, 400])
def test_bits_survive_packing(n: int) -> None:
    correct = (np.random.default_rng(n).random(n) < 0.5).tolist()
    result = cell_result("none", 576, correct)
    assert result.bits(n).tolist() == [float(c) for c in correct]
    assert len(result.correct) == 2 * -(-n // 8)


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    results = made_up_results()
    results.save(tmp_path / "r.json")
    assert BenchResults.load(tmp_path / "r.json") == results
    lines = (tmp_path / "r.json").read_text().splitlines()
    assert sum('"correct"' in line for line in lines) == len(results.cells), "one line per cell keeps diffs readable"


def test_seeds_become_one_row() -> None:
    results = made_up_results()
    row = results.row("random", 64)
    assert row.correct.shape == (2, len(results.types))
    assert [c.seed for c in row.cells] == [0, 1]
    assert row.mean("flops") == pytest.approx(np.mean([c.flops for c in row.cells]))
    assert results.row("none").mean("evidence_lost") is None


def test_an_unknown_row_is_named_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match=r"vlm-prunr@64.*vlm-pruner@64"):
        made_up_results().row("vlm-prunr", 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"version": 0}, "version 0"), ({"surprise": 1}, "surprise"), ({"cells": [{"label": "x"}]}, "not a results file")],
)
def test_a_file_that_does_not_fit_is_refused(change: dict, message: str) -> None:
    record = json.loads(json.dumps(made_up_results().to_json())) | change
    with pytest.raises(PlanError, match=message):
        BenchResults.from_json(record)


def test_a_whole_table_stays_small() -> None:
    """30 methods, 4 budgets, 600 questions: well below the megabyte that all results files may have together."""
    correct = [True, False] * 300
    cells = [cell_result(f"method-{m}", b, correct) for m in range(30) for b in (192, 128, 64, 32)]
    assert sum(len(json.dumps(vars(c))) for c in cells) < 100_000
