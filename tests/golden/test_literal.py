"""The literal transcriptions keep what the released codes keep: they may serve as oracles."""

import pytest
import torch
from tests.support import golden, literal
from tests.support.slowly import the_rest_slowly

_NAMES = {"threshold": "threshold", "token_batch": "batch", "pivots": "pivots"}


SMALL = [case for case in golden.cases("vlm-pruner") if case["keep"] < 192]


@pytest.mark.parametrize("case", the_rest_slowly(golden.cases("vlm-pruner"), SMALL), ids=golden.case_id)
def test_vlm_pruner(case):
    hidden, keys, grid = golden.vlm_pruner_inputs(case)
    params = {_NAMES[k]: v for k, v in (case.get("params") or {}).items()}
    kept, rows = literal.vlm_pruner(hidden, keys, grid[1:], case["keep"], fill=False, **params)
    assert sorted(kept) == case["expected"]["kept"]
    torch.testing.assert_close(rows.sum(1), torch.tensor(case["expected"]["merged_row_sum"]), atol=1e-2, rtol=0)


@pytest.mark.parametrize("case", golden.cases("divprune"), ids=golden.case_id)
def test_divprune(case):
    kept = literal.divprune(golden.build(case)["features"], case["keep"])
    assert sorted(kept) == case["expected"]["kept"]  # of one case rounding decides the order


@pytest.mark.parametrize("case", golden.cases("cdpruner"), ids=golden.case_id)
def test_cdpruner(case):
    t = golden.build(case)
    kept = literal.cdpruner(t["features"], t["image_embeds"], t["text_embeds"], case["keep"])
    assert sorted(kept) == case["expected"]["kept"]
