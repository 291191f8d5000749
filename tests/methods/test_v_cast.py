import pytest
import torch
from tests.support.golden_video import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.methods.v_cast import frame_quotas
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("v-cast"), ids=case_id)
def test_golden(case):
    index = create("v-cast").select(build(case), case["keep"]).index
    length = case["grid"][1] * case["grid"][2]
    assert index.tolist() == case["expected"]["kept"]
    assert (index // length).bincount().tolist() == case["expected"]["per_frame"]


def test_all_that_is_left_over_goes_to_one_frame_as_released():
    weight, size = torch.tensor([0.26, 0.27, 0.24, 0.23], dtype=torch.float64), torch.full((4,), 9)
    # one each; 10 to share out: 2.6, 2.7, 2.4, 2.3, so that two are left
    assert frame_quotas(weight, size, 14).tolist() == [3, 5, 3, 3]
    assert frame_quotas(weight, size, 14, largest_remainder=True).tolist() == [4, 4, 3, 3]


@pytest.mark.parametrize("largest_remainder", [False, True])
def test_a_full_frame_passes_on_what_it_cannot_hold(largest_remainder):
    weight, size = torch.tensor([0.9, 0.05, 0.05], dtype=torch.float64), torch.full((3,), 4)
    assert frame_quotas(weight, size, 9, largest_remainder).tolist() in ([4, 4, 1], [4, 3, 2])
    assert frame_quotas(weight, size, 12, largest_remainder).tolist() == [4, 4, 4]


def test_fewer_tokens_than_frames_go_to_the_heaviest():
    weight, size = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64), torch.full((4,), 4)
    assert frame_quotas(weight, size, 2).tolist() == [0, 1, 0, 1]


def test_one_frame_keeps_what_stands_out():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.05], [3.0, 0.1]])
    assert create("v-cast").select(VisualTokens(rows, grid=(1, 1, 5)), 2).index.tolist() == [2, 4]
