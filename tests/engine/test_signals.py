"""Signals on demand, against what the models themselves compute."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import transformers
from tests.support.families import FAMILIES, OF_EACH_KIND, Prompt, tiny
from tests.support.flash import STAND_IN, attending
from tests.support.pruning import Reader, forward
from torch import Tensor
from transformers import DynamicCache

from vlm_pruner import ImageRecord, MissingSignalError, PrunePlan, Stage, VisualTokens, VlmPrunerError, prune
from vlm_pruner.adapters.modules import attention_of
from vlm_pruner.engine.signals import LayerBefore, projections
from vlm_pruner.engine.tap import Attended
from vlm_pruner.methods.base import create
from vlm_pruner.verify.shortened import STATES, layers_of, types_of

SLOW = pytest.mark.slow
FEW = ("llava", "llava-mistral", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl")
Shown = list[tuple[VisualTokens, ImageRecord]]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    Reader.seen.clear()
    yield
    Reader.seen.clear()


def read(model: Any, inputs: dict[str, Any], *layers: int, **changes: Any) -> Shown:
    """Run a prefill that keeps ever less at `layers`: what the method was shown of each image, with its record."""
    Reader.seen.clear()
    stages = tuple(Stage(Reader(), 0.8 - 0.3 * i, layer) for i, layer in enumerate(layers))
    with prune(model, PrunePlan(stages, min_visual_tokens=1)) as session:
        forward(model, inputs, **changes)
    pairs = []
    for layer in layers:  # the method sees images grouped by size
        seen = [t for t in Reader.seen if t.layer == (layer or None)]
        order = sorted(range(len(seen)), key=lambda i: _first_with(session.images, layers.index(layer), i))
        pairs += [(seen[i], session.images[j]) for j, i in enumerate(order)]
    return pairs


def _first_with(records: list[ImageRecord], stage: int, shown: int) -> int:
    """Which image the method saw as number `shown`."""
    sizes = [r.total if stage == 0 else r.counts[stage - 1] for r in records]
    keeps = [r.counts[stage] for r in records]
    kinds = list(dict.fromkeys(zip(sizes, keeps, strict=True)))
    grouped = sorted(range(len(records)), key=lambda j: (kinds.index((sizes[j], keeps[j])), j))
    return grouped[shown]


def places_of(prompts: Sequence[Prompt], record: ImageRecord) -> tuple[int, Tensor, Tensor]:
    """Row, places of the image's tokens and of the text behind it, in the padded batch."""
    prompt = prompts[record.row]
    pad = max(len(p.ids) for p in prompts) - len(prompt.ids)
    places, visual = prompt.places[record.index] + pad, torch.cat(prompt.places) + pad
    after = torch.arange(int(places[-1]) + 1, pad + len(prompt.ids))
    return record.row, places, after[~torch.isin(after, visual)]


def stored(layer: Any, cache: Any) -> tuple[Tensor, Tensor]:
    """Keys and values that a layer attends to, from what its cache holds (compressed, with latent attention)."""
    expand = getattr(attention_of(layer), "expand_kv", None)
    found: tuple[Tensor, Tensor] = (cache.keys, cache.values) if expand is None else expand(cache.keys, cache.values)
    return found


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_and_keys_are_those_of_the_layer_before(name: str, cache: bool) -> None:
    family, model = tiny(name)
    prompts = family.together(family.prompt(1, 1), family.prompt(2, 2))
    inputs = family.inputs(prompts)
    entered, layers = [], layers_of(model)[:3]  # hidden_states leave out what DeepStack adds
    handles = [
        layer.register_forward_pre_hook(lambda module, args: entered.append(family.rows(args[0]))) for layer in layers
    ]
    filled = DynamicCache(config=model.config.get_text_config())
    forward(model, inputs, cache=filled)
    for handle in handles:
        handle.remove()
    shown = read(model, inputs, 2, use_cache=cache)
    assert len(shown) == sum(len(prompt.tokens) for prompt in prompts)
    for tokens, record in shown:
        row, places, text = places_of(prompts, record)
        assert torch.equal(tokens.features, entered[2][row, places])
        assert torch.equal(tokens.previous, entered[1][row, places])
        assert torch.equal(tokens.embeddings, entered[0][row, places])
        assert torch.equal(tokens.text, entered[2][row, text])
        assert torch.equal(tokens.words, entered[0][row, text])
        if (
            not family.sliding and not family.untapped and 1 not in family.readers
        ):  # whose cache forgets keys, or has none
            keys = stored(layers[1], filled.layers[1])[0]
            assert torch.equal(tokens.keys, keys[row][:, places])
            assert torch.equal(tokens.text_keys, keys[row][:, text])
        assert torch.equal(tokens.coordinates(), record.position)


