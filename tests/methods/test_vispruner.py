import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.methods.vispruner import vispruner
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("vispruner"), ids=case_id)
def test_golden(case):
    tensors = build(case)
    rows = tensors["hidden"][1:]
    tokens = VisualTokens(rows, vision=VisionSignals(features=rows, cls_attention=tensors["attention"]))
    assert create("vispruner").select(tokens, case["keep"]).index.tolist() == case["expected"]["kept"]


def test_one_round_by_hand():
    # attention order 0..5; important: 0. rest 1 2 3 4 5: even places 1 3 5, odd 2 4; 3 repeats 4, 5 resembles 2 a bit
    rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0.1, 0], [1, 0, 0], [0, -1, 0.5]])
    score = torch.arange(6, 0, -1).float()
    assert vispruner(rows, score, 4, important=0.25, step=2).tolist() == [0, 1, 2, 4]
    assert vispruner(rows, score, 5, important=0.2, step=2).tolist() == [0, 5, 1, 2, 4]


@pytest.mark.parametrize(("n", "keep"), [(5, 1), (5, 2), (6, 3), (7, 7), (9, 4)])
def test_odd_rests_are_no_problem(n, keep):
    g = torch.Generator().manual_seed(n)
    kept = vispruner(torch.randn(n, 3, generator=g), torch.rand(n, generator=g), keep)
    assert len(set(kept.tolist())) == keep
