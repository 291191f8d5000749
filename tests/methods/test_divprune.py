"""DivPrune against the released code's selections."""

import pytest
from tests.support import golden
from tests.support.ops import DEVICE, FAST, running

from vlm_pruner.methods.divprune import DivPrune
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("backend", ["naive", *FAST])
@pytest.mark.parametrize("case", golden.cases("divprune"), ids=golden.case_id)
def test_golden(case, backend):
    with running(backend):
        selection = DivPrune().select(VisualTokens(golden.build(case)["features"].to(DEVICE)), case["keep"])
    assert selection.index.tolist() == case["expected"]["kept"]
    assert selection.order.tolist() == case["expected"]["order"]
