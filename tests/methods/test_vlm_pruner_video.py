"""VLM-Pruner for videos: what stayed as it was enters last, frames share evenly, what is dropped is folded in."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import PlanError
from vlm_pruner.methods import create
from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.methods.vlm_pruner_video import VLMPrunerVideo
from vlm_pruner.types import VisualTokens

GRID = (4, 4, 5)
PLACES = 20


def frames_of(index: torch.Tensor, grid: tuple[int, int, int] = GRID) -> list[int]:
    return torch.bincount(index // (grid[1] * grid[2]), minlength=grid[0]).tolist()


def spikes(frames: list[list[int]], width: int = 64) -> VisualTokens:
    """Frames of unit vectors, equal where the numbers are."""
    rows = torch.eye(width)[torch.tensor(frames)] + 0.01 * torch.ones(width)
    return VisualTokens(rows.flatten(0, 1), grid=(len(frames), 1, len(frames[0])))


@pytest.mark.parametrize("keep", [4, 21, 38, 79])
def test_frames_share_evenly(keep):
    counts = frames_of(VLMPrunerVideo().select(visual_tokens(GRID), keep).index)
    assert sum(counts) == keep
    assert max(counts) - min(counts) <= 1


def test_one_frame_is_chosen_as_by_the_form_for_pictures():
    tokens = dataclasses.replace(visual_tokens((1, 6, 7)), keys=None, layer=None)
    for keep in (5, 17, 30):
        one, other = VLMPrunerVideo().select(tokens, keep), VLMPruner().select(tokens, keep)
        assert one.index.tolist() == other.index.tolist()
        torch.testing.assert_close(one.features, other.features)


def test_without_a_buffer_every_frame_is_a_picture():
    tokens = dataclasses.replace(visual_tokens(GRID), keys=None, layer=None)
    index = VLMPrunerVideo(buffer=0, merge=False, channels=4096).select(tokens, 32).index
    for frame in range(4):
        mine = slice(frame * PLACES, (frame + 1) * PLACES)
        alone = VisualTokens(tokens.features[mine], grid=(1, 4, 5))
        expected = VLMPruner(merge=False, channels=4096).select(alone, 8).index + frame * PLACES
        assert index[8 * frame : 8 * frame + 8].tolist() == expected.tolist()


def test_what_the_frame_before_has_shown_enters_last():
    """Three tokens stay, one is new in every frame: with the buffer the new one is kept, and not without."""
    tokens = spikes([[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5], [0, 1, 2, 6]])
    kept = VLMPrunerVideo(merge=False).select(tokens, 8).index.tolist()
    assert {7, 11, 15} <= set(kept)
    alone = VLMPrunerVideo(buffer=0, merge=False).select(tokens, 8).index.tolist()
    assert not {7, 11, 15} <= set(alone)


def test_a_longer_buffer_remembers_more():
    """The second and fourth frame show the same: only who remembers two frames knows that in the fourth."""
    tokens = spikes([[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 8, 9]])
    short, long = (VLMPrunerVideo(buffer=b, merge=False).select(tokens, 8).index.tolist() for b in (1, 2))
    assert {14, 15} <= set(long)
    assert short != long or {14, 15} <= set(short)


def test_dropped_tokens_are_folded_into_the_most_similar_survivor():
    tokens = spikes([[0, 1], [0, 2], [0, 3]])
    selection = VLMPrunerVideo().select(tokens, 4)
    source = selection.source
    assert source is not None
    dropped = sorted(set(range(6)) - set(selection.index.tolist()))
    unit = torch.nn.functional.normalize(tokens.features, dim=1)
    for token in dropped:
        best = (unit[selection.index] @ unit[token]).max()
        assert (unit[selection.index[source[token]]] @ unit[token]) == pytest.approx(float(best), abs=1e-6)
    plain = VLMPrunerVideo(merge=False).select(tokens, 4)
    assert plain.features is None
    assert plain.index.tolist() == selection.index.tolist()


def test_tokens_in_front_of_frames_come_last():
    """As Video-LLaVA's CLS tokens, whose place lies between four others."""
    tokens = visual_tokens((2, 4, 4))
    cls = torch.tensor([[0.0, 1.5, 1.5], [1.0, 1.5, 1.5]])
    place = torch.cat([cls[:1], tokens.coordinates()[:16], cls[1:], tokens.coordinates()[16:]])
    features = torch.cat([tokens.features[:1], tokens.features[:16], tokens.features[:1], tokens.features[16:]])
    both = VisualTokens(features, grid=(2, 4, 4), position=place)
    assert not {0, 17} & set(VLMPrunerVideo().select(both, 20).index.tolist())


@pytest.mark.parametrize(
    "bad", [{"buffer": -1}, {"temporal_scale": -1.0}, {"pivots": 0}, {"self_weight": 2.0}, {"token_batch": 0}]
)
def test_parameters_out_of_range_are_refused(bad):
    with pytest.raises(PlanError, match=next(iter(bad))):
        VLMPrunerVideo(**bad)


def test_it_is_registered():
    assert create("vlm-pruner-video", buffer=2) == VLMPrunerVideo(buffer=2)
