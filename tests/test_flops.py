"""The FLOP formulas against torch's own counter on tiny models, and against figures printed in papers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.support.versions import CACHE, cache_in
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma2Config,
    InternVLVisionConfig,
    InternVLVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    MixtralConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from vlm_pruner.errors import PlanError, UnsupportedModelError
from vlm_pruner.flops import (
    DecoderShape,
    ProjectorShape,
    VisionShape,
    decode_flops,
    kv_bytes,
    prefill_flops,
    projector_flops,
    stage_lengths,
    vision_flops,
)

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}
LLAVA_7B = DecoderShape(32, 4096, 11008, 32, 32, 128, 32064)


def counted(call: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def decoder(config: Any) -> nn.Module:
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return AutoModelForCausalLM.from_config(config).eval()


CONFIGS = {
    "llama": LlamaConfig(**TEXT),
    "qwen2": Qwen2Config(**TEXT),
    "mistral, wide heads": MistralConfig(**TEXT, head_dim=32),
    "gemma2": Gemma2Config(**TEXT, head_dim=32),
    "mixtral": MixtralConfig(**TEXT, num_local_experts=4, num_experts_per_tok=2),
    "qwen2-moe": Qwen2MoeConfig(
        **TEXT,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=48,
        shared_expert_intermediate_size=32,
        mlp_only_layers=[1],
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tokens", [1, 13])
def test_prefill_equals_the_counter_of_torch(name: str, tokens: int) -> None:
    model, shape = decoder(CONFIGS[name]), DecoderShape.from_config(CONFIGS[name])
    ids = torch.randint(0, 128, (1, tokens))
    measured = counted(lambda: model(ids, logits_to_keep=1))
    assert measured == prefill_flops(shape, [tokens] * 3)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_decode_equals_the_counter_of_torch(name: str) -> None:
    model, shape = decoder(CONFIGS[name]), DecoderShape.from_config(CONFIGS[name])
    with torch.no_grad():
        cache = cache_in(model(torch.randint(0, 128, (1, 9))))
    measured = counted(lambda: model(torch.tensor([[5]]), **{CACHE: cache}))
    assert measured == decode_flops(shape, [10] * 3)


def test_kv_bytes_equal_the_cache() -> None:
    config = CONFIGS["mistral, wide heads"]
    with torch.no_grad():
        cache = cache_in(decoder(config)(torch.randint(0, 128, (1, 9))))
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert kv_bytes(DecoderShape.from_config(config), [9, 9, 9], 4) == held


def test_shape_is_read_from_the_text_part_of_a_composed_config() -> None:
    config = LlavaConfig(text_config=LlamaConfig(**TEXT))
    assert DecoderShape.from_config(config) == DecoderShape(3, 64, 96, 4, 2, 16, 128)


def test_a_config_without_the_fields_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="num_attention_heads"):
        DecoderShape.from_config(SimpleNamespace(hidden_size=64))
    with pytest.raises(UnsupportedModelError, match=r"layers of several widths \(is_heterogeneous\) has no"):
        DecoderShape.from_config(SimpleNamespace(is_heterogeneous=True))
    with pytest.raises(UnsupportedModelError, match=r"shared keys \(num_kv_shared_layers\) has no FLOP formula"):
        DecoderShape.from_config(SimpleNamespace(num_kv_shared_layers=2))
    with pytest.raises(UnsupportedModelError, match=r"linear_attention has no FLOP formula"):
        DecoderShape.from_config(SimpleNamespace(layer_types=["full_attention", "linear_attention"]))
    with pytest.raises(UnsupportedModelError, match="no number in any of the fields moe_intermediate_size"):
        DecoderShape.from_config(SimpleNamespace(**TEXT, num_experts=4, moe_intermediate_size=[24, 16]))
    with pytest.raises(UnsupportedModelError, match="kv_lora_rank"):
        DecoderShape.from_config(SimpleNamespace(**TEXT, kv_lora_rank=16))
    with pytest.raises(UnsupportedModelError, match="has no patch_size"):
        VisionShape.from_config(SimpleNamespace(hidden_size=64, intermediate_size=96, num_hidden_layers=2))
    with pytest.raises(UnsupportedModelError, match="fields depth, num_hidden_layers"):
        VisionShape.from_config(SimpleNamespace(hidden_size=64, patch_size=14))
    with pytest.raises(UnsupportedModelError, match="vision_config"):
        ProjectorShape.from_config(LlamaConfig(**TEXT))


@pytest.mark.parametrize("lengths", [[1, 1], [1, 1, -1], []])
@pytest.mark.parametrize("formula", [prefill_flops, decode_flops, lambda s, n: kv_bytes(s, n, 2)])
def test_lengths_must_fit_the_layers(formula: Any, lengths: list[int]) -> None:
    with pytest.raises(PlanError, match="3 decoder layers"):
        formula(DecoderShape(3, 64, 96, 4, 2, 16, 128), lengths)


# -- figures of papers -------------------------------------------------------------------------------------------


def tera_macs_of_the_image(shape: DecoderShape, lengths: list[int]) -> float:
    """What the field prints as TFLOPs: multiply-adds of the image tokens, no output head."""
    return (prefill_flops(shape, lengths) - 2 * shape.hidden * shape.vocab) / 2e12


def test_pyramiddrop_table() -> None:
    """arXiv:2410.17247v2, ablation of the number of stages: none, and four of 8 layers that halve the tokens."""
    assert round(tera_macs_of_the_image(LLAVA_7B, [576] * 32), 2) == 3.82
    halved = stage_lengths(32, 0, 576, [(8, 288), (16, 144), (24, 72)])
    assert round(tera_macs_of_the_image(LLAVA_7B, halved), 2) == 1.78


def test_fastv_equation_5() -> None:
    """arXiv:2403.06764, Eq. 5: 4nd^2 + 2n^2d + 2ndm multiply-adds a layer; one of three MLP matrices is missing."""
    n, d, m = 576, 4096, 11008
    shape = DecoderShape(32, d, m, 32, 32, 128, 32064, gated=False)
    assert tera_macs_of_the_image(shape, [n] * 32) * 1e12 == 32 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * m)


def test_llama_7b_cache_takes_half_a_mebibyte_per_token() -> None:
    assert kv_bytes(LLAVA_7B, [1] * 32, 2) == 2**19


def test_stage_lengths_of_several_stages_in_any_order() -> None:
    assert stage_lengths(5, 7, 100, [(3, 10), (1, 50)]) == [107, 57, 57, 17, 17]
    assert stage_lengths(3, 7, 100, [(None, 10)]) == [17] * 3
    assert stage_lengths(2, 7, 100, []) == [107, 107]


# -- vision towers -----------------------------------------------------------------------------------------------

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (CLIPVisionConfig(**TOWER), CLIPVisionModel),
        (SiglipVisionConfig(**TOWER, vision_use_head=False), SiglipVisionModel),
        (InternVLVisionConfig(**TOWER), InternVLVisionModel),
    ],
    ids=["clip", "siglip", "internvl"],
)
def test_square_towers_equal_the_counter_of_torch(config: Any, model: Any) -> None:
    config._attn_implementation = "eager"
    tower = model(config).eval()
    measured = counted(lambda: tower(torch.randn(1, 3, 32, 32)))
    assert measured == vision_flops(VisionShape.from_config(config), (1, 4, 4))


NATIVE = {
    "qwen2": (
        Qwen2VLConfig,
        Qwen2VisionTransformerPretrainedModel,
        {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
    ),
    "qwen2.5": (
        Qwen2_5_VLConfig,
        Qwen2_5_VisionTransformerPretrainedModel,
        {
            "hidden_size": 32,
            "intermediate_size": 40,
            "out_hidden_size": 64,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
    ),
    "qwen3": (
        Qwen3VLConfig,
        Qwen3VLVisionModel,
        {
            "hidden_size": 32,
            "intermediate_size": 40,
            "out_hidden_size": 64,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 64,
        },
    ),
}


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("grid", [(1, 12, 20), (3, 4, 6)])
def test_native_resolution_towers_equal_the_counter_of_torch(name: str, grid: tuple[int, int, int]) -> None:
    """Tower and merger together: windows cut off at the edge, frames apart, DeepStack mergers."""
    config_class, tower_class, fields = NATIVE[name]
    config = config_class(
        text_config=dict(TEXT, rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3]}),
        vision_config=dict(depth=3, num_heads=4, patch_size=14, **fields),
    )
    config.vision_config._attn_implementation = "eager"
    tower = tower_class(config.vision_config).eval()
    shape, projector = VisionShape.from_config(config.vision_config), ProjectorShape.from_config(config)
    patches = grid[0] * grid[1] * grid[2]
    measured = counted(lambda: tower(torch.randn(patches, shape.patch_values), grid_thw=torch.tensor([grid])))
    assert measured == vision_flops(shape, grid) + projector_flops(projector, patches)


def test_a_whole_llava_equals_the_counter_of_torch() -> None:
    vision = CLIPVisionConfig(**TOWER)
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=127)
    config._attn_implementation = "eager"
    model = LlavaForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, *[127] * 16, 2, 3]])
    measured = counted(lambda: model(input_ids=ids, pixel_values=torch.randn(1, 3, 32, 32), logits_to_keep=1))
    decoder_shape = DecoderShape.from_config(config)
    assert measured == (
        vision_flops(VisionShape.from_config(config.vision_config), (1, 4, 4))
        + projector_flops(ProjectorShape.from_config(config), 16)
        + prefill_flops(decoder_shape, [19] * 3)
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"downsample_ratio": 0.5}, ProjectorShape(((128, 64), (64, 64)), 4)),
        ({"scale_factor": 4}, ProjectorShape(((512, 64),), 16)),
        ({"mm_tokens_per_image": 4}, ProjectorShape(((32, 64),), 4)),
        ({"vision_feature_layer": [-1, -2]}, ProjectorShape(((64, 64), (64, 64)))),
        ({"vision_feature_layer": -2}, ProjectorShape(((32, 64), (64, 64)))),
    ],
    ids=["pixel shuffle", "one linear", "pooled", "two vision layers", "plain"],
)
def test_projector_shapes(config: dict[str, Any], expected: ProjectorShape) -> None:
    vision = SimpleNamespace(hidden_size=32, image_size=32, patch_size=8)
    whole = SimpleNamespace(vision_config=vision, text_config=SimpleNamespace(hidden_size=64), **config)
    assert ProjectorShape.from_config(whole) == expected
