"""What every registered method keeps to on videos, and what those made for videos keep to beside that."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from tests.support.defaults import default
from tests.support.device import moved, nothing_handed_over
from tests.support.registered import FIXED
from tests.support.sync import no_undeclared_reads
from tests.support.tokens import visual_tokens

from vlm_pruner.errors import InvalidSelectionError
from vlm_pruner.methods import create, registry
from vlm_pruner.types import Selection, VisualTokens

VIDEO = [name for name in FIXED if "Video" in vars(sys.modules[registry()[name].__module__])]  # made for videos
GRIDS = [(8, 4, 4), (5, 3, 7), (16, 1, 1), (2, 7, 5), (3, 1, 5), (33, 2, 2)]


def select(name: str, tokens: VisualTokens, keep: int) -> Selection:
    selection = create(name).select(tokens, keep).validate(len(tokens), keep)
    if selection.features is not None:
        assert selection.features.isfinite().all()
        assert selection.features.shape == (keep, tokens.features.shape[1])
    if selection.source is not None:
        assert selection.source[selection.index].tolist() == list(range(keep))
        assert ((selection.source >= -1) & (selection.source < keep)).all()
    return selection


def budgets(t: int, n: int) -> set[int]:
    return {k for k in (1, t - 1, t, t + 1, n // 10, n // 4, n // 2, n - t, n - 1, n) if 1 <= k <= n}


def changed(tokens: VisualTokens, features: torch.Tensor) -> VisualTokens:
    return dataclasses.replace(tokens, features=features)


def still(grid: tuple[int, int, int], seed: int = 0) -> VisualTokens:
    """Every frame is the first one; the attention still differs."""
    tokens, length = visual_tokens(grid, seed=seed), grid[1] * grid[2]
    return changed(tokens, tokens.features[:length].repeat(grid[0], 1))


def survivors(tokens: VisualTokens, index: torch.Tensor) -> VisualTokens:
    """The tokens that an earlier stage has left, as the engine hands them over."""

    def cut(x: torch.Tensor | None, axis: int) -> torch.Tensor | None:
        return None if x is None else x.index_select(axis, index)

    vision = tokens.vision
    return dataclasses.replace(
        tokens,
        features=tokens.features[index],
        position=tokens.coordinates()[index],
        keys=cut(tokens.keys, 1),
        raw_keys=cut(tokens.raw_keys, 1),
        values=cut(tokens.values, 1),
        rotary=cut(tokens.rotary, 1),
        attention=cut(tokens.attention, 1),
        text_attention=cut(tokens.text_attention, 2),
        previous=cut(tokens.previous, 0),
        embeddings=cut(tokens.embeddings, 0),
        image_embeds=cut(tokens.image_embeds, 0),
        vision=dataclasses.replace(
            vision,
            features=cut(vision.features, 0),
            keys=cut(vision.keys, 1),
            cls_attention=cut(vision.cls_attention, 1),
            attention=cut(vision.attention, 1),
            cls_attentions=cut(vision.cls_attentions, 1),
        ),
    )


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_exact_count_whatever_the_grid(name, grid):
    tokens = visual_tokens(grid)
    for keep in budgets(grid[0], len(tokens)):
        select(name, tokens, keep)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("frames", range(1, 10))
def test_few_frames(name, frames):
    for keep in (frames, 3 * frames, 6 * frames):
        select(name, visual_tokens((frames, 2, 3)), keep)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("grid", [(8, 4, 4), (9, 3, 5)], ids=str)
def test_a_still_video(name, grid):
    for keep in budgets(grid[0], grid[0] * grid[1] * grid[2]):
        select(name, still(grid), keep)


@pytest.mark.parametrize("name", FIXED)
def test_black_frames(name):
    tokens = visual_tokens((8, 3, 4))
    black = tokens.features.clone().view(8, 12, -1)
    black[2:5] = 0.0
    for keep in budgets(8, 96):
        select(name, changed(tokens, black.flatten(0, 1)), keep)
        select(name, changed(tokens, torch.zeros_like(tokens.features)), keep)


@pytest.mark.parametrize("name", FIXED)
def test_what_an_earlier_stage_has_left(name):
    tokens = visual_tokens((6, 3, 4))
    generator = torch.Generator().manual_seed(1)
    left = torch.randperm(72, generator=generator)[:41].sort().values
    for index in (left, left[left >= 12], torch.arange(12, 24)):  # ragged; the first frame gone; one frame left
        for keep in budgets(6, len(index)):
            select(name, survivors(tokens, index), keep)


@pytest.mark.parametrize("name", VIDEO)
def test_tokens_without_a_place_come_last(name):
    tokens = visual_tokens((4, 3, 3))
    position = tokens.coordinates()
    position[[8, 17, 35]] = torch.tensor([[0.0, 2.0, 2.5], [-1.0, -1.0, -1.0], [3.0, 2.0, 1.0]])  # that of 34, too
    tokens = dataclasses.replace(tokens, position=position)
    for keep in (1, 9, 33):
        assert not {8, 17, 34} & set(select(name, tokens, keep).index.tolist())
    assert {8, 17, 34} & set(select(name, tokens, 34).index.tolist()) == {8}
    nowhere = dataclasses.replace(tokens, position=torch.full_like(position, -1))
    assert select(name, nowhere, 5).index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", VIDEO)
def test_survivors_are_compared_at_their_own_places(name):
    """All tokens with positions are chosen from as those of a grid."""
    tokens = visual_tokens((5, 3, 4))
    placed = dataclasses.replace(tokens, position=tokens.coordinates())
    for keep in (4, 15, 31):
        one, other = select(name, tokens, keep), select(name, placed, keep)
        assert one.index.tolist() == other.index.tolist()
        if one.features is not None:
            torch.testing.assert_close(one.features, other.features)
            assert one.source.tolist() == other.source.tolist()


@pytest.mark.parametrize("name", VIDEO)
def test_a_grid_that_does_not_fit_is_refused(name):
    with pytest.raises(InvalidSelectionError, match="grid"):
        create(name).select(dataclasses.replace(visual_tokens((4, 2, 3)), grid=(5, 2, 3)), 5)


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_inputs_stay_as_they_are(name, dtype):
    tokens = visual_tokens((8, 4, 4), dtype=dtype)
    given = dataclasses.replace(tokens, position=tokens.coordinates())
    for video in (tokens, given):
        before = video.features.clone(), video.vision.attention.clone(), video.coordinates().clone()
        for keep in (5, 40, 100):
            select(name, video, keep)
        assert torch.equal(video.features, before[0])
        assert torch.equal(video.vision.attention, before[1])
        assert torch.equal(video.coordinates(), before[2])


@pytest.mark.parametrize("name", FIXED)
def test_no_undeclared_read(name):
    tokens, method = visual_tokens((7, 3, 4)), create(name)
    for keep in (5, 20, 60):
        method.select(tokens, keep)  # tables that depend on shapes alone may be built once
        with no_undeclared_reads():
            selection = method.select(tokens, keep)
        selection.validate(len(tokens), keep)


@pytest.mark.parametrize("name", FIXED)
def test_a_device_is_neither_read_nor_waited_for(name):
    tokens, method = moved(visual_tokens((7, 3, 4))), create(name)
    placed = moved(survivors(visual_tokens((7, 3, 4)), torch.arange(4, 80)))
    for given, keep in ((tokens, 20), (dataclasses.replace(placed, grid=(7, 3, 4)), 5)):
        method.select(given, keep)
        with nothing_handed_over():
            selection = method.select(given, keep)
        assert selection.index.shape == (keep,)


@pytest.mark.parametrize("name", VIDEO)
def test_with_all_tokens_kept_nothing_is_merged(name):
    for grid in ((6, 3, 4), (1, 4, 5)):
        tokens = visual_tokens(grid)
        selection = select(name, tokens, len(tokens))
        if selection.features is not None:
            torch.testing.assert_close(selection.features, tokens.features)


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("kind", ["moving", "still", "black", "doubled"])
def test_the_order_of_additions_decides_nothing(name, kind):
    """The same channels in another order are the same video, ties between copies of a token included."""
    tokens = still((9, 4, 5)) if kind == "still" else visual_tokens((9, 4, 5), d=96)
    features = tokens.features.view(9, 20, -1).clone()
    if kind == "black":
        features[3:6] = 0.0
    if kind == "doubled":
        features[:, 10:] = features[:, :10]
    order = torch.randperm(features.shape[2], generator=torch.Generator().manual_seed(3))
    for keep in (9, 18, 45, 120):
        one = select(name, changed(tokens, features.flatten(0, 1)), keep)
        other = select(name, changed(tokens, features.flatten(0, 1)[:, order]), keep)
        assert one.index.tolist() == other.index.tolist()
        if one.features is not None:
            torch.testing.assert_close(one.features[:, order], other.features)
            assert one.source.tolist() == other.source.tolist()


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("setting", [torch.bfloat16, torch.float64, "meta"], ids=str)
def test_defaults_of_torch_change_nothing(name, setting):
    tokens = visual_tokens((9, 17, 19))
    for keep in (300, 727, 1500):
        plain = select(name, tokens, keep)
        with default(setting):
            other = create(name).select(tokens, keep)
        assert plain.index.tolist() == other.index.tolist()
        if plain.features is not None:
            assert torch.equal(plain.features, other.features)


@pytest.mark.parametrize("name", VIDEO)
def test_where_nothing_is_read_the_choice_is_the_same(name, monkeypatch):
    """What a GPU computes: no early ends, sums by products of matrices, larger blocks."""
    tokens, late = still((9, 4, 5)), visual_tokens((9, 4, 5))
    videos = [late, tokens, survivors(late, torch.arange(3, 170))]
    plain = [select(name, video, keep) for video in videos for keep in (9, 45, 120)]
    for module in [m for n, m in sys.modules.items() if n.startswith("vlm_pruner.methods.")]:
        if hasattr(module, "may_read"):
            monkeypatch.setattr(module, "may_read", lambda tensor: False)
    unread = [select(name, video, keep) for video in videos for keep in (9, 45, 120)]
    for one, other in zip(plain, unread, strict=True):
        assert one.index.tolist() == other.index.tolist()
        if one.features is not None:
            torch.testing.assert_close(one.features, other.features)
            assert one.source.tolist() == other.source.tolist()
