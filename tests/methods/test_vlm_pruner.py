"""VLM-Pruner against the released code's selections."""

import pytest
import torch
from tests.support import golden
from tests.support.ops import DEVICE, FAST, running

from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("backend", ["naive", *FAST])
@pytest.mark.parametrize("case", golden.cases("vlm-pruner"), ids=golden.case_id)
def test_golden(case, backend):
    features, keys, grid = golden.vlm_pruner_inputs(case)
    method = VLMPruner(fill=False, **(case.get("params") or {}))
    with running(backend):
        selection = method.select(VisualTokens(features.to(DEVICE), keys.to(DEVICE), grid), case["keep"])
    expected = case["expected"]
    assert selection.index.tolist() == expected["kept"]
    assert selection.order[: len(expected["pivots"])].tolist() == expected["pivots"]
    torch.testing.assert_close(
        selection.features.cpu().double().sum(1), torch.tensor(expected["merged_row_sum"]).double(), atol=1e-2, rtol=0
    )
    torch.testing.assert_close(
        selection.features.cpu().double().square().sum(1),
        torch.tensor(expected["merged_row_sqsum"]).double(),
        atol=1e-2,
        rtol=1e-4,
    )


def test_a_flat_image_stops_early_or_fills_the_budget():
    case = next(c for c in golden.cases("vlm-pruner") if c["recipe"] == "flat")
    tokens = VisualTokens(*golden.vlm_pruner_inputs(case))
    assert len(VLMPruner(fill=False).select(tokens, 64)) == 4
    assert len(VLMPruner(fill=True).select(tokens, 64)) == 64
