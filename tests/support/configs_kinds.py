"""Tiny configurations of families whose layers share keys, see chunks of the sequence, or get features added."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.configs import END, IMAGE, MROPE, NARROW, PINPOINTS, START, VIDEO, VOCAB, text, tower
from tests.support.configs_more import _IDS, _MARKS, _make, _words, gemma4
from tests.support.versions import OLD, RELEASE
from transformers import AutoConfig

_SQUARE = {**NARROW, "num_attention_heads": 2, "image_size": 32, "patch_size": 4}


def gemma3n() -> Any:
    """With a ConvNeXt in place of the network from timm: it gives a map, too. Layers 3 and 4 read keys of 1 and 2."""
    types = ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    words = {"layer_types": types, "num_kv_shared_layers": 2, "sliding_window": 12, "altup_num_inputs": 3}
    words |= {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB, "laurel_rank": 8}
    words |= {"intermediate_size": 48, "activation_sparsity_pattern": None}
    vision = AutoConfig.for_model("convnext", hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4)
    for name, value in {"hidden_size": 32, "rms_norm_eps": 1e-6, "vocab_offset": 200, "vocab_size": 4}.items():
        setattr(vision, name, value)
    audio = {"hidden_size": 16, "conf_num_hidden_layers": 1, "conf_num_attention_heads": 2, "vocab_offset": 210}
    audio |= {"vocab_size": 4, "sscp_conv_channel_size": (4, 4), "input_feat_size": 16}
    config = _make(
        "gemma3n", text_config=_words("gemma3n_text", **words), audio_config=audio, vision_soft_tokens_per_image=16,
        image_token_id=IMAGE, audio_token_id=95, boi_token_id=START, eoi_token_id=END,
    )  # fmt: skip
    vars(config)["vision_config"] = vision  # not checked for its type
    return config


def gemma4_shared(kind: str = "gemma4") -> Any:
    """Layers 3 and 4 read the keys of 2 and 1."""
    types = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    return gemma4(kind, layer_types=types, num_kv_shared_layers=2)


def llama4() -> Any:
    """Chunks of 12 places; layers 1 and 4 see everything, without rotation."""
    if RELEASE == (5, 24):
        pytest.skip("transformers 5.24.0 cannot run Llama 4 itself: its output has no image_outputs")
    return llama4_config()


def llama4_config() -> Any:
    chunk, full = "chunked_attention", "full_attention"
    words = {"layer_types": [chunk, full, chunk, chunk, full], "no_rope_layers": [1, 0, 1, 1, 0]}
    words |= {"attention_chunk_size": 12, "num_local_experts": 4, "intermediate_size_mlp": 48, "moe_layers": [1, 3]}
    vision = {**_SQUARE, "intermediate_size": 128, "vision_output_dim": 32, "projector_input_dim": 32}
    vision |= {"projector_output_dim": 32}
    return _make(
        "llama4", text_config=_words("llama4_text", **words), vision_config=vision, image_token_index=IMAGE,
        boi_token_index=START, eoi_token_index=END,
    )  # fmt: skip


def granite4() -> Any:
    """Features are added in front of layers 0 to 4, in places where rows are gone by then, too."""
    vision = tower("siglip_vision_model", hidden_size=64, num_attention_heads=1)
    return _make(
        "granite4_vision", text_config=_words("granite4_vision_text"), vision_config=vision, image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS, downsample_rate="1/2", deepstack_layer_map=[[-1, 0]],
        spatial_target_layers=[1, 2, 3, 4], vision_feature_select_strategy="full",
        qformer_config={"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 48,
                        "hidden_size": 64, "encoder_hidden_size": 64, "num_attention_heads": 1,
                        "cross_attention_frequency": 1, "use_qformer_text_input": False},
    )  # fmt: skip


def apertus() -> Any:
    vision = {"codebook_size": 40, "embed_dim": 8, "latent_channels": 8, "base_channels": 32, "num_res_blocks": 1}
    vision |= {"channel_multiplier": [1, 1, 1], "attn_resolutions": []}
    audio = {
        "model_type": "wavtokenizer_encoder",
        "codebook_size": 4,
        "hidden_size": 8,
        "codebook_dim": 8,
        "num_filters": 2,
    }
    return _make(
        "apertus1p5", text_config=_words("apertus1p5_text", vocab_size=VOCAB), vision_config=vision,
        audio_config=audio, image_token_id=IMAGE, audio_token_id=95, image_token_offset=5, audio_token_offset=45,
    )  # fmt: skip


def fuyu() -> Any:
    if OLD:
        pytest.skip("transformers before 5.23: Fuyu takes its pictures under another name, and they are refused")
    words = text("persimmon", head_dim=8).to_dict()
    return _make("fuyu", text_config=words, patch_size=4, image_size=32, image_token_id=IMAGE)


def inkling() -> Any:
    """Distances up to 12 are told apart, windows of 12 places; patches of 4 x 4 pixels, twice."""
    types = ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid", "hybrid"]
    words = {"layer_types": types, "sliding_window_size": 12, "rel_extent": 24, "d_rel": 4, "conv_kernel_size": 3}
    words |= {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "head_dim": 8}
    words |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1}
    words |= {"mlp_layer_types": ["dense", "sparse", "sparse", "dense", "sparse"], "logits_mup_width_multiplier": 1.0}
    vision = {"patch_size": 4, "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 2}
    return _make(
        "inkling_mm_model", text_config=_words("inkling_text", **words),
        vision_config=vision, audio_config={"n_mel_bins": 4, "mel_vocab_size": 4}, image_token_id=IMAGE,
        audio_token_id=95, image_bos_token_id=START, audio_bos_token_id=END,
    )  # fmt: skip


_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
_INDEX = {"index_topk": 8, "index_head_dim": 16, "index_n_heads": 16}  # most queries see more keys; scores do not tie
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1}


def dots3() -> Any:
    """Layers 0, 1 and 4 choose 8 keys; 2 and 3 slide, with heads of another width."""
    types = ["indexed_attention", "indexed_attention", "sliding_attention", "sliding_attention", "indexed_attention"]
    words = {**_LATENT, **_INDEX, **_ROUTED, "layer_types": types, "sliding_window": 12, "head_dim": 16}
    words |= {
        "num_key_value_heads": 4,
        "swa_num_attention_heads": 2,
        "swa_num_key_value_heads": 2,
        "mlp_layer_types": None,
    }
    words |= {"swa_q_lora_rank": 16, "swa_kv_lora_rank": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8}
    words |= {"swa_v_head_dim": 12, "shared_experts_intermediate_size": 24}
    vision = {**NARROW, "num_attention_heads": 2, "patch_size": 4, "adapter_in_dim": 32, "adapter_out_dim": 32}
    vision |= {"moe_intermediate_size": 24, "pyramid_num_routed": [-1, -1]}
    audio = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio |= {"downsample_hidden_size": 4, "adapter_input_size": 16, "adapter_out_dim": 32, "feature_size": 16}
    return _make(
        "dots3_note", text_config=_words("dots3_note_text", **words), vision_config=vision, audio_config=audio,
        audio_token_id=95, **_IDS,
    )  # fmt: skip


def mistral_large4() -> Any:
    """Layer 1 goes by the keys and the choice of layer 0, layer 3 by the keys of layer 2."""
    words = {**_LATENT, **_INDEX, **_ROUTED, "kv_source_layers": [0, 0, 2, 2, 4], "num_key_value_heads": 4}
    words |= {"indexer_types": ["full", "shared", "full", "full", "full"], "no_rope_layers": [1, 1, 1, 1, 0]}
    del words["q_lora_rank"]
    rope = {"rope_type": "default", "rope_theta": 1e4}
    encoder = AutoConfig.for_model("pixtral", **NARROW, num_attention_heads=2, image_size=56, patch_size=7)
    return _make(
        "mistral_large4", text_config=_words("mistral_large4_text", rope_parameters=rope, **words),
        vision_config=encoder, image_token_index=IMAGE, spatial_merge_size=2,
    )  # fmt: skip


def hy_v4() -> Any:
    """Layer 1 goes by the choice of layer 0; three residual streams."""
    words = {**_LATENT, **_INDEX, **_ROUTED, "num_key_value_heads": 4, "hc_mult": 3}
    words |= {"indexer_types": ["full", "shared", "full", "full", "full"]}
    words |= {"rope_parameters": {**MROPE, "mrope_section": [2, 1, 1]}}
    vision = {**NARROW, "num_attention_heads": 2, "patch_size": 4, "out_hidden_size": 32, "max_image_size": 64}
    return _make("hy_v4_vl", text_config=_words("hy_v4_vl_text", **words), vision_config=vision, **_MARKS, **_IDS)


def minimax() -> Any:
    """Layers 1, 2 and 4 see two blocks of 3 keys and the one that they are in."""
    sparse, full = "minimax_m3_sparse", "full_attention"
    words = {"layer_types": [full, sparse, sparse, full, sparse], "index_n_heads": 2, "index_head_dim": 16}
    words |= {"index_block_size": 3, "index_topk_blocks": 3, "rotary_dim": 8, "num_local_experts": 4}
    words |= {"num_experts_per_tok": 2, "shared_intermediate_size": 24, "dense_intermediate_size": 48}
    vision = {**NARROW, "num_attention_heads": 2, "image_size": 32, "patch_size": 4, "head_dim": 16}
    return _make(
        "minimax_m3_vl", text_config=_words("minimax_m3_vl_text", **words), vision_config=vision,
        projector_hidden_size=48, image_token_index=IMAGE, video_token_index=VIDEO,
    )  # fmt: skip


def unlimited() -> Any:
    """Every token sees the whole prompt and 2 of the tokens that were generated."""
    sam = {**NARROW, "num_attention_heads": 2, "image_size": 32, "patch_size": 4, "output_channels": 16, "mlp_dim": 32}
    sam |= {"initializer_range": 0.2, "window_size": 4, "global_attn_indexes": [1], "downsample_channels": [16, 32]}
    clip = {**NARROW, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    words = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1}
    words |= {"sliding_window": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
    return _make(
        "unlimited_ocr", text_config=_words("unlimited_ocr_text", **words), image_token_id=IMAGE,
        vision_config={"sam_config": sam, "encoder_config": clip},
    )  # fmt: skip
