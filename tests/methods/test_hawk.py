import json

import pytest
import torch
from tests.support.golden import case_id
from tests.support.golden_image2 import build, cases
from tests.support.tokens import visual_tokens

from vlm_pruner.budget import keep_count
from vlm_pruner.errors import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.hawk import PUBLISHED, hawk
from vlm_pruner.plan import PrunePlan
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("hawk"), ids=case_id)
def test_golden(case):
    tensors = build(case)
    n = case["grid"][0] * case["grid"][1]
    tokens = VisualTokens(torch.zeros(n, 1), raw_keys=tensors["keys"], text_queries=tensors["queries"], layer=1)
    weights = case.get("params", {}).get("weights", tensors["weights"].tolist())
    selection = create("hawk", weights=weights).select(tokens, keep_count(n, case["ratio"]))
    assert selection.index.tolist() == case["expected"]["kept"]


def test_against_loops():
    g = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(6, 3, 4, generator=g).double(), torch.randn(2, 9, 4, generator=g).double()
    weights = [0.5, 0.0, 1.0, 2.0, 0.1, 0.3]
    expected = torch.zeros(9, dtype=torch.float64)
    for head, weight in enumerate(weights):
        rows = torch.stack([keys[head // 3] @ query / 2 for query in queries[head]])  # [t, n]
        expected += weight * rows.mean(0) / rows.mean(0).norm()
    torch.testing.assert_close(hawk(queries, keys, weights), expected)


@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan], ids=str)
def test_what_is_no_number_counts_nothing(wrong):
    keys = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))
    keys[0, 2] = wrong
    assert hawk(torch.ones(1, 2, 4), keys)[2] == 0


def test_weights_belong_to_one_model():
    assert len(PUBLISHED) == 28
    assert sum(PUBLISHED) == pytest.approx(1.2616)  # a slip of the pen would show
    with pytest.raises(PlanError, match="weights of 28 heads, but this model has 4"):
        create("hawk", weights="published").select(visual_tokens(layer=1), 5)
    with pytest.raises(PlanError, match="did you mean 'published'"):
        create("hawk", weights="publish")


def test_weights_go_through_json():
    plan = PrunePlan.of("hawk", 5, num_layers=4, weights=(0.5, 1.0, 0.0, 2))
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["stages"][0]["params"] == {"weights": [0.5, 1.0, 0.0, 2.0]}
