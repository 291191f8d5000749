import pytest
import torch
from tests.support.golden import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.methods.scope import scope
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("scope"), ids=case_id)
def test_golden(case):
    tensors = build(case)
    rows = tensors["hidden"][1:]
    tokens = VisualTokens(rows, vision=VisionSignals(features=rows, cls_attention=tensors["attention"]))
    selection = create("scope").select(tokens, case["keep"])
    assert selection.order.tolist() == case["expected"]["order"]
    assert selection.index.tolist() == case["expected"]["kept"]


def test_attention_weighs_the_gain_of_the_candidate():
    rows = torch.eye(3)  # every token covers itself alone
    assert scope(rows, torch.tensor([0.2, 0.5, 0.3]), 3).tolist() == [1, 2, 0]
    assert scope(rows, torch.tensor([0.2, 0.5, 0.3]), 3, alpha=0.0).tolist() == [0, 1, 2]


def test_coverage_before_attention_of_a_covered_token():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert scope(rows, torch.tensor([0.5, 0.4, 0.1]), 2).tolist() == [0, 2]


def test_inside_the_language_model_the_rows_are_those_of_the_layer():
    g = torch.Generator().manual_seed(0)
    attention = torch.rand(2, 10, generator=g)
    tower, inside = torch.randn(10, 4, generator=g), torch.randn(10, 6, generator=g)
    vision = VisionSignals(features=tower, cls_attention=attention)
    score = attention.mean(0)
    before = create("scope").select(VisualTokens(inside, vision=vision), 4).order
    after = create("scope").select(VisualTokens(inside, vision=vision, layer=2), 4).order
    assert before.tolist() == scope(tower, score, 4).tolist()
    assert after.tolist() == scope(inside, score, 4).tolist() != before.tolist()
