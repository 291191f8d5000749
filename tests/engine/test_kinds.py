"""Decoder layers that share keys, see chunks, count places, choose keys, or get features added."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.configs import IMAGE
from tests.support.families import tiny
from tests.support.pruning import close, dropped, forward, generate, largest_difference, plan
from tests.support.versions import RELEASE, newer_only

from vlm_pruner import PlanError, PrunePlan, UnsupportedModelError, prune
from vlm_pruner.adapters import adapter_for
from vlm_pruner.verify.reference import masked
from vlm_pruner.verify.shortened import layers_of


@pytest.mark.skipif(RELEASE == (5, 24), reason="transformers 5.24.0 cannot run Llama 4 itself")
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_queries_that_are_scaled_by_their_places_keep_them(layer: int, cache: bool) -> None:
    """Llama 4 does so from place 8192 on; here from place 4."""
    family, model = tiny("llama4")
    counting = [part.self_attn for part in layers_of(model) if not part.self_attn.use_rope]
    prompts = [family.prompt(3, 2)]
    inputs = family.inputs(prompts, model.dtype)
    plain = forward(model, inputs).logits
    for attention in counting:
        attention.floor_scale = 4
    try:
        assert (forward(model, inputs).logits - plain).abs().max() > 1e-3
        with prune(model, plan((0.4, layer))) as session:
            got = generate(model, inputs, use_cache=cache)
        with masked(model, dropped(session, prompts)):
            want = generate(model, inputs)
    finally:
        for attention in counting:
            attention.floor_scale = 8192
    assert torch.equal(got.sequences, want.sequences)
    close(got.logits, want.logits, model)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("layer", [0, 2])
def test_distances_and_scales_are_those_of_the_whole_sequence(layer: int, cache: bool) -> None:
    """Inkling scales its logits from some place on; here from place 4."""
    family, model = tiny("inkling_mm_model")
    prompts = [family.prompt(3, 2)]
    inputs = family.inputs(prompts, model.dtype)
    words, plain = model.config.get_text_config(), forward(model, inputs).logits
    words.log_scaling_n_floor, words.log_scaling_alpha = 4, 2.0
    try:
        assert (forward(model, inputs).logits - plain).abs().max() > 1e-3
        with prune(model, plan((0.4, layer))) as session:
            got = generate(model, inputs, use_cache=cache)
        with masked(model, dropped(session, prompts)):
            want = generate(model, inputs)
    finally:
        words.log_scaling_n_floor, words.log_scaling_alpha = None, 0.1
    assert torch.equal(got.sequences, want.sequences)
    close(got.logits, want.logits, model)


def test_rows_of_a_picture_are_read_from_the_padding_of_its_patches() -> None:
    """Where the processor is another one, nothing tells how wide a picture is; two in one run of words are one, if at
    all."""
    family, model = tiny("inkling_mm_model")
    prompt = family.prompt(3, 2)
    inputs = family.inputs([prompt], model.dtype)
    unpadded = {**inputs, "pixel_values": inputs["pixel_values"].abs()}
    with (
        prune(model, plan((0.4, 0))),
        pytest.raises(UnsupportedModelError, match="not padded as by its own processor"),
    ):
        forward(model, unpadded)
    between = torch.ones(len(prompt.ids), dtype=torch.bool)
    between[int(prompt.places[0][-1]) + 1 : int(prompt.places[1][0])] = False
    ids = {name: value[:, between] for name, value in inputs.items() if name in ("input_ids", "attention_mask")}
    assert [first["pixel_values"].shape[0] for first in prompt.payload] == [8, 9], "rows of 4 and of 3"
    with (
        prune(model, plan((0.4, 0))),
        pytest.raises(UnsupportedModelError, match="rows of different length follow each other"),
    ):
        forward(model, {**inputs, **ids})


@newer_only("Gemma 4 takes all rows through its last layers")
def test_a_prompt_that_ends_with_a_picture_is_not_cut_to_it() -> None:
    """Gemma 4 takes the rows alone whose logits are asked for through the layers that read others' keys."""
    family, model = tiny("gemma4-shared")
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)
    end = int((inputs["input_ids"][0] == IMAGE).nonzero()[-1]) + 1
    inputs = {k: v[:, :end] if v.shape[1:2] == inputs["input_ids"].shape[1:] else v for k, v in inputs.items()}
    with prune(model, plan((0.4, 1))):
        with pytest.raises(UnsupportedModelError, match=r"the last 1 places of a prompt that is pruned must be text"):
            forward(model, inputs, logits_to_keep=1)
        assert forward(model, inputs).logits.isfinite().all()


