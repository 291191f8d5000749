import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases

from vlm_pruner.errors import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.priortr import above, priortr
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("priortr"), ids=case_id)
def test_golden(case):
    tensors, params, expected = build(case), case.get("params", {}), case["expected"]
    start, n = tensors["start"], case["grid"][0] * case["grid"][1]
    attention = tensors["attention"][:, :, start : start + n]
    tokens = VisualTokens(torch.zeros(n, 1), text_attention=attention, layer=3)
    assert create("priortr", **params).select(tokens, case["keep"]).index.tolist() == expected["kept"]
    assert int(above(priortr(attention, **params)).sum()) == expected["positive"]


def test_heads_may_be_joined_by_their_maximum():
    g = torch.Generator().manual_seed(0)
    attention = torch.randn(3, 4, 12, generator=g).softmax(-1)
    asked, prior = attention.mean(1).amax(0), attention[:, 0].amax(0)
    asked, prior = asked / asked.sum(), prior / prior.sum()
    expected = (asked * (asked / prior).log()).argsort(descending=True)
    assert priortr(attention, heads="max").argsort(descending=True).tolist() == expected.tolist()


def test_a_threshold_keeps_at_least_the_best():
    score = torch.tensor([0.1, -0.2, 0.3, 0.0])
    assert above(score).tolist() == [True, False, True, False]
    assert above(score, 5.0).tolist() == [False, False, True, False]


@pytest.mark.parametrize("rows", ["question", "last", "question_without_last"])
def test_a_single_text_token_is_prior_and_question(rows):
    attention = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(1)).softmax(-1)
    tokens = VisualTokens(torch.zeros(8, 1), text_attention=attention, layer=3)
    assert create("priortr", rows=rows).select(tokens, 3).index.tolist() == [0, 1, 2]


def test_wrong_parameters_are_refused():
    with pytest.raises(PlanError, match="did you mean 'question'"):
        create("priortr", rows="questions")
    with pytest.raises(PlanError, match="unknown heads"):
        create("priortr", heads="sum")


def test_the_layer_of_its_paper():
    assert [(k, layer) for _, k, layer in create("priortr").stages(64, 32)] == [(64, 3)]
