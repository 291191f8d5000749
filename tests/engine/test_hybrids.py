"""Decoders that mix attention with recurrences, convolutions and networks of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.support.families import tiny
from tests.support.pruning import GENERATE, dropped, forward, generate, plan
from tests.support.versions import CACHE
from transformers import DynamicCache

from vlm_pruner import PlanError, PrunePlan, Stage, UnsupportedModelError, prune
from vlm_pruner.engine.cache import PrunedLayer, first_pruned
from vlm_pruner.engine.support import settle, take_apart
from vlm_pruner.methods.base import create
from vlm_pruner.methods.vlm_pruner import VLMPruner
from vlm_pruner.verify.reference import masked
from vlm_pruner.verify.shortened import STATES, layers_of, types_of

HYBRIDS = ["qwen3_5", "qwen3_5_moe", "lfm2_vl", "lfm3_vl", "minicpmv4_6", "minicpmv4_7", "nemotron_h_omni"]
RECURRENT = [*(name for name in HYBRIDS if "lfm" not in name), "minicpm_ocr"]
each_hybrid = pytest.mark.parametrize("name", HYBRIDS)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
@each_hybrid
def test_a_prefill_is_that_of_the_rows_that_are_left(name: str, layer: int) -> None:
    """Where no state is handed on and no row is padded, nothing is rounded otherwise than in the rows alone."""
    family, model = tiny(name)
    prompts = [family.prompt(3, 2)]
    inputs = family.inputs(prompts, model.dtype)
    with prune(model, plan((0.4, layer))) as session:
        got = forward(model, inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
    with masked(model, dropped(session, prompts)):
        want = forward(model, inputs, use_cache=False).logits[:, -1]
    exact = {"atol": 1e-9, "rtol": 0} if want.dtype == torch.float64 else {"atol": 2e-6, "rtol": 0}
    torch.testing.assert_close(got, want, **exact)


@each_hybrid
def test_padding_of_rows_that_keep_different_counts_is_hidden_from_states(name: str) -> None:
    """Rows of equal length without a mask become unequal: what stands in front of the shorter one is no token."""
    family, model = tiny(name)
    one, other = next(
        (a, b)
        for a in (family.prompt(seed, 1) for seed in range(20))
        for b in (family.prompt(seed, 1, tail=tail) for seed in range(20, 30) for tail in range(4, 20))
        if len(a.ids) == len(b.ids) and a.tokens != b.tokens
    )
    whole = family.inputs([one, other], model.dtype, mask=False)
    with prune(model, plan((0.4, 1))):
        got = forward(model, whole).logits[:, -1]
        alone = [forward(model, family.inputs([p], model.dtype, mask=False)).logits[0, -1] for p in (one, other)]
    torch.testing.assert_close(got, torch.stack(alone), atol=2e-6, rtol=0)


@each_hybrid
def test_states_stay_as_they_are(name: str) -> None:
    family, model = tiny(name)
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)
    cache = DynamicCache(config=model.config.get_text_config())
    before = [type(part) for part in cache.layers]
    with prune(model, plan((0.4, 0))):
        forward(model, inputs, cache=cache)
    for kind, stock, part in zip(types_of(model), before, cache.layers, strict=True):
        assert isinstance(part, PrunedLayer) != (kind in STATES)
        assert kind not in STATES or type(part) is stock
    assert first_pruned(cache) is cache.layers[1]


def test_later_rows_of_unequal_length_are_refused() -> None:
    """Their padding would stand between the states of the first turn and the second."""
    family, model = tiny("qwen3_5")
    first = family.inputs([family.prompt(3, 1), family.prompt(3, 1)], model.dtype)
    unequal = [p for p in (family.prompt(seed, 1) for seed in range(20)) if p.tokens == [8]][:1]
    unequal += [p for p in (family.prompt(seed, 1) for seed in range(20)) if p.tokens == [6]][:1]
    later: dict[str, Any] = family.inputs(unequal, model.dtype)
    past, chunk = first["input_ids"].shape[1], later["input_ids"].shape[1]
    later["attention_mask"] = torch.cat([first["attention_mask"], later["attention_mask"]], 1)
    later["position_ids"] = torch.arange(past, past + chunk).expand(3, 2, -1)
    cache = DynamicCache(config=model.config.get_text_config())
    with prune(model, plan((0.4, 1))):
        forward(model, first, cache=cache)
        with pytest.raises(UnsupportedModelError, match=r"rows of a later turn keep different numbers of tokens"):
            forward(model, later, cache=cache)


def test_states_that_were_not_filled_are_an_error() -> None:
    family, model = tiny("qwen3_5")
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)
    with prune(model, plan((0.4, 1))):
        handle = layers_of(model)[0].register_forward_pre_hook(_without_cache, with_kwargs=True)
        try:
            with pytest.raises(
                UnsupportedModelError, match=r"the states of decoder layer 0 were not filled\. The answer"
            ):
                forward(model, inputs, use_cache=True)
        finally:
            handle.remove()


def _without_cache(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return args, {**kwargs, CACHE: None}


def test_keys_of_a_layer_that_attends_to_nothing() -> None:
    _, model = tiny("qwen3_5")
    message = (
        r"fastv cannot prune at layer 3 of this qwen3_5 model: it needs attention of the decoder layer before, whi"
    )
    with pytest.raises(PlanError, match=message):
        prune(model, "fastv", keep=4, layer=3)
    with prune(model, "fastv", keep=4, layer=2):
        pass


def test_what_a_canvas_does_not_allow() -> None:
    family, model = tiny("minicpmv4_7")
    with pytest.raises(
        UnsupportedModelError, match=r"minicpmv4_7: positions cannot be repacked, pictures are numbered"
    ):
        prune(model, "grid", keep=4, positions="repacked").__enter__()
    with prune(model, "grid", keep=4) as session, pytest.raises(UnsupportedModelError, match=r"marks behind a picture"):
        session.reuse(**family.inputs([family.prompt(3, 1)], model.dtype))


@pytest.mark.parametrize("name", RECURRENT)
def test_states_round_as_those_of_the_stock_model(name: str) -> None:
    """The other tests take the rounding of recurrences away. With it, pruned answers are no further from those without
    than the answers of the stock model are (seen: 0.8 to 1.2 times)."""
    family, model = tiny(name)
    stock, pruned = torch.zeros(()), torch.zeros(())
    for seed in range(3, 11):
        prompts = [family.prompt(seed, 2)]
        inputs = family.inputs(prompts, model.dtype)
        stock += squares(rounded(model, inputs), generate(model, inputs).logits)
        with prune(model, plan((0.4, 2))) as session:
            got = rounded(model, inputs)
        with masked(model, dropped(session, prompts)):
            pruned += squares(got, generate(model, inputs).logits)
    assert 0 < pruned.sqrt() <= 1.5 * stock.sqrt()


def rounded(model: Any, inputs: dict[str, Any]) -> Any:
    if hasattr(model.base_model, "rope_deltas"):
        model.base_model.rope_deltas = None
    with torch.no_grad():
        return model.generate(**inputs, **GENERATE).logits


def squares(got: Any, want: Any) -> torch.Tensor:
    return sum(((a - b).clamp(-1, 1).square().mean() for a, b in zip(got, want, strict=True)), torch.zeros(()))


def test_a_method_settles_where_there_is_what_it_reads() -> None:
    """Behind the next layer with keys, else before the language model, if it can do without."""
    _, model = tiny("qwen3_5")
    assert types_of(model)[:4] == ["linear_attention", "full_attention", "linear_attention", "linear_attention"]
    parts = take_apart(model)
    for name, wanted, found in (
        ("vlm-pruner", 1, 2), ("fastv", 1, 2), ("dart", 2, 2), ("vlm-pruner", 3, None), ("fastv", 3, 3),
        ("divprune", 3, 3), ("v2drop", 3, 3),
    ):  # fmt: skip
        stage = Stage(create(name), 0.5, wanted)
        assert settle(PrunePlan((stage,)), parts).stages[0].layer == found, name


def test_the_place_that_is_asked_for_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = tiny("qwen3_5")
    monkeypatch.setattr(VLMPruner, "default_layer", 3)
    assert prune(model, "vlm-pruner", keep=0.5).plan.stages[0].layer is None
    with pytest.raises(PlanError, match=r"vlm-pruner cannot prune at layer 3 .* layers with keys stand before 2"):
        prune(model, "vlm-pruner", keep=0.5, layer=3)
    assert prune(model, "divprune", keep=0.5, layer=3).plan.stages[0].layer == 3
    assert prune(tiny("llava")[1], "vlm-pruner", keep=0.5).plan.stages[0].layer == 3
