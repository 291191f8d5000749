"""What cannot be done is refused in plain words, before anything is lost."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tests.support import configs
from tests.support.families import FAMILIES, tiny
from tests.support.pruning import Scatter, forward, generate, plan
from tests.support.versions import newer_only
from torch import nn

from vlm_pruner import (
    InvalidSelectionError,
    PlanError,
    PrunePlan,
    Selection,
    Stage,
    UnsupportedModelError,
    VlmPrunerError,
    attach,
    prune,
)
from vlm_pruner.adapters.obstacles import obstacle


@pytest.fixture
def llava() -> tuple[Any, Any, dict[str, Any]]:
    family, model = tiny("llava")
    return family, model, family.inputs([family.prompt(1, 1), family.prompt(2, 2)])


# Bad arguments of prune


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, r"keep=0 keeps nothing: keep is a whole number of tokens per image"),
        (-1, r"keep=-1 keeps nothing"),
        (1.5, r"keep=1.5 is not a share in \(0, 1\]"),
        (0.0, r"keep=0.0 is not a share"),
        (17, r"keep=17 asks for more tokens than an image has: 16 in this llava model"),
        ("many", r"keep='many' is not a number"),
        (True, r"keep=True is not a number"),
        (None, r"how many tokens should random keep\? keep=64 \(per image\) or keep=0.111"),
    ],
)
def test_budget(llava: Any, keep: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        prune(llava[1], "random", keep=keep)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (5, r"layer 5 does not exist: the model has 5 layers \(0 to 4\)"),
        (40, r"layer 40 does not exist"),
        (-1, r"layer=-1 is negative"),
        (2.0, r"layer=2.0 is not a decoder layer"),
        ("two", r"layer='two' is not a decoder layer"),
    ],
)
def test_layer(llava: Any, layer: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        prune(llava[1], "random", keep=4, layer=layer)


def test_unknown_method_offers_the_nearest(llava: Any) -> None:
    with pytest.raises(PlanError, match=r"unknown method 'vlm-prunner'; did you mean 'vlm-pruner'\? Known: .*divprune"):
        prune(llava[1], "vlm-prunner", keep=4)


def test_unknown_parameter_offers_the_nearest(llava: Any) -> None:
    with pytest.raises(PlanError, match=r"unknown parameter of random 'sed'; did you mean 'seed'\?"):
        prune(llava[1], "random", keep=4, sed=1)


def test_a_method_that_needs_keys_before_the_language_model(llava: Any) -> None:
    with pytest.raises(PlanError, match=r"fastv cannot prune before the language model: it needs attention"):
        prune(llava[1], "fastv", keep=4, layer=0)


# Models


def refused(model: Any, message: str) -> None:
    before = [len(module._forward_pre_hooks) for module in model.modules()] if isinstance(model, nn.Module) else None
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        prune(model, "random", keep=4)
    assert isinstance(caught.value, VlmPrunerError)
    if before is not None:
        assert before == [len(module._forward_pre_hooks) for module in model.modules()]


def test_no_model_at_all() -> None:
    refused("llava", r"expected a transformers model, got str")
    refused(nn.Linear(2, 2), r"expected a transformers model, got Linear")


def test_a_model_without_images() -> None:
    refused(transformers.AutoModelForCausalLM.from_config(configs.text("llama")), r"llama takes no images")


def test_cross_attention() -> None:
    narrow = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**narrow, "num_hidden_layers": 2, "cross_attention_layers": [1], "num_key_value_heads": 2}
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2}
    tower |= {"intermediate_size": 16, "image_size": 28, "intermediate_layers_indices": [0], "vision_output_dim": 32}
    config = transformers.MllamaConfig(
        text_config={**text, "vocab_size": 50, "pad_token_id": 0},
        vision_config={**tower, "supported_aspect_ratios": [[1, 1]], "max_num_tiles": 1},
        image_token_index=49,
    )
    refused(transformers.MllamaForConditionalGeneration(config), r"mllama reads its image through cross-attention")


class Stub(nn.Module):
    """As much of a transformers model as is looked at before it is refused."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        text = SimpleNamespace(**config.pop("text", {}))
        base = {"is_encoder_decoder": False, "vision_config": SimpleNamespace()}
        self.config = SimpleNamespace(**{**base, **config, "get_text_config": lambda: text})

    @property
    def base_model(self) -> Stub:
        return self


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        ({"model_type": "florence2", "is_encoder_decoder": True}, r"florence2 is an encoder-decoder model"),
        (
            {"model_type": "zamba9", "text": {"layer_types": ["linear_attention", "compressed_sparse_attention"]}},
            r"zamba9: layers of type compressed_sparse_attention cannot be pruned: no rule is known for them",
        ),
        ({"model_type": "zamba9", "text": {"num_kv_shared_layers": 10}}, r"zamba9: decoder layers that share keys"),
        (
            {"model_type": "zamba9", "text": {"kv_sharing_modes": ["store", "reuse"]}},
            r"zamba9: decoder layers that share keys",
        ),
        ({"model_type": "llava"}, r"llava: this configuration names no token that stands for visual tokens"),
        ({"model_type": "llavva"}, r"unknown model family 'llavva'; did you mean 'llava'\? Known: .*qwen2_vl"),
    ],
)
def test_architectures(stub: dict[str, Any], message: str) -> None:
    refused(Stub(**stub), message)


