import pytest
import torch

from vlm_pruner.methods import create
from vlm_pruner.methods._video import Video
from vlm_pruner.methods._windows import Windows, long_windows
from vlm_pruner.methods.prunevid import contiguous, merged_rows, prunevid, published_quotas, windows
from vlm_pruner.types import VisualTokens


def film(seed=0, t=12, moving=4):
    """Three still scenes of 20 places each, in all but `moving` of them."""
    g = torch.Generator().manual_seed(seed)
    scenes = torch.randn(3, 1, 20, 64, generator=g).expand(-1, t // 3, -1, -1).flatten(0, 1)
    rows = scenes + 0.05 * torch.randn(t, 20, 64, generator=g)
    rows[:, :moving] = torch.randn(t, moving, 64, generator=g)
    return VisualTokens(rows.flatten(0, 1), grid=(t, 4, 5))


@pytest.mark.parametrize(
    ("label", "first"),
    [
        ("AAAABBBB", "00004444"),
        ("AAAA", "0000"),
        ("ABAAABB", "0000055"),  # the lone A and B at the beginning go to the run behind them
        ("AACBB", "00033"),  # a tie goes to the left
        ("AACBBB", "002222"),
        ("AABAA", "00000"),  # both runs of A stay, and B joins the first
        ("ABC", "012"),  # nothing to join
        ("CABBB", "00000"),
        ("AAABBAB", "0003333"),  # the second A goes to the run of B before it, with the B behind it
        ("A", "0"),
    ],
)
def test_windows_are_contiguous(label, first):
    found = contiguous(torch.tensor([ord(c) for c in label]))
    assert "".join(str(int(f)) for f in found) == first


def test_windows_of_several_frames_are_no_more_than_half_of_the_frames():
    frame, member = long_windows(torch.tensor([0, 1, 1, 3, 4, 4, 4]))
    assert frame.tolist() == [1, 4, 0]  # one of a single frame fills up
    assert [row.nonzero().flatten().tolist() for row in member] == [[1, 2], [4, 5, 6], [0]]


def test_scenes_are_windows_and_what_moves_is_dynamic():
    found = windows(Video.of(film()))
    assert found.first.tolist() == [0] * 4 + [4] * 4 + [8] * 4
    assert found.static.sum(1).tolist() == [16] * 12
    assert not found.static[:, :4].any()


def test_a_place_is_still_where_its_tokens_are_alike_in_each_two_frames():
    tokens = film(moving=0)
    rows = tokens.features.view(12, 20, -1).clone()
    rows[0, 7] = -rows[0, 7]  # mean cosine of the ordered pairs: (6 - 6) / 12
    rows[5, 9] += 0.35 * rows[5, 9].norm() * torch.nn.functional.normalize(rows[5, 3], dim=0)
    found = windows(Video.of(VisualTokens(rows.flatten(0, 1), grid=(12, 4, 5))))
    unit = torch.nn.functional.normalize(rows.double(), dim=2)
    for begin in (0, 4, 8):
        part = unit[begin : begin + 4]
        alike = torch.einsum("sld,tld->lst", part, part)
        alike = (alike.sum((1, 2)) - 4) / 12
        assert found.static[begin].tolist() == (alike > 0.8).tolist()
    assert not found.static[0, 7]


@pytest.mark.parametrize("places", [range(16, 20), range(4)])
def test_published_counts_and_plain_means(places):
    tokens = film(moving=16)
    video = Video.of(tokens)
    first = torch.arange(12) // 4 * 4
    found = Windows(first, torch.isin(torch.arange(20), torch.tensor(places)).expand(12, 20))
    merge = prunevid(video, found, published_quotas(found, video.there))  # 4 places of a window, 8 clusters of 16
    assert merge.kept.sum(1).tolist() == [12, 8, 8, 8] * 3
    index = video.index(merge.kept, 108)
    rows = merged_rows(video, merge, index)
    owner, features = merge.owner.flatten(), tokens.features
    assert merge.kept.flatten()[owner].all()
    for cell, row in zip(index.tolist(), rows, strict=True):
        torch.testing.assert_close(row, features[owner == cell].mean(0))


def test_members_are_nearest_to_their_peak():
    tokens = film(moving=20)
    selection = create("prunevid").select(tokens, 60)
    assert (selection.index // 20).bincount().tolist() == [5] * 12
    frame = tokens.features[:20]
    apart = torch.cdist(frame, frame[selection.index[:5]])
    assert selection.source[:20].tolist() == apart.argmin(1).tolist()


def test_what_a_still_video_leaves_of_the_budget_stays_unmerged():
    tokens = film(moving=0)
    selection = create("prunevid").select(tokens, 3 * 20 + 5)
    alone = [i for i, k in enumerate(selection.index.tolist()) if k // 20 % 4]
    assert len(alone) == 5
    torch.testing.assert_close(selection.features[alone], tokens.features[selection.index[alone]])
