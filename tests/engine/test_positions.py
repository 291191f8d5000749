"""Repacked positions: the sequence as if the dropped tokens had never been there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import GENERATE, close, generate, plan

from vlm_pruner import UnsupportedModelError, prune


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl", "llava-cls"])
def test_one_position_per_token_equals_a_prompt_that_is_really_shorter(name: str, pictures: int) -> None:
    """The survivors' embeddings alone, as a prompt of embeddings without any picture."""
    family, model = tiny(name)
    prompt = family.prompt(3, pictures)
    entered: list[torch.Tensor] = []
    inputs = family.inputs([prompt])
    with prune(model, plan((0.4, 0), positions="repacked")) as session:
        got = generate(model, inputs)
    text = model.base_model.get_decoder()
    handle = text.register_forward_pre_hook(lambda m, a, k: entered.append(k["inputs_embeds"]), with_kwargs=True)
    generate(model, inputs, max_new_tokens=1)
    handle.remove()
    alive = torch.ones(len(prompt.ids), dtype=torch.bool)
    for record in session.images:
        places = prompt.places[record.index]
        alive[places] = False
        alive[places[record.selection.index]] = True
    short = entered[0][:, alive]
    with torch.no_grad():
        want = model.generate(inputs_embeds=short, attention_mask=torch.ones(short.shape[:2]), **GENERATE)
    assert torch.equal(got.sequences[0, -4:], want.sequences[0, -4:])
    close(got.logits, want.logits, model)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_a_first_stage_that_keeps_everything_leaves_the_positions_as_they_are(name: str) -> None:
    """So that what a later stage does is what it does on kept positions, in this turn and in the next."""
    family, model = tiny(name)
    prompts = [family.prompt(4, 1), family.prompt(5, 2, tail=9)]
    inputs = family.inputs(prompts, model.dtype)
    with prune(model, plan((1.0, 0), (0.3, 2))):
        want = generate(model, inputs)
    with prune(model, plan((1.0, 0), (0.3, 2), positions="repacked")) as session:
        got = generate(model, inputs)
    assert torch.equal(got.sequences, want.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, want.logits, strict=True))
    assert session.report.kept < session.report.total


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_rows_of_a_padded_batch(name: str) -> None:
    family, model = tiny(name)
    prompts = [family.prompt(4, 1), family.prompt(5, 2, tail=9)]
    with prune(model, plan((0.4, 0), (0.2, 3), positions="repacked")):
        batch = generate(model, family.inputs(prompts))
        for row, prompt in enumerate(prompts):
            alone = generate(model, family.inputs([prompt]))
            close([step[row] for step in batch.logits], [step[0] for step in alone.logits], model)


def test_three_positions_per_token_keep_the_grid_and_close_the_gap() -> None:
    """Rows and columns inside a picture stay; text goes on behind the last row and column with a survivor."""
    family, model = tiny("qwen2_vl")
    prompt = family.prompt(3, 2)
    rotary, seen = model.base_model.get_decoder().rotary_emb, []

    def see(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["position_ids"] if "position_ids" in kwargs else args[1])

    with prune(model, plan((1, 0), positions="repacked")) as session:
        handle = rotary.register_forward_pre_hook(see, with_kwargs=True)  # behind the pruner's own
        generate(model, family.inputs([prompt]), max_new_tokens=2)
        handle.remove()
    before, after, step = (each[-3:, 0] for each in seen[:3])  # as the model made them, renumbered, one token later
    moved, first = 0, 0
    for record in session.images:
        places = prompt.places[record.index]
        kept = places[record.selection.index]
        words = torch.arange(first, int(places[0]))
        assert torch.equal(after[:, words], before[:, words] - moved)
        assert torch.equal(after[1:, kept], before[1:, kept] - moved)
        start = before[1:, places].min()
        moved += int(before[1:, places].max() - torch.maximum(before[1:, kept].max(), start - 1))
        first = int(places[-1]) + 1
    assert moved > 0
    assert torch.equal(after[:, first:], before[:, first:] - moved)
    assert torch.equal(step[:, 0], after[:, -1] + 1)


def test_a_decoder_without_rotary_tables() -> None:
    _, model = tiny("llava")
    text = model.base_model.get_decoder()
    rotary = text.rotary_emb
    del text.rotary_emb
    try:
        with pytest.raises(
            UnsupportedModelError, match="llava: positions cannot be repacked, the decoder has no rotary"
        ):
            prune(model, plan((0.4, 0), positions="repacked")).start()
    finally:
        text.rotary_emb = rotary