def test_a_broken_prompt_does_not_disable_a_method_for_good() -> None:
    """Its rows say nothing about how the layer makes its queries."""
    family, model = tiny("llava")
    good, bad = family.inputs([family.prompt(2, 1)]), family.inputs([family.prompt(2, 1)])
    bad["pixel_values"] = bad["pixel_values"] * float("nan")
    stages = (Stage(create("fastv"), 4, 2),)
    with prune(model, PrunePlan(stages, min_visual_tokens=1)) as session:
        with pytest.raises(VlmPrunerError):
            forward(model, bad)
        forward(model, good)
        assert session.report.kept == 4


@pytest.mark.parametrize("name", FAMILIES)
def test_projections_values_and_tables_are_those_of_the_layer_before(name: str) -> None:
    family, model = tiny(name)
    prompts = family.together(family.prompt(1, 1), family.prompt(2, 2))
    inputs = family.inputs(prompts)
    layer, heard = layers_of(model)[1], {}
    names = list(inspect.signature(layer.forward).parameters)
    made_by = projections(attention_of(layer))
    handles = [
        layer.register_forward_pre_hook(
            lambda m, a, k: heard.update({**k, **dict(zip(names, a, strict=False))}), with_kwargs=True
        )
    ]
    for kind, projection in zip(("queries", "keys"), made_by.values(), strict=False):
        handles.append(projection.register_forward_hook(lambda m, a, out, kind=kind: heard.update({kind: out})))
    filled = DynamicCache(config=model.config.get_text_config())
    forward(model, inputs, cache=filled)
    for handle in handles:
        handle.remove()
    for tokens, record in read(model, inputs, 2):
        row, places, text = places_of(prompts, record)
        if (
            not family.sliding and not family.untapped and 1 not in family.readers
        ):  # whose cache forgets most of them, or has none
            values = stored(layer, filled.layers[1])[1]
            assert torch.equal(tokens.values, values[row][:, places])
            assert torch.equal(tokens.text_values, values[row][:, text])
        if not made_by or family.untapped:
            assert tokens.raw_keys is tokens.text_queries is None
        else:
            for found, kind, rows in ((tokens.raw_keys, "keys", places), (tokens.text_queries, "queries", text)):
                want = heard[kind][row, rows].view(len(rows), found.shape[0], -1)  # queries, and behind each its gate
                assert torch.equal(found.transpose(0, 1), want[..., : found.shape[2]])
            assert tokens.raw_keys.shape == tokens.keys.shape
            heads = model.config.get_text_config().num_attention_heads
            assert tokens.text_queries.shape == (heads, len(text), tokens.keys.shape[-1])
        tables = heard.get("position_embeddings")
        if tables is None:
            assert tokens.rotary is None
        else:
            if isinstance(tables, Tensor):  # one complex table, with an entry for two channels
                tables = [part.repeat_interleave(2, -1) for part in (tables.real, tables.imag)]
            expected = torch.stack([table[row % len(table), places] for table in tables])
            assert torch.equal(tokens.rotary, expected)


@pytest.mark.parametrize("name", FEW)
def test_before_the_language_model_there_are_no_keys(name: str) -> None:
    family, model = tiny(name)
    prompts = [family.prompt(2, 1)]
    ((tokens, record),) = read(model, family.inputs(prompts), 0)
    row, places, _ = places_of(prompts, record)
    full = forward(model, family.inputs(prompts), output_hidden_states=True)
    assert torch.equal(tokens.features, full.hidden_states[0][row, places])
    assert tokens.keys is tokens.attention is tokens.text_attention is tokens.previous is tokens.text_keys is None
    assert tokens.values is tokens.raw_keys is tokens.text_values is tokens.text_queries is tokens.rotary is None
    assert tokens.layer is None


@pytest.mark.parametrize("name", FEW)
def test_a_second_stage_sees_the_survivors_only(name: str) -> None:
    family, model = tiny(name)
    prompts = family.together(family.prompt(1, 1), family.prompt(2, 2))
    for tokens, record in read(model, family.inputs(prompts), 1, 3)[3:]:
        survivors = record.stages[0][2].index
        assert len(tokens) == len(survivors) == record.counts[0]
        assert torch.equal(tokens.coordinates(), record.position[survivors])
        assert tokens.keys.shape[1] == tokens.attention.shape[1] == tokens.text_attention.shape[2] == len(survivors)
        assert tokens.previous.shape == tokens.embeddings.shape == tokens.features.shape
        assert tokens.values.shape == tokens.raw_keys.shape == tokens.keys.shape
        assert tokens.rotary.shape[:2] == (2, len(survivors))
        assert set(record.stages[1][2].index.tolist()) < set(survivors.tolist())


