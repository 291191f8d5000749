import pytest
import torch
from tests.support.golden_video import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.methods._video import Video
from vlm_pruner.methods.dtd import dtd
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("dtd"), ids=case_id)
def test_golden_as_released(case):
    tokens, expected = build(case), case["expected"]
    kept = dtd(Video.of(tokens), **case["params"])
    assert kept.flatten().nonzero().flatten().tolist() == expected["kept"]
    assert kept.sum(1).tolist() == expected["per_frame"]
    method = create("dtd", absolute=case["params"].get("absolute", True))
    assert method.select(tokens, case["keep"]).index.tolist() == expected["kept"]  # the same for the same number


def test_shares_of_every_frame():
    g = torch.Generator().manual_seed(0)
    tokens = VisualTokens(torch.randn(4 * 6, 8, generator=g), grid=(4, 2, 3))
    for keep, frames in ((16, [6, 4, 3, 3]), (6, [6, 0, 0, 0]), (4, [4, 0, 0, 0]), (24, [6, 6, 6, 6])):
        index = create("dtd", absolute=False).select(tokens, keep).index
        assert (index // 6).bincount(minlength=4).tolist() == frames
