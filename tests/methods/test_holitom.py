from itertools import pairwise

import pytest
import torch
from tests.support.golden_video import build, case_id, cases, check_rows

from vlm_pruner.methods import create
from vlm_pruner.methods._video import Video
from vlm_pruner.methods.holitom import holitom, merged_rows, released_quotas, windows
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("holitom"), ids=case_id)
def test_golden_as_released(case):
    tokens, expected = build(case), case["expected"]
    video = Video.of(tokens)
    attention = video.signal(tokens.vision.attention[0])
    found = windows(video, **case.get("params", {}))
    edges = [*found.first.unique().tolist(), case["grid"][0]]
    assert [[a, b - 1] for a, b in pairwise(edges)] == expected["windows"]
    quotas = released_quotas(found, video.there, case["retention"])
    kept, static = holitom(video, attention, found, quotas)
    index = video.index(kept, case["keep"])
    assert kept.flatten().nonzero().flatten().tolist() == index.tolist() == expected["kept"]
    assert kept.sum(1).tolist() == expected["per_frame"]
    assert kept.flatten()[static.owner[static.owner >= 0]].all()
    check_rows(case, merged_rows(video, static, index))


def film(seed=0, t=6, moving=3):
    """A still video of 12 places in all but `moving` of them; the attention of each frame is a ramp."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(12, 64, generator=g).repeat(t, 1, 1) + 0.02 * torch.randn(t, 12, 64, generator=g)
    rows[:, :moving] = torch.randn(t, moving, 64, generator=g)
    attention = torch.linspace(0, 1, t * 12).repeat(1, 1)
    return VisualTokens(rows.flatten(0, 1), grid=(t, 3, 4), vision=VisionSignals(attention=attention))


def test_a_static_place_is_the_mean_of_its_tokens():
    tokens = film()
    selection = create("holitom").select(tokens, 9 + 6 * 3)  # 9 static places and all of the rest
    assert selection.index.tolist() == [*range(12), *(12 * t + i for t in range(1, 6) for i in range(3))]
    mean = tokens.features.view(6, 12, -1).mean(0)
    torch.testing.assert_close(selection.features[3:12], mean[3:])
    torch.testing.assert_close(selection.features[:3], tokens.features[:3])
    assert selection.source.view(6, 12)[:, 3:].tolist() == [list(range(3, 12))] * 6


def test_peaks_take_the_other_places_in():
    tokens = film(moving=0)
    selection = create("holitom").select(tokens, 5)
    means = tokens.features.view(6, 12, -1).mean(0)
    for slot, place in enumerate(selection.index.tolist()):
        members = [i for i in range(12) if selection.source[i] == slot and i != place]
        expected = 0.6 * means[place] + 0.4 * means[members].mean(0) if members else means[place]
        torch.testing.assert_close(selection.features[slot], expected)
        apart = (means[:, None] - means[selection.index]).norm(dim=2)
        assert all(apart[i].argmin() == slot for i in members)


def test_what_a_still_video_leaves_of_the_budget_stays_unmerged():
    tokens = film(moving=0)
    selection = create("holitom").select(tokens, 15)
    assert selection.index.tolist() == [*range(12), 69, 70, 71]  # the best-attended ones
    torch.testing.assert_close(selection.features[12:], tokens.features[69:])
    means = tokens.features.view(6, 12, -1)
    torch.testing.assert_close(selection.features[:9], means.mean(0)[:9])
    torch.testing.assert_close(selection.features[9:12], means[:5].mean(0)[9:])  # without those that stay


def test_windows_are_where_most_is_saved():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 10, 64, generator=g)
    rows = torch.stack([a, a, a, b, b])
    rows[2, :7] = torch.randn(7, 64, generator=g)
    found = windows(Video.of(VisualTokens(rows.flatten(0, 1), grid=(5, 2, 5))))
    assert found.first.tolist() == [0, 0, 2, 3, 3]  # 10 at once beat 3 places over 3 frames
    assert found.static.sum(1).tolist() == [10, 10, 0, 10, 10]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_cut_saves_more(seed):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, 64, generator=g).repeat(6, 1, 1)
    change = torch.rand(6, 6, 1, generator=g) < 0.3
    rows = torch.where(change, torch.randn(6, 6, 64, generator=g), rows)
    video = Video.of(VisualTokens(rows.flatten(0, 1), grid=(6, 2, 3)))
    found = windows(video)
    unit = torch.nn.functional.normalize(rows, dim=2)
    same = (unit[1:] * unit[:-1]).sum(2) > 0.8

    def saved(cuts):
        edges = [0, *cuts, 6]
        return sum(int(same[a : b - 1].all(0).sum()) * (b - 1 - a) for a, b in pairwise(edges) if b - a > 1)

    every = [[i + 1 for i in range(5) if number >> i & 1] for number in range(32)]
    assert saved(found.first.unique().tolist()[1:]) == max(map(saved, every))
    assert int(found.static.sum() - found.lead.sum()) == max(map(saved, every))