def test_layers_with_keys_of_their_own_are_no_obstacle() -> None:
    """A configuration that could share keys, and shares none."""
    assert obstacle(Stub(model_type="gemma4", text={"kv_sharing_modes": [None, None]}).config) is None


@pytest.mark.parametrize("name", [n for n in ("gemma3n", "gemma4-shared", "inkling_mm_model") if n in FAMILIES])
def test_what_a_family_has_a_rule_for_is_no_obstacle(name: str) -> None:
    """Shared keys, and kinds of attention of its own: whoever asks before a model is loaded is not told otherwise."""
    assert obstacle(tiny(name)[1].config) is None


def test_flash_attention_with_sliding_windows() -> None:
    _, model = tiny("llava-mistral")
    text = model.base_model.get_decoder().config
    before, text._attn_implementation = text._attn_implementation, "flash_attention_2"
    try:
        refused(model, r'flash_attention_2 counts a sliding window in what is left .* attn_implementation="sdpa"')
    finally:
        text._attn_implementation = before


def test_a_second_pruner(llava: Any) -> None:
    _, model, inputs = llava
    with prune(model, plan((0.4, 2))) as session:
        with pytest.raises(UnsupportedModelError, match=r"a pruner is already active on this llava model: leave its"):
            attach(model, plan((0.4, 2)))
        forward(model, inputs)  # the first one goes on
        assert session.report.kept
    attach(model, plan((0.4, 2))).detach()


def test_a_pruner_that_was_removed_does_not_unlock_the_next(llava: Any) -> None:
    _, model, _ = llava
    first = attach(model, plan((0.4, 2)))
    first.detach()
    second = attach(model, plan((0.4, 2)))
    first.detach()
    with pytest.raises(UnsupportedModelError, match=r"a pruner is already active on this llava model"):
        attach(model, plan((0.4, 2)))
    with pytest.raises(PlanError, match=r"this session is not active"):
        first.reuse()
    second.detach()


def test_a_copy_of_a_model_that_is_being_pruned(llava: Any) -> None:
    """Its hooks would be those of the copy, and nobody could remove them."""
    _, model, inputs = llava
    message = r"a pruner and the model it is active on can be neither copied nor pickled: leave its block or detach"
    with prune(model, plan((0.4, 2))), pytest.raises(UnsupportedModelError, match=message):
        copy.deepcopy(model)
    assert torch.equal(forward(copy.deepcopy(model), inputs).logits, forward(model, inputs).logits)


