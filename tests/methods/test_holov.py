import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.methods.holov import holov
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("holov"), ids=case_id)
def test_golden(case):
    tensors = build(case)
    tokens = VisualTokens(tensors["hidden"][1:], vision=VisionSignals(cls_attention=tensors["attention"]))
    selection = create("holov").select(tokens, case["keep"])
    assert selection.order.tolist() == case["expected"]["order"]
    assert selection.index.tolist() == case["expected"]["kept"]


def test_quota_follows_attention():
    attention = torch.tensor([0.3, 0.2, 0.3, 0.1, 0.05, 0.05, 0.0, 0.0])  # chunks weigh .9 and .1
    kept = holov(torch.ones(8, 2), attention, 4, chunks=2, beta=0.0)
    assert kept.tolist() == [0, 2, 1, 3]  # floors 3 and 0; the one left over goes to the heavier chunk


def test_what_a_chunk_cannot_hold_goes_to_the_best_elsewhere():
    attention = torch.tensor([0.5, 0.5, 0.0, 0.1, 0.2, 0.0])
    kept = holov(torch.ones(6, 2), attention, 4, chunks=3, beta=0.0)
    assert kept.tolist() == [0, 1, 3, 4]
