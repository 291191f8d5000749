from __future__ import annotations

import pytest
import torch

from vlm_pruner.evaluation.measures import coverage, redundancy
from vlm_pruner.evaluation.timing import _hardware
from vlm_pruner.methods import create
from vlm_pruner.plan import PrunePlan, Stage


def test_redundancy_is_the_mean_cosine_of_all_pairs() -> None:
    rows = torch.randn(17, 5, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(rows, dim=1)
    pairs = [float(unit[i] @ unit[j]) for i in range(17) for j in range(i)]
    assert redundancy(rows) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_redundancy_of_equal_opposite_and_single_rows() -> None:
    row = torch.tensor([[3.0, 4.0]])
    assert redundancy(row.expand(4, -1)) == pytest.approx(1.0)
    assert redundancy(torch.cat([row, -row])) == pytest.approx(-1.0)
    assert redundancy(row) is None


def test_redundancy_is_unharmed_by_half_precision() -> None:
    rows = 50 + torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    assert redundancy(rows.half()) == pytest.approx(redundancy(rows), abs=1e-4)


def test_coverage() -> None:
    evidence = torch.tensor([True, False, True, True, False])
    assert coverage(torch.tensor([0, 1, 3]), evidence) == pytest.approx(2 / 3)
    assert coverage(torch.tensor([1, 4]), evidence) == 0
    assert coverage(torch.tensor([1]), torch.zeros(5, dtype=torch.bool)) is None


def test_lengths_follow_the_stages_and_shares_mean_original_tokens() -> None:
    method = create("random")
    plan = PrunePlan((Stage(method, 0.5, None), Stage(method, 30, 2), Stage(method, 0.1, 3)))
    assert plan.lengths(100, 5) == [50, 50, 30, 10, 10]
    assert PrunePlan.of("none", num_layers=3).lengths(100, 3) == [100] * 3


def test_the_processor_of_a_timing_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux often knows no name of its processor: then the machine's stands there."""
    for named, machine, said in (("Zen", "x86_64", "Zen"), ("", "x86_64", "x86_64")):
        monkeypatch.setattr("platform.processor", lambda named=named: named)
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert _hardware(torch.nn.Linear(1, 1))["device"] == said
