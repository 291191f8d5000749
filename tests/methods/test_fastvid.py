import pytest
import torch
from tests.support.defaults import default
from tests.support.golden_video import build, case_id, cases, check_rows

from vlm_pruner.methods import create
from vlm_pruner.methods._video import Video
from vlm_pruner.methods.fastvid import fastvid, merged_rows, released_quotas, segments
from vlm_pruner.types import VisionSignals, VisualTokens


@pytest.mark.parametrize("case", cases("fastvid") + cases("fastvid-qwen"), ids=case_id)
def test_golden_as_released(case):
    tokens, expected = build(case), case["expected"]
    runs = case["method"] != "fastvid"
    video = Video.of(tokens)
    found = segments(video, tau=0.84, run_tau=0.95) if runs else segments(video)
    last = ~found.alike.triu(1).any(1)
    assert found.alike.sum(1)[last].tolist() == expected["segments"]
    quotas = released_quotas(video, found, case["retention"], runs)
    merge = fastvid(video, video.signal(tokens.vision.attention[0]), found, quotas)
    index = video.index(merge.kept, case["keep"])
    assert merge.kept.sum(1).tolist() == expected["per_frame"]
    assert merge.kept.flatten().nonzero().flatten().tolist() == index.tolist() == expected["kept"]
    check_rows(case, merged_rows(video, found, merge, index, quotas.peaks, runs)[0])


def film(t=12, h=3, w=4, seed=0, cut=6):
    """Two still scenes under noise; the attention falls with the place."""
    g = torch.Generator().manual_seed(seed)
    scenes = torch.randn(2, 1, h * w, 64, generator=g)
    rows = torch.cat([scenes[0].expand(cut, -1, -1), scenes[1].expand(t - cut, -1, -1)])
    rows = rows + 0.1 * torch.randn(t, h * w, 64, generator=g)
    attention = torch.linspace(1, 0, h * w).repeat(1, t)
    return VisualTokens(rows.flatten(0, 1), grid=(t, h, w), vision=VisionSignals(attention=attention))


def test_anchors_are_every_fourth_frame_from_the_end_of_a_segment():
    found = segments(Video.of(film()), least=2)
    assert found.anchor.nonzero().flatten().tolist() == [1, 5, 7, 11]
    selection = create("fastvid", segments=2).select(film(), 60)  # 5 a frame: 3 by attention, 12 peaks a segment
    assert (selection.index // 12).bincount().tolist() == [3, 9, 3, 3, 3, 9] * 2
    assert selection.index[:3].tolist() == [0, 1, 2]


def test_a_peak_takes_in_what_of_its_segment_resembles_it_most():
    tokens = film()
    selection = create("fastvid", segments=2).select(tokens, 60)
    x = torch.nn.functional.normalize(tokens.features, dim=1)
    peaks = [i for i in selection.index.tolist() if i // 12 == 1 and i % 12 > 2]
    assert len(peaks) == 6
    rest = [12 * t + i for t in range(6) for i in range(3, 12)]
    own = torch.tensor(peaks)[(x[rest] @ x[peaks].T).argmax(1)]
    for peak in peaks:
        members = [i for i, into in zip(rest, own.tolist(), strict=True) if into == peak]
        expected = 0.6 * tokens.features[peak] + 0.4 * tokens.features[members].mean(0)
        torch.testing.assert_close(selection.features[selection.index.tolist().index(peak)], expected)


def test_runs_keep_the_tokens_of_their_last_frame():
    selection = create("fastvid", segments=2, run_tau=0.5).select(film(), 12)
    assert set((selection.index // 12).tolist()) == {5, 11}
    assert (selection.index // 12).bincount()[[5, 11]].tolist() == [6, 6]


@pytest.mark.parametrize(
    "method", [{"segments": 1}, {"segments": 3, "run_tau": 0.95}, {"segments": 2, "run_tau": -1.0}]
)
def test_other_settings_keep_the_count(method):
    tokens = film()
    for keep in (1, 7, 12, 36, 100, 143, 144):
        selection = create("fastvid", **method).select(tokens, keep).validate(144, keep)
        assert selection.features.isfinite().all()


def test_shares_are_counted_in_float64_whatever_the_default():
    """0.4 of 654 is 261 and a little more; in bfloat16 it is 262."""
    tokens, method = film(h=12, w=24), create("fastvid", segments=2, run_tau=1.1)
    plain = method.select(tokens, 1308)
    with default(torch.bfloat16):
        assert method.select(tokens, 1308).index.tolist() == plain.index.tolist()
