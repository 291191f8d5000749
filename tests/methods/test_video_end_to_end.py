"""Methods for videos inside real models: what they are shown of a video, and what stays of it."""

from __future__ import annotations

import sys

import pytest
from tests.support.families import tiny
from tests.support.pruning import forward, generate

from vlm_pruner import MissingSignalError, PrunePlan, Stage, keep_count, prune
from vlm_pruner.methods import create, registry
from vlm_pruner.methods._video import Video
from vlm_pruner.types import VisualTokens

VIDEO = [name for name in registry() if "Video" in vars(sys.modules[registry()[name].__module__])]
FAMILIES = {"llava_onevision-video": (3, 4), "qwen2_vl-video": (3, 6), "video_llava-video": (3, 16)}  # frames, places

ATTENTION = {"llava_onevision-video", "video_llava-video"}  # whose towers say what each token of a video receives


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[VisualTokens]:
    """The tokens that methods were shown."""
    seen: list[VisualTokens] = []
    of = Video.of.__func__

    def watched(cls: type[Video], tokens: VisualTokens) -> Video:
        seen.append(tokens)
        return of(cls, tokens)

    monkeypatch.setattr(Video, "of", classmethod(watched))
    return seen


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", VIDEO)
def test_a_method_is_shown_frames_and_places(name: str, family: str, shown: list[VisualTokens]) -> None:
    made, model = tiny(family)
    inputs = made.inputs([made.prompt(1, 2), made.prompt(2, 2, tail=3)])
    plan = PrunePlan((Stage(create(name), 0.7, None), Stage(create(name), 0.4, 2)), min_visual_tokens=1)
    if create(name).wants and family not in ATTENTION:
        with prune(model, plan), pytest.raises(MissingSignalError, match=name):
            generate(model, inputs, max_new_tokens=2)
        return
    with prune(model, plan) as session:
        out = generate(model, inputs, max_new_tokens=2)
    assert all(step.isfinite().all() for step in out.logits)
    for image in session.images:
        assert list(image.counts) == [keep_count(image.total, keep) for keep in (0.7, 0.4)]
    videos = [Video.of(tokens) for tokens in list(shown)]
    assert {video.shape[:2] for video in videos} == {FAMILIES[family]}
    whole = videos[: len(session.images)]
    assert all(video.there.all() for video in whole)
    assert not any(video.there.all() for video in videos[len(whole) :])


def test_the_first_frame_of_a_video_stays_whole() -> None:
    made, model = tiny("llava_onevision-video")
    with prune(model, PrunePlan((Stage("evs", 6, None),), min_visual_tokens=1)) as session:
        forward(model, made.inputs([made.prompt(1, 1)]))
    assert session.images[0].selection.index.tolist()[:4] == [0, 1, 2, 3]