@pytest.mark.parametrize("stage", [2, 3, 4])
@pytest.mark.parametrize(
    ("name", "backend"),
    [pytest.param(n, FAMILIES[n].attentions[0], marks=SLOW if n not in OF_EACH_KIND else ()) for n in FAMILIES]
    + [(name, backend) for name in FEW for backend in ("eager", "flex_attention", STAND_IN)],
)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_attention_rows_equal_those_of_eager_attention(name: str, backend: str, stage: int) -> None:
    """At a first stage against the unpruned model, at a second one against the pruned model's own maps. Before layer 4
    stands the layer that sees everything, where the others of a family slide; some turn nothing there."""
    family, model = tiny(name, "eager")
    if stage not in family.sites or stage - 1 in family.readers:
        pytest.skip("refused there")
    if family.untapped:
        assert all(one.attention is one.keys is None for one, _ in read(model, inputs_of(family), stage))
        return
    if family.sliding and backend == STAND_IN:
        pytest.skip("flash attention with sliding windows is refused")
    kinds = types_of(model)
    if kinds and kinds[stage - 1] in STATES:
        pytest.skip("that layer attends to nothing")
    number = sum(kind not in STATES for kind in kinds[: stage - 1]) if kinds else stage - 1
    prompts, inputs = [family.prompt(1, 1), family.prompt(2, 2)], inputs_of(family)
    layers = (1, 3) if stage == 3 else (stage,)
    stages = tuple(Stage(Reader(), 0.8 - 0.3 * i, layer) for i, layer in enumerate(layers))
    with prune(model, PrunePlan(stages, min_visual_tokens=1)):
        maps = forward(model, inputs, output_attentions=True).attentions[number]
    stance = "force_eager" if backend == "flex_attention" else "default"  # its compiler fails on these shapes
    with attending(model, backend), torch.compiler.set_stance(stance):
        for cache in (True, False):
            shown = read(model, inputs, *layers, use_cache=cache)[-3:]
            for tokens, record in shown:
                _check_attention(tokens, record, maps, prompts)


def inputs_of(family: Any) -> dict[str, Any]:
    return family.inputs(family.together(family.prompt(1, 1), family.prompt(2, 2)), torch.float32)


def _check_attention(tokens: VisualTokens, record: ImageRecord, maps: Tensor, prompts: Sequence[Prompt]) -> None:
    row, places, after = places_of(prompts, record)
    width = maps.shape[-1]
    if width < max(len(p.ids) for p in prompts):  # the map of a pruned layer: the text behind the images is at its end
        rows = maps[row, :, -len(after) :]
        assert tokens.text_attention.shape[1] == len(after)
        ends = rows[:, -1]
        best = tokens.attention.max(1).values
        assert all(torch.isclose(ends[h], best[h], atol=1e-5).any() for h in range(len(best)))
        assert torch.allclose(tokens.text_attention[:, -1], tokens.attention, atol=1e-5)
        return
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(tokens.attention, maps[row, :, -1][:, places], **close)
    torch.testing.assert_close(tokens.text_attention, maps[row][:, after][..., places], **close)
    assert maps[row][:, after][..., places].sum() > 1e-3  # the last row alone may be a window away


def test_attention_that_is_not_looked_up_gives_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather no row than a wrong one: a module that attends in a way of its own, where nothing can listen."""
    family, model = tiny("llava")
    inputs = family.inputs([family.prompt(1, 1)])
    attention = model.base_model.get_decoder().layers[1].self_attn

    class Own(type(attention)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **kwargs)

    monkeypatch.setattr(attention, "__class__", Own)
    fastv = PrunePlan((Stage(create("fastv"), 4, 2),), min_visual_tokens=1)
    message = "fastv needs .*attention.* of this llava model"
    with prune(model, fastv), pytest.raises(MissingSignalError, match=message):
        forward(model, inputs)


def test_a_layer_that_changes_its_keys_is_seen_as_it_attends() -> None:
    """Nothing is made again of the layer's parts: what somebody adds to them counts."""
    family, model = tiny("llava", "eager")
    prompts = [family.prompt(1, 1)]
    inputs = family.inputs(prompts, torch.float32)
    attention = model.base_model.get_decoder().layers[1].self_attn
    plain = read(model, inputs, 2)[0][0]
    handle = attention.k_proj.register_forward_hook(lambda module, args, output: output.flip(-1))
    maps = forward(model, inputs, output_attentions=True).attentions[1]
    ((tokens, record),) = read(model, inputs, 2)
    handle.remove()
    _check_attention(tokens, record, maps, prompts)
    assert not torch.allclose(tokens.attention, plain.attention, atol=1e-4)


