"""DivPrune against the released code's selections."""

import pytest
import torch
from tests.support import golden
from tests.support.ops import DEVICE, FAST, numba, running, triton

from vlm_pruner.methods.divprune import DivPrune
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("backend", ["naive", "torch", "unread", numba])
@pytest.mark.parametrize("case", golden.cases("divprune"), ids=golden.case_id)
def test_golden(case, backend):
    chosen_as_released(case, backend)


@pytest.mark.parametrize("backend", [triton])
@pytest.mark.parametrize("case", golden.for_kernels("divprune"), ids=golden.case_id)
def test_golden_kernels(case, backend):
    chosen_as_released(case, backend)


def chosen_as_released(case, backend):
    with running(backend):
        selection = DivPrune().select(VisualTokens(golden.build(case)["features"].to(DEVICE)), case["keep"])
    assert selection.index.tolist() == case["expected"]["kept"]
    assert selection.order.tolist() == case["expected"]["order"]


@pytest.mark.parametrize("backend", FAST)
def test_images_of_other_shapes_do_not_share_a_launch(backend):
    images = [VisualTokens(torch.randn(n, 16, generator=torch.Generator().manual_seed(n)).to(DEVICE)) for n in (30, 21)]
    with running(backend):
        together = DivPrune().select_batch(images, [5, 5])
        alone = [DivPrune().select(image, 5) for image in images]
    assert [s.order.tolist() for s in together] == [s.order.tolist() for s in alone]