# Calls


def test_labels(llava: Any) -> None:
    _, model, inputs = llava
    with prune(model, plan((0.4, 2))), pytest.raises(UnsupportedModelError, match=r"labels: the pruned sequence is"):
        forward(model, inputs, labels=inputs["input_ids"])


@pytest.mark.parametrize("name", ["cu_seq_lens_q", "cu_seq_lens_k"])
def test_packed_sequences(llava: Any, name: str) -> None:
    _, model, inputs = llava
    with prune(model, plan((0.4, 2))), pytest.raises(UnsupportedModelError, match=rf"{name}: packed sequences cannot"):
        forward(model, inputs, **{name: torch.tensor([0, 4])})


def test_logits_to_keep(llava: Any) -> None:
    _, model, inputs = llava
    with prune(model, plan((0.4, 2))):
        with pytest.raises(UnsupportedModelError, match=r"logits_to_keep as a tensor names places"):
            forward(model, inputs, logits_to_keep=torch.tensor([3, 4]))
        with pytest.raises(UnsupportedModelError, match=r"logits_to_keep=20 reaches into the visual tokens"):
            forward(model, inputs, logits_to_keep=20)
        whole = forward(model, inputs).logits
        torch.testing.assert_close(forward(model, inputs, logits_to_keep=2).logits, whole[:, -2:])


def test_pictures_encoded_elsewhere(llava: Any) -> None:
    _, model, inputs = llava
    with torch.no_grad():
        features = model.base_model.get_image_features(inputs["pixel_values"])
    given = {k: v for k, v in inputs.items() if k != "pixel_values"}
    with (
        prune(model, plan((0.4, 2))),
        pytest.raises(UnsupportedModelError, match=r"the image features of this prompt were computed elsewhere"),
    ):
        forward(model, given, mm_encoder_outputs={"image": features})


@newer_only("chunks lose their images, and the unpruned answer is another one")
@pytest.mark.parametrize("chunk", [10, 1000])
def test_chunked_prefill(llava: Any, chunk: int) -> None:
    _, model, inputs = llava
    with (
        prune(model, plan((0.4, 2))),
        pytest.raises(UnsupportedModelError, match=r"features of this prompt .* \(and without prefill_chunk_size\)"),
    ):
        generate(model, inputs, prefill_chunk_size=chunk)


def test_a_cache_without_layers(llava: Any) -> None:
    _, model, inputs = llava
    cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
    with (
        prune(model, plan((0.4, 2))),
        pytest.raises(UnsupportedModelError, match=r"a cache of type EncoderDecoderCache has no layers that can be"),
    ):
        generate(model, inputs, cache=cache)


def test_a_place_that_cannot_be_known() -> None:
    family, model = tiny("llava_next")
    inputs = family.inputs([family.prompt(1, 1)])
    from vlm_pruner.adapters import Encoded, adapter_for

    encoded = Encoded({}, tuple(inputs["pixel_values"].shape), None)
    with pytest.raises(UnsupportedModelError, match=r"'image_sizes' is missing: it tells where the visual tokens are"):
        adapter_for("llava_next").image_layouts(model.config, encoded)