def test_sinks_and_caps_of_an_attention_function_count() -> None:
    """A sink takes its share, and tanh caps what is left, in the order of the function that the model calls."""
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(1, heads, 7, 8, generator=generator) for heads in (4, 2))
    sinks = torch.randn(4, generator=generator)
    given = Attended(query, key, key, None, 0.5, softcap=2.0, sinks=sinks, causal=True)
    before = LayerBefore.__new__(LayerBefore)
    before.chunk, before.past = 7, None
    rows = before.rows(given, 0, torch.tensor([2, 6]), torch.tensor([0, 1, 5]), 7)
    for head in range(4):
        for at, q in enumerate((2, 6)):
            scores = key[0, head // 2, : q + 1] @ query[0, head, q] * 0.5
            weights = (2 * (scores / 2).tanh()).exp()
            expected = torch.cat([weights / (weights.sum() + sinks[head].exp()), torch.zeros(6 - q)])[[0, 1, 5]]
            torch.testing.assert_close(rows[head, at], expected)


def test_flash_asks_a_tapped_module_for_the_backend_of_its_model() -> None:
    """The functions of flash attention read the name once more, off the module that they are given."""
    family, model = tiny("llava")
    heard = []

    def flash(module: Any, *args: Any, **kwargs: Any) -> Any:
        heard.append(module.config._attn_implementation)
        return stock(module, *args, **kwargs)

    stock = transformers.AttentionInterface()[STAND_IN]
    transformers.AttentionInterface.register(STAND_IN, flash)
    try:
        with attending(model, STAND_IN):
            read(model, family.inputs([family.prompt(1, 1)], torch.float32), 2)
    finally:
        transformers.AttentionInterface.register(STAND_IN, stock)
    assert set(heard) == {STAND_IN}


def test_a_tap_leaves_the_module_as_it_was() -> None:
    _, model = tiny("llava")
    attention = model.base_model.get_decoder().layers[1].self_attn
    config, names = attention.config, list(transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS)
    with prune(model, PrunePlan((Stage(create("fastv"), 4, 2),), min_visual_tokens=1)):
        assert attention.config is not config
        assert attention.config._attn_implementation != config._attn_implementation == "sdpa"
    assert attention.config is config
    assert list(transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS) == names


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_attention_of_a_second_turn_sees_the_first(kind: str) -> None:
    family, model = tiny("llava", "eager")
    prompts = [family.prompt(1, 1), family.prompt(2, 1)]
    first, second = (family.inputs([p], torch.float32) for p in prompts)
    whole = {
        "input_ids": torch.cat([p.ids for p in prompts])[None],
        "pixel_values": torch.cat([first["pixel_values"], second["pixel_values"]]),
    }
    maps = forward(model, whole, output_attentions=True).attentions[1][0]
    cache = transformers.DynamicCache(config=model.config)
    if kind == "static":
        cache = transformers.StaticCache(config=model.config, max_cache_len=100)
    forward(model, first, cache=cache)
    second["attention_mask"] = torch.ones_like(whole["input_ids"])
    ((tokens, _),) = read(model, second, 2, cache=cache)
    places = prompts[1].places[0] + len(prompts[0].ids)
    torch.testing.assert_close(tokens.attention, maps[:, -1][:, places], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("llava", -2), ("llava", 1), ("llava-cls", -2), ("llava_next", -2), ("llava_next", 1), ("llava_onevision", -1)],
)
def test_vision_signals_equal_those_of_the_tower(name: str, layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    family, model = tiny(name, "eager")
    monkeypatch.setattr(model.base_model.config, "vision_feature_layer", layer)
    prompts = family.together(family.prompt(1, 1), family.prompt(2, 2))
    inputs = family.inputs(prompts, torch.float32)
    shown = read(model, inputs, 2)
    tower = model.base_model.vision_tower
    pixels = inputs["pixel_values"]
    if pixels.dim() == 5:  # tiles that are all zero are padding of the batch
        pixels = torch.cat([picture[picture.flatten(1).any(1)] for picture in pixels])
    with torch.no_grad():
        out = tower(pixels, output_hidden_states=True, output_attentions=True)
    has_cls = name != "llava_onevision"
    rows = out.hidden_states[layer][:, int(has_cls) :]
    attentions = torch.stack(out.attentions)  # [layers, m, heads, rows, rows]
    received = attentions.mean((2, 3))[..., int(has_cls) :]
    tile = 0
    for tokens, record in sorted(shown, key=lambda pair: (pair[1].row, pair[1].index)):
        vision, tiles = tokens.vision, 1 if record.total in (16, 17) else _tiles(record)
        patch = _patches_behind(record, tiles)
        real = patch >= 0
        own = slice(tile, tile + tiles)
        close = {"atol": 1e-5, "rtol": 1e-4}
        torch.testing.assert_close(vision.features[real], rows[own].flatten(0, 1)[patch[real]], **close)
        torch.testing.assert_close(vision.attention[:, real], received[:, own].flatten(1)[:, patch[real]], **close)
        assert not vision.features[~real].any()
        if has_cls:
            read_layer = attentions[layer - 1 if layer > 0 else layer]
            from_cls = read_layer[own, :, 0, 1:].transpose(0, 1).flatten(1)  # [heads, m * P]
            torch.testing.assert_close(vision.cls_attention[:, real], from_cls[:, patch[real]], **close)
            each = attentions[:, own, :, 0, 1:].mean(2).flatten(1)  # [layers, m * P]
            torch.testing.assert_close(vision.cls_attentions[:, real], each[:, patch[real]], **close)
            torch.testing.assert_close(vision.cls, out.hidden_states[layer][tile, 0], **close)
        assert (vision.cls is None) == (vision.cls_attention is None) == (vision.cls_keys is None) == (not has_cls)
        assert (vision.cls_attentions is None) == (not has_cls)
        assert vision.keys.shape == (4, record.total, 8)
        tile += tiles


def _tiles(record: ImageRecord) -> int:
    return {8: 5}.get(max(record.grid), 3) if record.grid[1] > 4 and record.grid[2] > 4 else 3


def _patches_behind(record: ImageRecord, tiles: int) -> Tensor:
    """[n] patch of each token by its place in the plane; the crop is known from the token count alone."""
    if record.total == 16:
        return torch.arange(16)
    if record.total == 17:
        return torch.arange(-1, 16)
    _, h, w = record.grid
    rows, columns = {3: (1, 2) if w > h else (2, 1), 5: (2, 2)}[tiles]
    top, left = (rows * 4 - h) // 2, (columns * 4 - w) // 2
    view = torch.arange(16, 16 * tiles).view(rows, columns, 4, 4).transpose(1, 2).reshape(rows * 4, columns * 4)
    shown = view[top : top + h, left : left + w]
    lines = torch.nn.functional.pad(shown, (0, 1), value=-1)
    return torch.cat([torch.arange(16), lines.flatten()])


def test_a_missing_signal_is_named_with_the_model() -> None:
    from vlm_pruner import Selection, Signal

    class NeedsCls(type(Reader())):  # type: ignore[misc]
        name = "test-needs-cls"
        needs = frozenset({Signal.CLS_ATTENTION})
        wants: frozenset[Signal] = frozenset()

        def select(self, tokens: VisualTokens, keep: int) -> Selection:
            raise AssertionError("must not be asked")

    family, model = tiny("llava_onevision")
    plan = PrunePlan((Stage(NeedsCls(), 0.5, 2),))
    with (
        prune(model, plan),
        pytest.raises(MissingSignalError, match=r"test-needs-cls needs CLS_ATTENTION .* of this llava_onevision model"),
    ):
        forward(model, family.inputs([family.prompt(1, 1)]))


def test_a_cap_of_its_logits_is_read_off_the_call_of_a_model() -> None:
    """Gemma 2 caps at 50, which such small logits never come near; here at 0.001."""
    family, model = tiny("paligemma2", "eager")
    inputs = family.inputs([family.prompt(3, 1)], model.dtype)
    attention = attention_of(layers_of(model)[1])
    rows = []
    for cap in (attention.attn_logit_softcapping, 1e-3):
        before, attention.attn_logit_softcapping = attention.attn_logit_softcapping, cap
        try:
            rows.append(read(model, inputs, 2)[0][0].attention)
        finally:
            attention.attn_logit_softcapping = before
    assert (rows[0] - rows[1]).abs().max() > 1e-3 * rows[0].abs().max()
    assert (rows[1] - rows[1].mean(1, keepdim=True)).abs().max() < 2e-3 * rows[1].abs().max()  # nearly uniform
