"""Random plans and choices, a few of each: `benchmarks.fuzz_choices` tries thousands. Seeds are fixed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from benchmarks.fuzz_choices import chosen, planned
from tests.support.tokens import visual_tokens

from vlm_pruner.methods import create, registry
from vlm_pruner.ops.merge import merge


def test_random_plans_are_read_or_refused() -> None:
    lots = random.Random(0)
    found = [planned(lots) for _ in range(400)]
    assert found.count("read") > 80
    assert found.count("PlanError") > 80


@pytest.mark.parametrize("name", sorted(registry()))
def test_random_choices_are_made_or_refused(name: str) -> None:
    found = [chosen(create(name), random.Random(f"{name} {number}"), 120) for number in range(8)]
    assert "made" in found


@pytest.mark.parametrize("backend", ["naive", "torch", "numba"])
def test_merged_rows_stay_within_float16(backend: str) -> None:
    """Found by `benchmarks.fuzz_choices`: weights that nearly cancel out make the mean larger than all rows."""
    rows = visual_tokens((1, 1, 4), 8, torch.float16, scale=6e4).features
    index, source = torch.tensor([[0]]), torch.zeros(1, 4, dtype=torch.long)
    weight = torch.tensor([[0.0, 0.9, -0.8, -0.05]])
    (made,) = merge([rows], index, source, weight, 0.5, backend=backend)
    assert made.isfinite().all()
    assert made.abs().max() == torch.finfo(torch.float16).max


@pytest.mark.parametrize("name", sorted(registry()))
def test_rows_that_any_method_merges_stay_within_float16(name: str) -> None:
    """VisionZip adds a mean to a row: the sum of two rows near float16's end was infinite."""
    tokens = visual_tokens((2, 9, 5), 16, torch.float16)
    rows = 6e4 * torch.linspace(-1, 1, 16).sign() * torch.linspace(0.99, 1, 90)[:, None]
    made = create(name).select(replace(tokens, features=rows.to(torch.float16)), 90 if name == "none" else 50)
    assert made.features is None or made.features.isfinite().all()


def test_a_video_of_large_half_precision_rows_stays_finite() -> None:
    for seed in range(40):
        tokens = visual_tokens((1, 5, 2), 16, torch.float16, seed, 6e4, layer=None)
        made = create("vlm-pruner-video").select(tokens, 1)
        assert made.features is not None
        assert made.features.isfinite().all()