def test_token_counts_that_do_not_match(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that is wrong about the number of tokens is found out, not believed."""
    from vlm_pruner.adapters.base import raster
    from vlm_pruner.adapters.llava import Llava

    _, model, inputs = llava
    monkeypatch.setattr(Llava, "image_layouts", lambda self, config, encoded: [raster(1, 3, 5)] * 3)
    with (
        prune(model, plan((0.4, 2))),
        pytest.raises(UnsupportedModelError, match=r"48 image placeholders in the prompt, .* images have 45 tokens"),
    ):
        forward(model, inputs)


def test_a_picture_split_over_rows(llava: Any) -> None:
    from vlm_pruner.adapters.base import raster
    from vlm_pruner.adapters.spans import deal_out

    places = torch.zeros(2, 10, dtype=torch.bool)
    places[0, :3] = places[1, :5] = True
    with pytest.raises(UnsupportedModelError, match=r"the 4 tokens of one image are split over rows"):
        deal_out([raster(1, 2, 2)] * 2, places, "image")


def test_arguments_of_a_layer_without_a_rule(llava: Any) -> None:
    _, model, inputs = llava
    layer = model.base_model.get_decoder().layers[3]
    length = inputs["input_ids"].shape[1]

    def add(module: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "extra": torch.zeros(1, length)}

    handle = layer.register_forward_pre_hook(add, with_kwargs=True)
    try:
        with (
            prune(model, plan((0.4, 2))),
            pytest.raises(
                UnsupportedModelError, match=r"llava: decoder layer argument 'extra' of shape \(1, \d+\) has no"
            ),
        ):
            forward(model, inputs)
    finally:
        handle.remove()


def test_more_arguments_of_a_layer_than_it_has_names_for(llava: Any) -> None:
    _, model, inputs = llava
    layer = model.base_model.get_decoder().layers[3]
    handle = layer.register_forward_pre_hook(lambda module, args: (*args, *[None] * 20))
    try:
        with (
            prune(model, plan((0.4, 2))),
            pytest.raises(UnsupportedModelError, match=r"LlamaDecoderLayer is called with 21 positional arguments, of"),
        ):
            forward(model, inputs)
    finally:
        handle.remove()


def test_another_form_of_mask() -> None:
    from vlm_pruner.engine.masks import Places, remap_mask

    place = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(UnsupportedModelError, match=r"attention mask \(2, 3, 4\): known are \[batch, keys\]"):
        remap_mask(torch.ones(2, 3, 4), Places(place, place), None, False, True, torch.ones(1), "sdpa")


# Methods


def wrong(**changes: Any) -> PrunePlan:
    """A plan whose method returns something else than it was asked for."""

    class Wrong(Scatter):  # type: ignore[misc]
        name = "test-wrong"

        def select(self, tokens: Any, keep: int) -> Selection:
            good = Scatter.select(self, tokens, keep)
            return dataclasses.replace(good, **{k: v(good.index) for k, v in changes.items()})

    return PrunePlan((Stage(Wrong(), 6, 2),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i[:-1], r"5 tokens selected, 6 asked for"),
        (lambda i: torch.full_like(i, 3), r"ascending, unique and inside \[0, 16\)"),
        (lambda i: i + 12, r"ascending, unique and inside \[0, 16\)"),
        (lambda i: i.flip(0), r"ascending, unique and inside"),
        (lambda i: i.float(), r"index must be int64 \[k\], got torch.float32"),
    ],
)
def test_an_improper_choice(llava: Any, change: Any, message: str) -> None:
    _, model, inputs = llava
    with prune(model, wrong(index=change)), pytest.raises(InvalidSelectionError, match=message):
        forward(model, inputs)
    with prune(model, plan((0.4, 2))):  # the model is usable at once
        forward(model, inputs)


def test_small_pictures_are_left_alone_and_said_so() -> None:
    family, model = tiny("qwen2_vl")
    inputs = family.inputs([family.prompt(1, 2)])
    with prune(model, "random", keep=4, layer=2) as session:  # min_visual_tokens is 16
        forward(model, inputs)
    assert {i.note for i in session.report.images if i.total < 16} == {
        f"left alone: {n} tokens are fewer than min_visual_tokens=16" for n in (r.total for r in session.images)
    }
    assert session.report.kept == session.report.total
    with prune(model, PrunePlan((Stage(Scatter(), 8, 2),), min_visual_tokens=1)) as session:
        forward(model, inputs)
    for image in session.report.images:
        assert image.kept == min(8, image.total)
        assert (image.note == "") == (image.total >= 8)
