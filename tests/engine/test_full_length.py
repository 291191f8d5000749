"""Outputs of the unpruned length: every row at its place, NaN where a token was dropped."""

from __future__ import annotations

import pytest
import torch
from tests.support.families import FAMILIES, LAYERS, of_each_kind, tiny
from tests.support.pruning import close, dropped, forward, generate, plan

from vlm_pruner import PrunePlan, Stage, prune
from vlm_pruner.methods.base import create
from vlm_pruner.verify.reference import masked

STAGES = ((0.6, 1), (0.3, 3))


@pytest.mark.parametrize("name", of_each_kind(FAMILIES))
def test_rows_are_at_their_places(name: str) -> None:
    family, model = tiny(name)
    prompts = family.together(family.prompt(3, 2), family.prompt(4, 1))
    inputs = family.inputs(prompts, model.dtype)
    stages = [(keep, layer) for keep, layer in STAGES if layer in family.sites] or [(0.3, family.sites[-1])]
    with prune(model, plan(*stages), full_length=True) as session:
        got = forward(model, inputs, output_hidden_states=True)
    gone = dropped(session, prompts)
    with masked(model, gone):
        want = forward(model, inputs, output_hidden_states=True)
    real = inputs["attention_mask"].bool()
    assert got.logits.shape == want.logits.shape
    assert got.logits.isnan().any(-1)[real].tolist() == gone[LAYERS - 1][real].tolist()
    alive = real & ~gone[LAYERS - 1]
    close([got.logits[alive]], [want.logits[alive]], model)
    assert len(got.hidden_states) == LAYERS + 1
    for i, (state, full) in enumerate(zip(got.hidden_states, want.hidden_states, strict=True)):
        state, full = family.rows(state), family.rows(full)
        hidden = gone[max(0, i - 1)]
        assert state.isnan().all(-1)[real].tolist() == hidden[real].tolist()
        alive = real & ~hidden
        scale = full[alive].abs().max().clamp(min=1)  # some models round to float32 between layers
        close([state[alive] / scale], [full[alive] / scale], model)


def test_before_the_language_model() -> None:
    family, model = tiny("llava")
    prompt = family.prompt(3, 2)
    with prune(model, plan((0.4, 0)), full_length=True) as session:
        got = forward(model, family.inputs([prompt]), output_hidden_states=True)
    gone = dropped(session, [prompt])[0]
    assert all(torch.equal(state.isnan().all(-1), gone) for state in got.hidden_states)


def test_logits_to_keep_names_places_of_the_prompt() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 1)])
    places = torch.tensor([0, 5, inputs["input_ids"].shape[1] - 1])
    with prune(model, plan((0.4, 2)), full_length=True):
        whole = forward(model, inputs).logits
        torch.testing.assert_close(
            forward(model, inputs, logits_to_keep=places).logits, whole[:, places], equal_nan=True
        )
        torch.testing.assert_close(forward(model, inputs, logits_to_keep=20).logits, whole[:, -20:], equal_nan=True)


def test_a_tuple_in_place_of_named_outputs() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 1)])
    with prune(model, plan((0.4, 2)), full_length=True):
        named, plain = forward(model, inputs), forward(model, inputs, return_dict=False)
    torch.testing.assert_close(plain[0], named.logits, equal_nan=True)


def test_generating_is_not_disturbed() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 2), family.prompt(4, 1)])
    with prune(model, plan((0.4, 2))):
        want = generate(model, inputs)
    with prune(model, plan((0.4, 2)), full_length=True):
        got = generate(model, inputs)
    assert torch.equal(got.sequences, want.sequences)
    close(got.logits, want.logits, model)


# Budgets of videos


@pytest.mark.parametrize("name", ["llava_next_video", "llava_onevision-video", "video_llava-video", "qwen2_vl-video"])
def test_every_frame_has_a_budget(name: str) -> None:
    family, model = tiny(name)
    prompt = family.prompt(3, 1)
    inputs = family.inputs([prompt])
    stage = (Stage(create("grid"), 3, 2),)
    with prune(model, PrunePlan(stage, 1)) as session:
        forward(model, inputs)
    (video,) = session.images
    assert (video.kept, video.grid[0]) == (3, 3)
    with prune(model, PrunePlan(stage, 1, per="frame")) as session:
        answer = generate(model, inputs)
    assert [i.kept for i in session.images] == [3, 3, 3]
    assert sum(i.total for i in session.images) == video.total
    assert {i.grid for i in session.images} == {(1, *video.grid[1:])}
    assert [i.index for i in session.images] == [0, 1, 2]
    # The same as a mask over the frames' own dropped tokens.
    places = prompt.places[0].split([i.total for i in session.images])
    gone = torch.zeros(1, len(prompt.ids), dtype=torch.bool)
    for frame, own in zip(session.images, places, strict=True):
        lost = torch.ones(len(own), dtype=torch.bool)
        lost[frame.selection.index] = False
        gone[0, own] = lost
    with masked(model, {layer: gone if layer >= 2 else torch.zeros_like(gone) for layer in range(LAYERS)}):
        reference = generate(model, inputs)
    close(answer.logits, reference.logits, model)
