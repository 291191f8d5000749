import pytest
import torch
from tests.support.golden_video import build, case_id, cases, check_rows

from vlm_pruner.methods import create
from vlm_pruner.methods._video import Video
from vlm_pruner.methods.flashvid import _exact_quotas, diverse, flashvid, merged_rows, released_quotas, segments
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("flashvid"), ids=case_id)
def test_golden_as_released(case):
    tokens, expected, params = build(case), case["expected"], case["params"]
    assert params.get("expansion", 1.0) == 1.0
    video = Video.of(tokens)
    whole = not params.get("do_segment", True)
    alike = segments(video, 1, -1.0) if whole else segments(video, params.get("min_segments", 8))
    merge = flashvid(
        video,
        video.signal(tokens.vision.attention[0]),
        alike,
        released_quotas(video, case["retention"]),
        params.get("threshold", 0.8),
        params.get("selection", "attn_div_v2") == "attn_div_v2",
    )
    index = video.index(merge.kept, case["keep"])
    assert merge.kept.sum(1).tolist() == expected["per_frame"]
    assert merge.kept.flatten().nonzero().flatten().tolist() == index.tolist() == expected["kept"]
    check_rows(case, merged_rows(video, merge, index))


def film(seed=0, t=8, h=4, w=5):
    """Places that stay the same under noise, but for the first four of each frame."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(h * w, 64, generator=g).repeat(t, 1, 1) + 0.3 * torch.randn(t, h * w, 64, generator=g)
    rows[:, :4] = torch.randn(t, 4, 64, generator=g)
    attention = torch.rand(1, t * h * w, generator=g)
    return VisualTokens(rows.flatten(0, 1), grid=(t, h, w), vision=VisionSignals(attention=attention))


def test_at_least_so_many_segments():
    video = Video.of(film())
    for least in range(1, 12):
        alike = segments(video, least, -1.0)
        assert len(alike.int().argmax(1).unique()) == min(least, 8)


@pytest.mark.parametrize("options", [{}, {"segments": 1}, {"segments": 2, "true_counts": True}, {"relevance": False}])
def test_every_setting_keeps_the_count_and_names_what_took_each_token_in(options):
    tokens = film()
    for keep in (3, 8, 25, 33, 80, 159):
        selection = create("flashvid", **options).select(tokens, keep).validate(160, keep)
        assert (selection.source >= 0).sum() >= keep


def test_a_chain_of_equal_tokens_is_one_mean_only_with_true_counts():
    """Sum 3 over count 2, as released: 1.5 times as long."""
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 64, generator=g).repeat(3, 1, 1)
    attention = torch.ones(1, 60)
    tokens = VisualTokens(rows.flatten(0, 1), grid=(3, 4, 5), vision=VisionSignals(attention=attention))
    for options, lengths in (({}, {1.0, 1.5}), ({"true_counts": True}, {1.0})):
        selection = create("flashvid", segments=1, alpha=0.1, **options).select(tokens, 18)
        own = tokens.features[selection.index]
        single = torch.nn.functional.cosine_similarity(selection.features, own) > 0.999
        factor = (selection.features.norm(dim=1) / own.norm(dim=1))[single]
        assert {round(float(f), 3) for f in factor} == lengths


def test_chosen_tokens_are_attended_and_apart():
    """By hand: the weighted distance to the nearest token, then to those chosen."""
    tokens = film(t=1)
    selection = create("flashvid", relevance=False, alpha=1.0).select(tokens, 6)
    x = torch.nn.functional.normalize(tokens.features.double(), dim=1)
    apart = (1 - x @ x.T).fill_diagonal_(0) * tokens.vision.attention[0]
    order = [int(apart.sort(0).values[1].argmax())]
    while len(order) < 6:
        near = apart[order].amin(0)
        near[order] = -1
        order.append(int(near.argmax()))
    assert selection.index.tolist() == sorted(order)
    torch.testing.assert_close(selection.features, tokens.features[selection.index])


def test_no_token_is_chosen_twice():
    video = Video.of(VisualTokens(torch.ones(24, 8), grid=(2, 3, 4)))
    turn = diverse(video, torch.ones(2, 12, dtype=torch.float64), torch.ones(2, 2, dtype=torch.bool), 5)
    assert turn.tolist() == [[0, 1, 2, 3, 4, *[5] * 7]] * 2


def test_merging_along_the_video_leaves_enough_for_the_budget():
    """Of 20 tokens a frame 14 are asked for; more than 6 would merge."""
    tokens = film()
    video = Video.of(tokens)
    attention, alike = video.signal(tokens.vision.attention[0]), segments(video, 1, -1.0)
    merge = flashvid(video, attention, alike, released_quotas(video, 0.7, alpha=0.2))
    assert 8 * 14 <= int(merge.kept.sum()) <= 8 * 15
    assert flashvid(video, attention, alike, released_quotas(video, 0.1)).kept.sum(1).tolist() == [2] * 8


def test_a_frame_with_one_token_more_has_its_own_share_of_chosen_ones():
    video = Video(torch.rand(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
    quotas = _exact_quotas(video, 5, 0.6)  # 2 and 3 tokens: 1.2 and 1.8 of them, rounded up
    assert (quotas.chosen.tolist(), quotas.merged.tolist(), quotas.most, quotas.means) == ([2, 2], [0, 1], 2, True)
    quotas = _exact_quotas(video, 5, 0.7)  # 1.4 and 2.1
    assert (quotas.chosen.tolist(), quotas.merged.tolist(), quotas.most, quotas.means) == ([2, 3], [0, 0], 3, False)
