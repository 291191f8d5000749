"""Survivors that count for many: log m on a logit is the same as m equal keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from tests.support.families import LAYERS, tiny
from tests.support.flash import STAND_IN, attending
from tests.support.pruning import Scatter, close, dropped, forward, generate, largest_difference
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from vlm_pruner import PlanError, PrunePlan, Stage, prune
from vlm_pruner.engine.bias import attend_with
from vlm_pruner.methods.base import PruningMethod
from vlm_pruner.types import Selection, VisualTokens
from vlm_pruner.verify.shortened import layers_of

quiet = pytest.mark.filterwarnings(
    "ignore:flex_attention called without torch.compile:UserWarning",
    "ignore:_compile flag on create_block_mask:DeprecationWarning",  # the model's own call
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning",  # torch's own call
)
BACKENDS = ("sdpa", "eager", "flex_attention", STAND_IN)


class Module(torch.nn.Module):
    """What attention functions ask of an attention module."""

    num_key_value_groups, is_causal = 2, True


def attention(backend: str) -> Any:
    return ALL_ATTENTION_FUNCTIONS.get_interface(backend, eager_attention_forward)


@quiet
@pytest.mark.parametrize("queries", [1, 3, 20], ids=["decode", "chunk", "prefill"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bias_is_a_repeated_key(backend: str, queries: int) -> None:
    """Float32, grouped heads, against every key written down as often as it counts."""
    generator = torch.Generator().manual_seed(queries)
    module, keys = Module().eval(), 20
    mass = torch.randint(1, 9, (2, 16), generator=generator)
    query = torch.randn(2, 4, queries, 16, generator=generator)
    key, value = (torch.rand(2, 2, keys, 16, generator=generator) - 0.5 for _ in range(2))
    see = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    additive = (
        torch.zeros(queries, keys).masked_fill(~see, torch.finfo(torch.float32).min)[None, None].expand(2, 1, -1, -1)
    )
    none = backend == STAND_IN or (backend == "sdpa" and queries in (1, keys))
    mask = None if none else see[None, None].expand(2, 1, -1, -1) if backend == "sdpa" else additive
    torch._dynamo.reset()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        got = attend_with(
            mass.log().float(), backend, attention(backend), module, query, 4 * key, value, mask, scaling=0.3
        )[0]
        for row in range(2):
            often = torch.cat([mass[row], torch.ones(4, dtype=torch.long)])
            many = [t[row : row + 1].repeat_interleave(often, 2) for t in (4 * key, value)]
            hidden = additive[row : row + 1].repeat_interleave(often, 3)
            want = eager_attention_forward(module, query[row : row + 1], *many, hidden, scaling=0.3)[0]
            torch.testing.assert_close(got[row], want[0], atol=1e-6, rtol=0)
            plain = eager_attention_forward(module, query, 4 * key, value, additive, scaling=0.3)[0]
            assert float((plain[row] - want[0]).abs().max()) > 1e-2  # the test has teeth


@final
@dataclass(frozen=True)
class Pairs(PruningMethod):
    """Keeps every other token as the mean of itself and the next one."""

    name: ClassVar[str] = "test-pairs"
    title: ClassVar[str] = "Pairs"
    source: ClassVar[str] = "test"

    def select(self, tokens: VisualTokens, keep: int) -> Selection:
        index = torch.arange(0, len(tokens), 2)
        merged = tokens.features.view(len(index), 2, -1).mean(1)
        return Selection(index, features=merged, source=torch.arange(len(tokens)) // 2)


@contextmanager
def twins(model: Any) -> Iterator[None]:
    """Every other token of a picture is the same as the one before it, wherever it stands."""

    def copy(module: Any, args: Any, rows: Tensor) -> Tensor:
        return rows[:, ::2].repeat_interleave(2, 1)

    handle = model.base_model.multi_modal_projector.register_forward_hook(copy)
    rotary = model.base_model.get_decoder().rotary_emb
    turning = rotary.inv_freq.clone()
    rotary.inv_freq.zero_()
    try:
        yield
    finally:
        handle.remove()
        rotary.inv_freq.copy_(turning)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_merged_twins_answer_as_the_unpruned_model(attention: str, place: int) -> None:
    """Pictures see all of themselves here, so that twins stay twins in every layer: nothing may be lost at all."""
    family, model = tiny("paligemma", attention)
    inputs = family.inputs([family.prompt(3, 2), family.prompt(4, 1)], model.dtype)

    def answer(bias: Any) -> Any:
        with prune(model, Pairs(), keep=8, layer=place, bias=bias) as session:
            out = generate(model, inputs, max_new_tokens=9)
        assert session.report.kept == 24
        return out

    with twins(model):
        want = generate(model, inputs, max_new_tokens=9)
        got, plain = answer("log-mass"), answer(None)
    assert torch.equal(got.sequences, want.sequences)
    assert len(got.logits) == 9
    close(got.logits, want.logits, model)
    assert largest_difference(plain.logits, want.logits) > 1e-3


_weights: dict[str, Any] = {"by_layer": {}, "layers": {}}


def _weighted(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: Any = None, **_: Any) -> Any:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.mT).double() * scaling + mask.double()
    own = _weights["by_layer"][_weights["layers"][id(module)]]
    whole = torch.nn.functional.pad(own, (0, key.shape[2] - own.shape[1]))
    whole = whole.repeat_interleave(len(scores) // len(whole), 0)
    return ((scores + whole[:, None, None]).softmax(-1).to(value.dtype) @ value).transpose(1, 2).contiguous(), None


@contextmanager
def weighted(model: Any, by_layer: dict[int, Tensor]) -> Iterator[None]:
    """The full-length model, with a number on the logit of every place, layer by layer."""
    AttentionInterface.register("weighted_reference", _weighted)
    AttentionMaskInterface.register("weighted_reference", eager_mask)
    _weights.update(by_layer=by_layer, layers={id(layer.self_attn): i for i, layer in enumerate(layers_of(model))})
    with attending(model, "weighted_reference"):
        yield


@contextmanager
def written(model: Any, place: int, choices: list[tuple[int, Tensor, Selection]], length: int) -> Iterator[None]:
    """Merged rows stand in the residual stream in front of a layer."""

    def write(module: Any, args: Any) -> Any:
        hidden = args[0]
        if hidden.shape[1] >= length:
            hidden = hidden.clone()
            for row, places, selection in choices:
                hidden[row, places[selection.index]] = selection.features
        return (hidden, *args[1:])

    handle = layers_of(model)[place].register_forward_pre_hook(write)
    try:
        yield
    finally:
        handle.remove()


def mass_of(selection: Selection) -> Tensor:
    return torch.bincount(selection.source[selection.source >= 0], minlength=len(selection)).double().log()


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "internvl"])
def test_vlm_pruner_equals_the_full_model_with_weights_at_every_step(name: str, place: int) -> None:
    family, model = tiny(name)
    prompts = [family.prompt(3, 2), family.prompt(4, 1, tail=9)]
    inputs = family.inputs(prompts, model.dtype)
    plan = PrunePlan((Stage("vlm-pruner", 0.3, place, bias="log-mass"),), min_visual_tokens=1)
    with prune(model, plan) as session:
        answer = generate(model, inputs, max_new_tokens=9)
    gone, length = dropped(session, prompts), max(len(p.ids) for p in prompts)
    weights = {layer: torch.zeros(gone[0].shape, dtype=torch.float64).masked_fill(gone[layer], -1e30) for layer in gone}
    choices = []
    for record in session.images:
        prompt = prompts[record.row]
        places = prompt.places[record.index] + length - len(prompt.ids)
        choices.append((record.row, places, record.selection))
        for layer in range(place, LAYERS):
            weights[layer][record.row, places[record.selection.index]] = mass_of(record.selection)
    assert max(float(w.max()) for w in weights.values()) > 1
    with weighted(model, weights), written(model, place, choices, length):
        reference = generate(model, inputs, max_new_tokens=9)
    assert torch.equal(answer.sequences, reference.sequences)
    close(answer.logits, reference.logits, model)
    with prune(model, PrunePlan((Stage("vlm-pruner", 0.3, place),), min_visual_tokens=1)):
        assert largest_difference(generate(model, inputs, max_new_tokens=9).logits, answer.logits) > 1e-3


@quiet
@pytest.mark.parametrize("backend", ["flex_attention", STAND_IN])
def test_other_backends_answer_alike(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 2)], model.dtype)
    plan = PrunePlan((Stage("vlm-pruner", 0.5, 1, bias="log-mass"), Stage(Scatter(), 0.3, 3)), min_visual_tokens=1)
    with prune(model, plan):
        want = forward(model, inputs).logits
    torch._dynamo.reset()
    with torch.compiler.set_stance("force_eager"), attending(model, backend), prune(model, plan):
        got = forward(model, inputs).logits
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("cache", [None, "static"])
def test_beams_later_turns_and_rows_alone(cache: Any) -> None:
    family, model = tiny("llava")
    prompts = [family.prompt(3, 2), family.prompt(4, 1, tail=9)]
    more = {} if cache is None else {"cache_implementation": cache, "disable_compile": True}
    with prune(model, "vlm-pruner", keep=5, layer=2, bias="log-mass"):
        batch = generate(model, family.inputs(prompts, model.dtype), **more)
        alone = [generate(model, family.inputs([p], model.dtype)) for p in prompts]
        uncached = generate(model, family.inputs(prompts, model.dtype), use_cache=False)
        beams = generate(model, family.inputs(prompts, model.dtype), num_beams=3)
        slow = generate(model, family.inputs(prompts, model.dtype), num_beams=3, use_cache=False)
    for row, one in enumerate(alone):
        close([step[row] for step in batch.logits], [step[0] for step in one.logits], model)
    close(uncached.logits, batch.logits, model)
    assert torch.equal(beams.sequences, slow.sequences)


def test_what_merges_nothing_counts_for_one() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 2)], model.dtype)
    with prune(model, "vlm-pruner", keep=5, layer=2, merge=False):
        plain = generate(model, inputs)
    with prune(model, "vlm-pruner", keep=5, layer=2, merge=False, bias="log-mass"):
        biased = generate(model, inputs)
    close(biased.logits, plain.logits, model)


def test_layers_without_a_place_for_it_are_refused() -> None:
    _, sliding = tiny("gemma3")
    with pytest.raises(PlanError, match=r"decoder layer \d of this gemma3 model has a window"):
        prune(sliding, "vlm-pruner", keep=4, layer=2, bias="log-mass")
    with pytest.raises(PlanError, match="nothing is merged before the vision tower"):
        Stage("vlm-pruner", 4, "tower", "log-mass")
    with pytest.raises(PlanError, match="unknown bias 'log'"):
        Stage("vlm-pruner", 4, 2, "log")
    plan = PrunePlan((Stage("vlm-pruner", 4, 2, "log-mass"),))
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert plan.to_dict()["stages"][0]["bias"] == "log-mass"


def test_the_model_is_left_as_it_was() -> None:
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)
    before = [layer.self_attn.config for layer in layers_of(model)]
    known = set(ALL_ATTENTION_FUNCTIONS.valid_keys())
    with prune(model, "fastv", keep=5, layer=2, bias="log-mass"):
        generate(model, inputs)
    assert all(layer.self_attn.config is config for layer, config in zip(layers_of(model), before, strict=True))
    assert set(ALL_ATTENTION_FUNCTIONS.valid_keys()) == known
