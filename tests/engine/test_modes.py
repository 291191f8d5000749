"""Modes together, prompts of unusual shape, and what users do that examples do not."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.support.defaults import default
from tests.support.families import FAMILIES, IMAGE, LAYERS, VIDEO, Family, Prompt, tiny
from tests.support.pruning import GENERATE, close, dropped, forward, generate, plan
from tests.support.versions import CACHE, OLD, cache_in
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

from vlm_pruner import ImageRecord, UnsupportedModelError, prune
from vlm_pruner.verify.reference import masked

few_families = pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3"])
Prompts = Callable[[Family], list[Prompt]]


def padded(family: Family) -> list[Prompt]:
    return [family.prompt(3, 2), family.prompt(4, 1, tail=9)]


def same(answer: Any, reference: Any, model: Any) -> None:
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)


def compare(
    name: str, prompts: Prompts = padded, stages: Sequence[tuple[float, int]] = ((0.4, 2),), attention: str = "",
    unpruned: dict[str, Any] | None = None, **changes: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """The pruned answer, that of the hidden full-length model (generating as `unpruned` says), and the session."""
    family, model = tiny(name, attention)
    rows = prompts(family)
    inputs = family.inputs(rows, model.dtype)
    torch.manual_seed(5)
    with prune(model, plan(*stages)) as session:
        answer = generate(model, inputs, **changes)
    torch.manual_seed(5)
    with masked(model, dropped(session, rows)):
        reference = generate(model, inputs, **(changes if unpruned is None else unpruned))
    same(answer, reference, model)
    return answer, reference, session


# Ways of generating


@pytest.mark.parametrize(
    "way",
    [
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"num_beams": 3, "do_sample": True},
    ],
    ids=["beams", "several", "sampled-beams"],
)
@few_families
def test_a_static_cache_two_stages_and_several_rows_of_each(name: str, way: dict[str, Any]) -> None:
    compare(name, stages=((0.6, 0), (0.3, 3)), unpruned=way, cache_implementation="static", **way)


@few_families
def test_one_new_token(name: str) -> None:
    answer, _, session = compare(name, max_new_tokens=1)
    assert len(answer.logits) == 1
    assert session.report.decoded_tokens == 0


@few_families
def test_hidden_states_and_attention_of_generate_are_of_what_is_left(name: str) -> None:
    more = {"output_hidden_states": True, "output_attentions": True, "max_new_tokens": 3}
    answer, reference, _ = compare(name, attention="eager", **more)
    full = reference.hidden_states[0][0].shape[1]
    lengths = [state.shape[1] for state in answer.hidden_states[0]]
    left = lengths[-1]
    assert left < full
    assert lengths == [full] * 3 + [left] * 3
    maps = [attention.shape[2:] for attention in answer.attentions[0]]
    assert maps == [(full, full)] * 2 + [(left, left)] * 3
    for got, want in zip(answer.hidden_states[1:], reference.hidden_states[1:], strict=True):
        close(got, want, tiny(name, "eager")[1])


def test_beams_without_a_cache_name_every_image_once() -> None:
    """Every step sends all rows again, and beams differ by then."""
    family, model = tiny("llava")
    inputs = family.inputs(padded(family))
    with prune(model, plan((0.4, 2))) as session:
        want = generate(model, inputs, num_beams=3)
        got = generate(model, inputs, num_beams=3, use_cache=False)
    same(got, want, model)
    assert [(i.row, i.index) for i in session.images] == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("way", [{"num_beams": 3}, {"use_cache": False}, {"prompt_lookup_num_tokens": 3}], ids=str)
@few_families
def test_repacked_positions(name: str, way: dict[str, Any]) -> None:
    """Nothing to compare with but the other ways of generating."""
    family, model = tiny(name)
    prompt = family.prompt(9, 2)
    prompt.ids[-6:] = prompt.ids[:3].repeat(2)
    inputs = family.inputs([prompt], model.dtype)
    plain = {k: v for k, v in way.items() if k == "num_beams"}
    with prune(model, plan((0.4, 0), positions="repacked")):
        got = generate(model, inputs, max_new_tokens=8, **way)
        want = generate(model, inputs, max_new_tokens=8, cache_implementation="static", **plain)
    assert torch.equal(got.sequences, want.sequences)


# Prompts


def picture_last(family: Family) -> Prompt:
    prompt = family.prompt(3, 1, tail=0)
    prompt.ids = prompt.ids[: int(prompt.places[0][-1]) + 1]
    return prompt


def picture_first(family: Family) -> Prompt:
    prompt = family.prompt(3, 1)
    prompt.ids = prompt.ids[int(prompt.places[0][0]) :]
    return prompt


def twice(family: Family) -> Prompt:
    one = family.prompt(3, 1)
    return Prompt(torch.cat([one.ids, one.ids]), one.tokens * 2, one.payload * 2)


SHAPES: dict[str, Prompts] = {
    "picture first": lambda family: [picture_first(family), family.prompt(4, 1, tail=12)],
    "the same picture twice": lambda family: [twice(family), family.prompt(3, 1)],
    "text rows around": lambda family: [family.prompt(9, 0, tail=3), family.prompt(3, 2), family.prompt(4, 0, tail=30)],
}


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
@few_families
def test_prompts(name: str, shape: str, beams: int) -> None:
    compare(name, SHAPES[shape], num_beams=beams)


@few_families
def test_a_prompt_that_ends_with_a_picture_is_answered_from_what_is_left_and_says_so(name: str) -> None:
    """The logits of the last place are gone with it, as a rule; those of the last survivor take over."""
    family, model = tiny(name)
    prompts = [picture_last(family), family.prompt(4, 2, tail=9)]
    inputs = family.inputs(prompts, model.dtype)
    note = "rows that end with an image, and are answered from the last token that is left of it: 0"
    with prune(model, plan((0.4, 2))) as session:
        got = forward(model, inputs).logits[:, -1]
        gone = dropped(session, prompts)
        assert session.report.notes == (note,)
        generate(model, inputs, num_beams=2)
        assert session.report.notes == (note,)
        forward(model, family.inputs(prompts[1:], model.dtype))
        assert session.report.notes == ()
    with masked(model, gone):
        full = forward(model, inputs).logits
    last = [int((~gone[LAYERS - 1][row]).nonzero()[-1]) for row in range(2)]
    close(list(got), [full[row, place] for row, place in enumerate(last)], model)
    with prune(model, plan((1.0, 2))) as session:
        forward(model, inputs)
    assert session.report.notes == ()


def hidden_of(records: list[ImageRecord], prompts: list[Prompt]) -> dict[int, Tensor]:
    """As `dropped`, for rows with images and videos, which are counted apart."""
    length = max(len(p.ids) for p in prompts)
    out = {layer: torch.zeros(len(prompts), length, dtype=torch.bool) for layer in range(LAYERS)}
    for record in records:
        ids = prompts[record.row].ids
        places = (ids == (IMAGE if record.modality == "image" else VIDEO)).nonzero().flatten()
        places = places.split([r.total for r in records if (r.row, r.modality) == (record.row, record.modality)])
        for layer, _, selection in record.stages:
            gone = torch.ones(record.total, dtype=torch.bool)
            gone[selection.index] = False
            for later in range(layer, LAYERS):
                out[later][record.row, places[record.index] + length - len(ids)] = gone
    return out


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("name", ["qwen2_vl", "llava_onevision", "video_llava"])
def test_pictures_and_videos_in_one_prompt(name: str, beams: int) -> None:
    family, model = tiny(name)
    films = FAMILIES[f"{name}-video"]
    one, film = family.prompt(3, 1, tail=2), films.prompt(4, 1)
    mixed = Prompt(torch.cat([one.ids, film.ids]), one.tokens + film.tokens, one.payload + film.payload)
    prompts = [mixed, family.prompt(7, 1), films.prompt(8, 1)]
    inputs = family.inputs(prompts, model.dtype)
    with prune(model, plan((0.4, 2))) as session:
        answer = generate(model, inputs, num_beams=beams)
    kinds = [(i.row, i.modality) for i in session.images]
    assert kinds == [(0, "image"), (0, "video"), (1, "image"), (2, "video")]
    with masked(model, hidden_of(session.images, prompts)):
        reference = generate(model, inputs, num_beams=beams)
    same(answer, reference, model)


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_a_mask_of_the_callers_own_and_positions(name: str) -> None:
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(3, 2)])
    length = inputs["input_ids"].shape[1]
    square = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with prune(model, plan((0.4, 2))):
        want = forward(model, inputs).logits
        got = forward(model, {**inputs, "attention_mask": square}, position_ids=torch.arange(length)[None]).logits
    close([got], [want], model)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_a_mask_that_hides_part_of_a_picture(name: str) -> None:
    family, model = tiny(name)
    prompt = family.prompt(3, 1)
    inputs = family.inputs([prompt])
    inputs["attention_mask"][0, prompt.places[0][2:5]] = 0
    with prune(model, plan((0.4, 2))) as session:
        answer = generate(model, inputs)
    with masked(model, dropped(session, [prompt])):
        reference = generate(model, inputs)
    same(answer, reference, model)


# Turns


@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl"])
def test_a_second_picture_on_a_static_cache_that_two_stages_pruned(name: str) -> None:
    family, model = tiny(name)
    one, other = family.prompt(3, 1), family.prompt(4, 1)
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=260)
    with prune(model, plan((0.6, 0), (0.4, 2))) as session:
        first = generate(model, family.inputs([one]), cache=cache)
        gone = dropped(session, [one], len(first.sequences[0]))
        ids = torch.cat([first.sequences[0], other.ids])[None]
        again = {**family.inputs([other]), "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        answer = generate(model, again, cache=cache)
        new = dropped(session, [other])
    whole = Prompt(ids[0], one.tokens + other.tokens, one.payload + other.payload)
    with masked(model, {layer: torch.cat([gone[layer], new[layer]], 1) for layer in gone}):
        reference = generate(model, family.inputs([whole]))
    same(answer, reference, model)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_a_text_turn_behind_three_positions_per_token(name: str) -> None:
    """The model itself keeps how far positions and places are apart."""
    family, model = tiny(name)
    one, other = family.prompt(3, 1), family.prompt(4, 0)

    def turns() -> tuple[Any, Any]:
        first = generate(model, family.inputs([one]))
        ids = torch.cat([first.sequences[0], other.ids])[None]
        again = {"input_ids": ids, "attention_mask": torch.ones_like(ids), CACHE: cache_in(first)}
        return first, model.generate(**again, **GENERATE)

    with prune(model, plan((0.4, 2))) as session:
        first, answer = turns()
        gone = dropped(session, [one], len(first.sequences[0]))
    with masked(model, gone):
        first, reference = turns()
    same(answer, reference, model)


@pytest.mark.parametrize("name", ["llava-mistral", "gemma3"])
def test_cropping_windows_that_remember(name: str) -> None:
    """Transformers crops sliding layers if they were told in time to keep what has left the window."""
    family, model = tiny(name)
    prompt = family.prompt(3, 1)
    inputs, length = family.inputs([prompt]), len(prompt.ids)
    cache = DynamicCache(config=model.config.get_text_config())
    cache.activate_past_recording()

    def said(store: Any, *tokens: int) -> Tensor:
        for token in tokens:
            out = forward(model, {"input_ids": torch.tensor([[token]])}, cache=store, use_cache=True).logits
        return out

    with prune(model, plan((0.4, 2))):
        forward(model, inputs, cache=cache, use_cache=True)
        want = said(copy.deepcopy(cache), 9)
        said(cache, 50, 51)
        cache.crop(-2)
        assert cache.get_seq_length() == length
        close([said(cache, 9)], [want], model)


@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl", "qwen2_vl"])
def test_a_reused_prefix_answered_cropped_and_answered_again(name: str) -> None:
    family, model = tiny(name)
    one = family.prompt(3, 1)
    asked = Prompt(torch.cat([one.ids[:-6], torch.arange(40, 48)]), one.tokens, one.payload)
    with prune(model, plan((0.4, 2))) as session:
        prefix = session.reuse(**family.inputs([one]))
        whole = generate(model, family.inputs([asked]))
        answer = model.generate(**prefix.inputs(**family.inputs([asked])), **GENERATE)
        same(answer, whole, model)
        cache = cache_in(answer)
        cache.crop(len(asked.ids) - 1 - cache.get_seq_length())
        ids = asked.ids[None]
        again = {"input_ids": ids, "attention_mask": torch.ones_like(ids), CACHE: cache}
        same(model.generate(**again, **GENERATE), whole, model)


def test_a_thread_that_waits_between_two_layers_is_not_disturbed() -> None:
    """One prefill stands still in front of a pruned layer until another question was answered as a whole."""
    family, model = tiny("llava")
    slow, quick = family.inputs([family.prompt(3, 2)]), family.inputs([family.prompt(4, 1, tail=9)])
    reached, go_on = threading.Event(), threading.Event()
    said: dict[str, Tensor] = {}

    def wait(module: nn.Module, args: Any) -> None:
        if threading.current_thread().name == "slow" and not go_on.is_set():
            reached.set()
            assert go_on.wait(60)

    with prune(model, plan((0.4, 2))):
        want = [generate(model, inputs).sequences for inputs in (slow, quick)]
        handle = model.base_model.get_decoder().layers[3].register_forward_pre_hook(wait)
        thread = threading.Thread(target=lambda: said.update(slow=generate(model, slow).sequences), name="slow")
        thread.start()
        try:
            assert reached.wait(60)
            quickly = generate(model, quick).sequences
        finally:
            go_on.set()
            thread.join()
            handle.remove()
    assert torch.equal(quickly, want[1])
    assert torch.equal(said["slow"], want[0])


@few_families
def test_autocast(name: str) -> None:
    family = FAMILIES[name]
    model = family.model("sdpa").float()
    rows = padded(family)
    inputs = family.inputs(rows, model.dtype)
    with torch.autocast("cpu", torch.bfloat16):
        unpruned = forward(model, inputs).logits
        with prune(model, plan((1.0, 2))):
            assert torch.equal(forward(model, inputs).logits, unpruned)
        with prune(model, plan((0.4, 2))) as session:
            got = forward(model, inputs).logits[:, -1]
        with masked(model, dropped(session, rows)):
            want = forward(model, inputs).logits[:, -1]
    rounding = 2**-6 * float(want.abs().max())
    torch.testing.assert_close(got, want, atol=rounding, rtol=0)
    assert not torch.allclose(got, unpruned[:, -1], atol=rounding, rtol=0)


@pytest.mark.parametrize("setting", [torch.bfloat16, torch.float64, "meta"], ids=str)
@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl"])
def test_defaults_of_torch_change_nothing(name: str, setting: torch.dtype | str) -> None:
    family, model = tiny(name)
    inputs = family.inputs(padded(family), model.dtype)

    def answers() -> list[Any]:
        found = []
        for method in ("vlm-pruner", "fastv", "visionzip"):
            with prune(model, method=method, keep=0.4):
                found.append(generate(model, inputs))
        return found

    want = answers()
    with default(setting):
        got = answers()
    for one, other in zip(got, want, strict=True):
        same(one, other, model)


# Gradients


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_gradients_are_those_of_the_full_model_with_the_dropped_tokens_hidden(name: str, checkpoints: bool) -> None:
    """No labels, but a loss of the caller's own on the logits."""
    family = FAMILIES[name]
    model = family.model("sdpa").train(checkpoints)
    prompts = padded(family)
    inputs = family.inputs(prompts)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        if hasattr(model.base_model, "rope_deltas"):
            model.base_model.rope_deltas = None
        model(**inputs, use_cache=False).logits[:, -1].square().sum().backward()
        return [copy.deepcopy(p.grad) for p in model.base_model.get_decoder().parameters()]

    if checkpoints:
        model.gradient_checkpointing_enable()
    with prune(model, plan((0.4, 2))) as session:
        if checkpoints and OLD:
            with pytest.raises(UnsupportedModelError, match=r"runs the hooks of a pruner again in the backward pass"):
                gradients()
            return
        got = gradients()
    with masked(model, dropped(session, prompts)):
        want = gradients()
    scale = max(float(grad.abs().max()) for grad in want)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6 * scale, rtol=0)
