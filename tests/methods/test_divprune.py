"""DivPrune against the released code's selections."""

import pytest
from tests.support import golden

from vlm_pruner.methods.divprune import DivPrune
from vlm_pruner.ops import use_backend
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("backend", ["naive", "torch"])
@pytest.mark.parametrize("case", golden.cases("divprune"), ids=golden.case_id)
def test_golden(case, backend):
    with use_backend(backend):
        selection = DivPrune().select(VisualTokens(golden.build(case)["features"]), case["keep"])
    assert selection.index.tolist() == case["expected"]["kept"]
    assert selection.order.tolist() == case["expected"]["order"]
