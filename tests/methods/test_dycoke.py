import pytest
import torch
from tests.support.golden_video import build, case_id, cases

from vlm_pruner.methods import create
from vlm_pruner.methods._video import Video, best
from vlm_pruner.methods.dycoke import difference, released_quotas
from vlm_pruner.types import VisualTokens


@pytest.mark.parametrize("case", cases("dycoke"), ids=case_id)
def test_golden_as_released(case):
    video = Video.of(build(case))
    quotas = released_quotas(*video.shape[:2], **case["params"])
    assert quotas == case["expected"]["per_frame"]
    kept = best(difference(video), torch.tensor(quotas), video.there)
    assert kept.flatten().nonzero().flatten().tolist() == case["expected"]["kept"]


def frames(keep, t=9):
    g = torch.Generator().manual_seed(0)
    tokens = VisualTokens(torch.randn(t * 6, 8, generator=g), grid=(t, 2, 3))
    return (create("dycoke").select(tokens, keep).index // 6).bincount(minlength=t).tolist()


def test_every_fourth_frame_stays_whole():
    assert frames(18 + 14) == [6, 3, 3, 2, 6, 2, 2, 2, 6]
    assert frames(18) == [6, 0, 0, 0, 6, 0, 0, 0, 6]
    assert frames(5, 4) == [5, 0, 0, 0]


def test_below_a_quarter_the_whole_frames_share_the_budget():
    assert frames(8) == [3, 0, 0, 0, 3, 0, 0, 0, 2]


def test_what_is_compared_with_what():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 6, 8, generator=g)
    rows[1, 2:], rows[2, :4], rows[3, 1:5] = rows[0, 2:], rows[0, :4], rows[2, 1:5]
    rows[6, [0, 2, 4, 5]] = rows[4, [0, 2, 4, 5]]  # the last group is reduced as well
    rows[5, 2:], rows[7, 2:] = rows[4, 2:], rows[6, 2:]
    index = create("dycoke").select(VisualTokens(rows.flatten(0, 1), grid=(8, 2, 3)), 12 + 12).index
    changed = [[*range(6)], [0, 1], [4, 5], [0, 5], [*range(6)], [0, 1], [1, 3], [0, 1]]
    assert index.tolist() == [6 * t + i for t, frame in enumerate(changed) for i in frame]
