import pytest
import torch
from tests.support.golden_video import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("evs"), ids=case_id)
def test_golden(case):
    assert create("evs").select(build(case), case["keep"]).index.tolist() == case["expected"]["kept"]


def test_what_did_not_change_goes_first():
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 8, generator=g)
    second[[0, 2, 3, 5]] = first[[0, 2, 3, 5]] * 3  # longer, but in the same direction
    tokens = VisualTokens(torch.cat([first, second]), grid=(2, 2, 3))
    assert create("evs").select(tokens, 8).index.tolist() == [0, 1, 2, 3, 4, 5, 7, 10]


def test_below_one_frame_it_takes_what_least_resembles_the_mean():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.0]])
    tokens = VisualTokens(torch.cat([rows, rows.flip(0)]), grid=(2, 2, 2))
    assert create("evs").select(tokens, 1).index.tolist() == [2]


def test_a_still_video_is_filled_up_in_raster_order():
    g = torch.Generator().manual_seed(0)
    frame = torch.randn(6, 64, generator=g)
    noise = 1e-4 * torch.randn(6, 64, generator=g)
    noisy = torch.cat([frame, frame + noise, frame])  # 1 - cosine is about 5e-9
    assert create("evs").select(VisualTokens(noisy, grid=(3, 2, 3)), 9).index.tolist() == list(range(9))
