"""The fast path of the ablation gives the answers that `generate` gives inside a pruner."""

from __future__ import annotations

import pytest
import torch
from benchmarks.dense import answer, draw_picture, encode
from benchmarks.preset_candidates import CANDIDATES, RIVALS, STEPS, named

from vlm_pruner import load_embedded, prune
from vlm_pruner.scenes.render import render


@pytest.fixture(scope="module")
def asked():
    model, processor = load_embedded()
    scene, drafts = draw_picture("validation", 0, per_type=1)
    return model, processor, encode(model, processor, scene, drafts)


@pytest.mark.parametrize(
    "name", ["vlm-pruner-plus", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dart", "star-pro"))]
)
def test_answers_are_those_of_generate(asked, name):
    model, processor, picture = asked
    texts = [f"USER: <image>\n{draft.text} ASSISTANT:" for draft in picture.drafts]
    images = [render(picture.scene).image] * len(texts)
    inputs = processor(images=images, text=texts, return_tensors="pt", padding=True)
    plan = named(name)(picture, 32)
    with prune(model, plan) as session, torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=10, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    said = processor.batch_decode(tokens, skip_special_tokens=True)
    outcome = answer(model, picture, plan)
    assert outcome.right.tolist() == [s.strip() == d.answer for s, d in zip(said, picture.drafts, strict=True)]
    assert outcome.layer_average == pytest.approx(session.report.images[0].layer_average)


def test_every_candidate_is_a_plan_of_the_model(asked):
    _, _, picture = asked
    for name, make in (STEPS | CANDIDATES | RIVALS).items():
        for keep in (64, 32):
            assert make(picture, keep).check(8).stages, name


def test_a_memo_changes_nothing(asked):
    model, _, picture = asked
    memo, plan = {}, named("vlm-pruner-plus")(picture, 48)
    first, second = answer(model, picture, plan, memo), answer(model, picture, plan, memo)
    assert list(memo) == [2]
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.loss, answer(model, picture, plan).loss)
