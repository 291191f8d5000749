import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.ivc_prune import anchors, ivc_prune, ivc_prune_free, relevance
from vlm_pruner.types import VisualTokens

KINDS = {"llava": False, "qwen": True}  # has the port a budget?


def parts(case):
    """(image, text after it, text before it) values and the image's rotary tables."""
    tensors = build(case)
    start, n = tensors["start"], case["grid"][0] * case["grid"][1]
    before, image, text = tensors["values"].split([start, n, tensors["values"].shape[1] - start - n], 1)
    return image, text, before, torch.stack([tensors["cos"], tensors["sin"]])[:, start : start + n]


@pytest.mark.parametrize("case", [c for c in cases("ivc-prune") if KINDS[c["params"]["port"]]], ids=case_id)
def test_golden_with_a_budget(case):
    image, text, _, rotary = parts(case)
    n, expected = image.shape[1], case["expected"]
    tokens = VisualTokens(torch.zeros(n, 1), values=image, text_values=text, rotary=rotary, layer=16)
    selection = create("ivc-prune").select(tokens, round(n / 2))
    assert selection.index.tolist() == expected["kept"]
    assert sorted(relevance(image, text[:, 2:])[0].tolist()) == sorted(expected["seeds"])
    assert sorted(set(torch.cat(anchors(rotary, round(0.1 * n))).tolist())) == sorted(expected["places"])


@pytest.mark.parametrize("case", [c for c in cases("ivc-prune") if not KINDS[c["params"]["port"]]], ids=case_id)
def test_golden_without_a_budget(case):
    image, text, before, rotary = parts(case)
    n, expected = image.shape[1], case["expected"]
    others = torch.cat([before, text], 1)
    kept = ivc_prune_free(image, text[:, 2:], others, rotary)
    assert kept.nonzero().flatten().tolist() == expected["kept"]
    assert sorted(relevance(image, text[:, 2:], others)[0].tolist()) == sorted(expected["seeds"])
    assert sorted(set(torch.cat(anchors(rotary, round(0.05 * n))).tolist())) == sorted(expected["places"])


def test_order_of_what_must_stay():
    tokens = visual_tokens()
    question = tokens.text_values[:, 2:]
    seeds, score = relevance(tokens.values, question)
    cosine, sine = (table.double().mean(-1).argsort(descending=True, stable=True).tolist() for table in tokens.rotary)
    line = [*seeds.tolist(), *cosine[:4], *sine[:4], *score.argsort(descending=True).tolist()]
    for keep in (1, 3, 20):
        count = round(0.2 * keep)
        line = [*seeds.tolist(), *cosine[:count], *sine[:count], *score.argsort(descending=True).tolist()]
        expected = list(dict.fromkeys(line))[:keep]
        assert ivc_prune(tokens.values, question, tokens.rotary, keep).tolist() == expected
        assert create("ivc-prune").select(tokens, keep).order.tolist() == expected


def test_a_short_question_counts_whole():
    g = torch.Generator().manual_seed(0)
    tokens = visual_tokens()
    for t in (1, 2):
        text = torch.randn(2, t, 8, generator=g)
        given = VisualTokens(tokens.features, values=tokens.values, text_values=text, rotary=tokens.rotary, layer=16)
        expected = ivc_prune(tokens.values, text, tokens.rotary, 7)
        assert create("ivc-prune").select(given, 7).order.tolist() == expected.tolist()


def test_its_layer_and_parameters():
    assert [(k, layer) for _, k, layer in create("ivc-prune").stages(64, 28)] == [(64, 14)]
    with pytest.raises(PlanError, match=r"places=0\.6"):
        create("ivc-prune", places=0.6)
