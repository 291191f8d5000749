"""Questions about videos in the benchmark: encoded once, prefilled once a video, answered as `generate` answers."""

from __future__ import annotations

import pytest
import torch

import vlm_pruner as vp
from vlm_pruner.asking import EMBEDDED_VIDEO, Loaded, open_model
from vlm_pruner.asking.prompts import read_prompt
from vlm_pruner.errors import InputError, UnsupportedModelError
from vlm_pruner.evaluation.bench import Setup, batches_of, describe, run_bench
from vlm_pruner.evaluation.cells import Cell, build_grid
from vlm_pruner.evaluation.frames import FRAMES, RandomFrames, UniformFrames
from vlm_pruner.evaluation.videos import about_motion, ask_motion, video_tokens
from vlm_pruner.plan import PrunePlan
from vlm_pruner.types import VisualTokens

TOKENS = 520


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return open_model(EMBEDDED_VIDEO)


@pytest.fixture(scope="module")
def setup(loaded) -> Setup:
    return Setup(loaded.model, loaded.processor, ask_motion(loaded.model, loaded.processor, "video-validation", 2))


def cell(method: object, keep: int) -> Cell:
    return Cell("it", keep, PrunePlan.of(method, keep=keep, layer=0, num_layers=8))


def test_videos_have_one_number_of_tokens_and_are_encoded_apart(setup):
    assert setup.tokens == TOKENS
    assert not setup.single
    assert describe(setup, "x")["tokens"] == TOKENS
    assert video_tokens(setup.model, setup.processor, setup.questions[0]) == TOKENS


@pytest.mark.parametrize("method", ["none", "vidcom2", "vlm-pruner-video", "holitom"])
def test_answers_are_those_of_generate(setup, method):
    keep = TOKENS if method == "none" else 130
    runner = setup.runner()
    for batch in batches_of(setup.questions, setup.batch)[-2:]:
        answers = runner.run(cell(method, keep), runner.task(batch))
        asked = [one for scene in batch for one in scene]
        for one, answer in list(zip(asked, answers, strict=True))[:4]:
            inputs = read_prompt(setup.processor, one.prompt, list(one.images))
            with torch.inference_mode(), vp.prune(setup.model, method, keep=keep, layer=0):
                ids = setup.model.generate(**inputs, do_sample=False, max_new_tokens=12)
            text = setup.processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
            assert (answer.question, answer.text) == (one.key, text)
            assert answer.kept == keep


def test_evidence_is_counted_in_frames(setup):
    """With one frame kept, the evidence that is kept is what this frame shows of it."""
    runner = setup.runner()
    for batch in batches_of(setup.questions, setup.batch)[:3]:
        asked = [one for scene in batch for one in scene]
        answers = runner.run(cell(UniformFrames(), 65), runner.task(batch))
        for one, answer in zip(asked, answers, strict=True):
            shown = one.regions((8, 8))[0].view(8, 64)
            if not shown.any():
                assert answer.evidence_kept is None
                continue
            assert answer.evidence_kept == pytest.approx(float(shown[4].sum() / shown.sum()), abs=0.07)  # CLS beside


def test_whole_frames():
    tokens = VisualTokens(torch.randn(24, 4), grid=(4, 2, 3))
    assert UniformFrames().select(tokens, 6).index.tolist() == list(range(12, 18))
    assert UniformFrames().select(tokens, 12).index.tolist() == [*range(6, 12), *range(18, 24)]
    assert len(UniformFrames().select(tokens, 15)) == 15
    assert UniformFrames().select(tokens, 24).index.tolist() == list(range(24))
    drawn = {tuple(RandomFrames(seed).select(tokens, 6).index.tolist()) for seed in range(20)}
    assert drawn == {tuple(range(6 * i, 6 * i + 6)) for i in range(4)}
    for method in FRAMES.values():
        for keep in range(1, 25):
            method.select(tokens, keep).validate(24, keep)


def test_a_run_writes_what_it_found(setup, loaded, tmp_path):
    def load() -> Setup:
        return setup

    grid = build_grid({"none": "none", **FRAMES, "evs": "evs"}, [0.25], seeds=2, layers=8, tokens=TOKENS)
    split = about_motion("video-validation", 2)
    results = run_bench(load, grid, tmp_path / "r.json", name=EMBEDDED_VIDEO, split=split, setup=setup)
    assert [(c.label, c.budget, c.kept) for c in results.cells[:2]] == [
        ("none", 520, 520.0),
        ("uniform-frames", 130, 130.0),
    ]
    assert len(results.types) == 24
    assert results.row("evs").mean("evidence_kept") is not None


def test_splits_and_models_that_do_not_fit(loaded):
    with pytest.raises(InputError, match="video-validation"):
        ask_motion(loaded.model, loaded.processor, "test")
    still = open_model("embedded")
    with pytest.raises(UnsupportedModelError, match="takes no videos"):
        ask_motion(still.model, still.processor, "video")
    with pytest.raises(UnsupportedModelError, match="takes no videos"):
        ask_motion(loaded.model, still.processor, "video")