@pytest.mark.parametrize("name", ["gemma3n", "gemma4-shared"])
@pytest.mark.parametrize("kept", [0, 1, 4])
def test_some_logits_of_rows_behind_shared_keys(name: str, kept: int) -> None:
    family, model = tiny(name)
    prompts = [family.prompt(3, 2), family.prompt(4, 1)]
    inputs = family.inputs(prompts, model.dtype)
    with prune(model, plan((0.6, 1), (0.3, 2))) as session:
        got = forward(model, inputs, logits_to_keep=kept).logits
    with masked(model, dropped(session, prompts)):
        want = forward(model, inputs).logits
    close([got[:, -(kept or 5) :]], [want[:, -(kept or 5) :]], model)


def test_a_window_behind_the_prompt() -> None:
    """Unlimited-OCR: everything sees the prompt, and the last tokens of what comes behind it."""
    family, model = tiny("unlimited_ocr")
    prompts = [family.prompt(3, 2)]
    inputs = family.inputs(prompts, model.dtype)
    for layer in (0, 2):
        with prune(model, plan((0.4, layer))) as session:
            got = generate(model, inputs, max_new_tokens=9)
        with masked(model, dropped(session, prompts)):
            want = generate(model, inputs, max_new_tokens=9)
        assert torch.equal(got.sequences, want.sequences)
        close(got.logits, want.logits, model)
        assert largest_difference(got.logits, generate(model, inputs, max_new_tokens=9, use_cache=False).logits) > 1e-3
    with prune(model, "grid", keep=4) as session, pytest.raises(UnsupportedModelError, match="through a window"):
        session.reuse(**inputs)


@newer_only("its blocks in a batch are not those of a row, pruned or not")
def test_blocks_of_keys_are_counted_from_the_padding_on() -> None:
    """MiniMax M3: rows that keep different numbers would get padding, those that keep one number do not."""
    family, model = tiny("minimax_m3_vl")
    rows = [family.prompt(seed, 1) for seed in range(20)]
    one, other = next((a, b) for a in rows for b in rows if len(a.ids) == len(b.ids) and a.ids is not b.ids)
    with prune(model, PrunePlan(plan((4, 2)).stages, min_visual_tokens=1)):
        batch = generate(model, family.inputs([one, other], model.dtype))
        alone = [generate(model, family.inputs([row], model.dtype)) for row in (one, other)]
    for number, row in enumerate(alone):
        close([step[number] for step in batch.logits], [step[0] for step in row.logits], model)


def test_keys_of_others_are_no_signal() -> None:
    _, model = tiny("gemma3n")
    message = r"fastv cannot prune at layer 4 .*, which reads the keys of an earlier one; .* stand before 1, 2, 3"
    with pytest.raises(PlanError, match=message):
        prune(model, "fastv", keep=4, layer=4)


def test_stages_stand_in_front_of_layers_that_choose_themselves() -> None:
    _, model = tiny("mistral_large4")
    with pytest.raises(PlanError, match=r"layer 3 of this mistral_large4 model .*; prune at one of the layers 0, 2, 4"):
        prune(model, "grid", keep=4, layer=3)
    with prune(model, "grid", keep=4, layer=2):
        pass


def test_layers_know_whose_keys_they_read() -> None:
    config: Any = tiny("gemma3n")[1].config.text_config
    assert [adapter_for("gemma3n").source(config, i) for i in range(5)] == [0, 1, 2, 1, 2]


def test_rows_of_unequal_length_are_no_picture() -> None:
    places = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    with pytest.raises(UnsupportedModelError, match=r"fuyu: 5 tokens are not 2 rows of one length"):
        adapter_for("fuyu").spans(None, places, "image")
    places[0, 7] = True
    (span,) = adapter_for("fuyu").spans(None, places, "image") or []
    assert span.layout.grid == (1, 2, 3)
    assert span.slots.tolist() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("name", ["fuyu", "chameleon", "emu3"])
def test_families_without_a_tower_have_reports(name: str) -> None:
    family, model = tiny(name)
    with prune(model, plan((0.4, 1))) as session:
        forward(model, family.inputs([family.prompt(3, 1)], model.dtype))
    assert session.report.kept < session.report.total
    assert session.report.vision_flops_full is None
