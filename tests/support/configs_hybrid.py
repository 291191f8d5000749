"""Tiny configurations of families whose decoders mix attention with recurrences, convolutions and plain networks.

Layer 0 attends to nothing, so that what is asked of "the first layer" of a cache is asked of another one.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.configs import END, IMAGE, MROPE, NARROW, START, VIDEO
from tests.support.configs_more import _HEADS, _IDS, _MARKS, _MERGED, _PATCHES, _make, _words
from tests.support.versions import OLD

_LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_HALF = {**MROPE, "mrope_section": [1, 1, 2], "mrope_interleaved": True, "partial_rotary_factor": 0.5}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_VISION = {**_MERGED, **_PATCHES, "num_position_embeddings": 64}


def qwen3_5(moe: bool = False) -> Any:
    kind = "qwen3_5_moe" if moe else "qwen3_5"
    experts = {**_EXPERTS, "shared_expert_intermediate_size": 24} if moe else {}
    words = _words(f"{kind}_text", rope_parameters=_HALF, **_LINEAR, **_HEADS, **experts)
    return _make(kind, text_config=words, vision_config=_VISION, **_MARKS, **_IDS)


def lfm2() -> Any:
    kinds = ["conv", "full_attention", "conv", "conv", "full_attention"]
    vision = {
        **NARROW,
        "num_attention_heads": 2,
        "patch_size": 4,
        "num_patches": 64,
        "model_type": "siglip2_vision_model",
    }
    words = _words("lfm2", layer_types=kinds, conv_L_cache=3)
    return _make(
        "lfm2_vl", text_config={**words, "model_type": "lfm2"}, vision_config=vision, projector_hidden_size=48,
        image_token_id=IMAGE,
    )  # fmt: skip


def lfm3() -> Any:
    kinds = ["conv", "full_attention", "conv", "sliding_attention", "full_attention"]
    vision = {
        **NARROW,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "patch_size": 4,
        "layer_types": ["conv", "full_attention"],
    }
    words = _words("lfm3", layer_types=kinds, conv_L_cache=3, sliding_window=20)
    return _make(
        "lfm3_vl", text_config={**words, "model_type": "lfm3"}, vision_config=vision, projector_hidden_size=48,
        **_MARKS, **_IDS,
    )  # fmt: skip


def minicpm(kind: str = "minicpmv4_6") -> Any:
    vision = {**NARROW, "num_attention_heads": 2, "patch_size": 4, "image_size": 32, "insert_layer_id": 0}
    words = _words("qwen3_5_text", rope_parameters=_HALF, **_LINEAR, **_HEADS)
    marks = {"image_start_id": START, "image_end_id": END, "slice_start_id": 96, "slice_end_id": 97, "newline_id": 98}
    return _make(
        kind, text_config={**words, "model_type": "qwen3_5_text"}, vision_config=vision, insert_layer_id=0,
        **_IDS, **(marks if kind == "minicpmv4_7" else {}),
    )  # fmt: skip


def nemotron() -> Any:
    if OLD:
        pytest.skip("transformers before 5.23 gives plain networks a state that is never filled, which is refused")
    kinds = ["linear_attention", "full_attention", "moe", "mlp", "full_attention"]
    state = {"ssm_state_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "chunk_size": 8}
    state["time_step_min"] = 1e-9  # prompts of the stock model heed this least step, its decode steps do not
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    experts |= {"moe_shared_expert_intermediate_size": 24, "expand": 2}
    words = _words("nemotron_h", layers_block_type=kinds, layer_types=kinds, **state, **experts)
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4, "image_size": 32}
    vision |= {"max_img_size": 64, "model_type": "radio", "video_temporal_patch_size": 2}
    return _make(
        "nemotron_h_omni", text_config={**words, "model_type": "nemotron_h"}, vision_config=vision, audio_config=None,
        vision_hidden_size=32, projector_hidden_size=48, image_token_id=IMAGE, video_token_id=VIDEO,
    )  # fmt: skip


def qwen4() -> Any:
    """Layers 1 and 4 choose 2 of the pools of 3 keys; n-grams are added in front of layer 2."""
    if OLD:
        pytest.skip("transformers before 5.23 answers NaN for padded rows with eager attention, pruned or not")
    kinds = [kind.replace("full", "indexed") for kind in _LINEAR["layer_types"]]
    index = {"indexer_n_heads": 16, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 6}
    grams = {"ple_layer_ids": [3], "ple_embed_dim": 32, "ngram_size": 3, "heads_per_ngram": 2}
    grams |= {"ngram_vocab_size_base": 50, "split_ngram_parts": 1, "ple_conv_kernel_size": 2}
    experts = {**_EXPERTS, "shared_expert_intermediate_size": 24, "hc_count": 2, "hc_lowrank": 8}
    words = {**_LINEAR, **_HEADS, **index, **grams, **experts, "layer_types": kinds, "indexer_compress_ratio": 3}
    return _make(
        "qwen4_exp", text_config=_words("qwen4_exp_text", rope_parameters=_HALF, **words), vision_config=_VISION,
        **_MARKS, **_IDS,
    )  # fmt: skip


def glm5() -> Any:
    """Layers 1 and 4 choose 2 of the pools of 3 keys; three residual streams."""
    kinds = [kind.replace("full", "indexed") for kind in _LINEAR["layer_types"]]
    words = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "v_head_dim": 12, "layer_types": kinds}
    words |= {"index_topk": 6, "index_head_dim": 16, "index_n_heads": 16, "index_kpool": 3, "hc_mult": 3}
    words |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_key_value_heads": 4}
    words |= {"linear_head_dim": 8, "linear_num_heads": 2, "indexer_types": ["full"] * 5}
    vision = {**_MERGED, **_PATCHES, "image_size": 32, "projection_intermediate_size": 48}
    return _make("glm5_next", text_config=_words("glm5_next_text", **words), vision_config=vision, **_IDS)
