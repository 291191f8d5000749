"""More tiny configurations, of families with `image_grid_thw` and of those that pack a picture in their own way."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from tests.support.configs import END, IMAGE, MROPE, NARROW, START, VIDEO, VOCAB, text, tower
from tests.support.versions import OLD
from transformers import CONFIG_MAPPING, AutoConfig

_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
_MERGED = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "num_heads": 2}
_PATCHES = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
_DEEP = {"depth": 4, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
_MARKS = {"vision_start_token_id": START, "vision_end_token_id": END}
_IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}


def _known(kind: str) -> None:
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")


def _words(kind: str, **changes: Any) -> dict[str, Any]:
    """As a dictionary, which every family makes its own configuration of."""
    _known(kind)
    words: dict[str, Any] = text(kind, **changes).to_dict()
    if "layer_types" not in changes:
        words.pop("layer_types", None)
    return words


def _make(kind: str, **parts: Any) -> Any:
    _known(kind)
    return AutoConfig.for_model(kind, **parts)


def hyperclovax() -> Any:
    vision = {**_MERGED, **_PATCHES, "window_size": 16, "fullatt_block_indexes": [1], "model_type": "qwen2_5_vl_vision"}
    return _make("hyperclovax_vision_v2", text_config=text("hyperclovax"), vision_config=vision, **_IDS)


def kimi() -> Any:
    """Latent attention: keys and values of different width."""
    latent = {
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "head_dim": 8,
    }
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1}
    groups = {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4}
    vision = {**NARROW, "num_attention_heads": 2, "patch_size": 4, "pos_emb_height": 8, "pos_emb_width": 8}
    words = _words("deepseek_v3", **latent, **experts, **groups)
    return _make("kimi_k25", text_config=words, vision_config=vision, projection_hidden_size=32, **_MARKS, **_IDS)


def cosmos_edge() -> Any:
    vision = {**NARROW, "num_attention_heads": 2, "patch_size": 4, "num_patches": 64, "spatial_merge_size": 2}
    words = _words("cosmos3_edge_text", rope_parameters=MROPE, **_HEADS)
    return _make("cosmos3_edge", text_config=words, vision_config=vision, projector_hidden_size=48, **_MARKS, **_IDS)


def cosmos_omni() -> Any:
    words = _words("qwen3_vl_text", rope_parameters=MROPE, **_HEADS)
    return _make("cosmos3_omni", text_config=words, vision_config={**_MERGED, **_PATCHES, **_DEEP}, **_MARKS, **_IDS)


def compass() -> Any:
    """Sliding windows with rotary positions, full attention without any."""
    types = ["sliding_attention"] * 3 + ["full_attention", "sliding_attention"]
    rope = {"sliding_attention": MROPE, "full_attention": None}
    words = _words("cohere_compass_text", layer_types=types, sliding_window=20, rope_parameters=rope, **_HEADS)
    return _make("cohere_compass", text_config=words, vision_config={**_MERGED, **_PATCHES, **_DEEP}, **_MARKS, **_IDS)


def muse(kind: str, **more: Any) -> Any:
    vision = {**NARROW, "num_attention_heads": 2, "patch_size": 4, "pos_emb_height": 8, "pos_emb_width": 8}
    words = _words(f"{kind}_text", sliding_window=20, **more.pop("words", {}))
    return _make(
        kind, text_config=words, vision_config=vision, out_hidden_size=128, projector_hidden_size=32, **_IDS, **more
    )


def muse_spark() -> Any:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "moe_hidden_size": 24}
    sound = {"patch_sizes": [4, 4], "hidden_sizes": [8, 16], "depths": [1, 1], "num_hidden_layers": 2}
    return muse("muse_spark", words=experts, audio_config={**sound, "out_hidden_size": 32})


def qwen_omni() -> Any:
    sound = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32, "output_dim": 32}
    vision = {**_MERGED, **_PATCHES, "window_size": 16, "fullatt_block_indexes": [1]}
    words = _words("qwen2_5_omni_text", rope_parameters=MROPE, **_HEADS)
    ids = {"image_token_index": IMAGE, "video_token_index": VIDEO, "audio_token_index": 94}
    ids |= {"vision_start_token_id": START, "audio_start_token_id": 95, "audio_end_token_id": 96}
    return _make("qwen2_5_omni_thinker", text_config=words, vision_config=vision, audio_config=sound, **ids)


def qwen_omni_moe() -> Any:
    sound = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32, "output_dim": 32}
    sound |= {"downsample_hidden_size": 8}
    vision = {**_MERGED, **_PATCHES, **_DEEP}
    words = _words("qwen3_omni_moe_text", rope_parameters=MROPE, **_EXPERTS, **_HEADS)
    ids = {**_IDS, "audio_token_id": 94, "vision_start_token_id": START, "audio_start_token_id": 95}
    return _make("qwen3_omni_moe_thinker", text_config=words, vision_config=vision, audio_config=sound, **ids)


def deepseek_hybrid() -> Any:
    sam = {"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_dim": 48}
    size = {"image_size": 56, "patch_size": 7, "window_size": 4, "global_attn_indexes": [1]}
    return _make(
        "deepseek_vl_hybrid",
        text_config=text("llama"),
        vision_config=tower("siglip_vision_model"),
        high_res_vision_config={**sam, **size},
        image_token_id=IMAGE,
    )


def janus() -> Any:
    vision = {**NARROW, "num_attention_heads": 4, "image_size": 28, "patch_size": 7, "projection_dim": 32, "depth": 2}
    words = {"embed_dim": 8, "num_embeddings": 16, "base_channels": 32, "channel_multiplier": [1], "num_patches": 4}
    return _make(
        "janus",
        text_config=text("llama"),
        vision_config=vision,
        vq_config={**words, "num_res_blocks": 1, "projection_dim": 32, "image_token_embed_dim": 32},
        image_token_id=IMAGE,
    )


def ernie() -> Any:
    experts = {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": [24, 16], "moe_num_shared_experts": 1}
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": 4}
    words = _words("ernie4_5_vl_moe_text", rope_parameters={**MROPE, "mrope_section": [3, 3, 2]}, **experts)
    marks = {f"{n}_{side}_token_id": t for n in ("image", "video") for side, t in (("start", START), ("end", END))}
    return _make("ernie4_5_vl_moe", text_config=words, vision_config=vision, **marks, **_IDS)


def granite_docling() -> Any:
    vision = {**NARROW, "num_attention_heads": 4, "image_size": 32, "patch_size": 4, "out_hidden_size": 32}
    deep = {"num_hidden_layers": 4, "deepstack_visual_indexes": [0, 1, 2], "scale_factor": 2, "use_fine_route": False}
    scale = {"embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 0.25}
    words = _words("granite_docling_text", **scale)
    return _make("granite_docling", text_config=words, vision_config={**vision, **deep}, image_token_id=IMAGE)


def hunyuan() -> Any:
    vision = {**NARROW, "num_attention_heads": 4, "patch_size": 4, "out_hidden_size": 32, "max_image_size": 64}
    words = _words(
        "hunyuan_vl_text", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2] * 4}
    )
    return _make("hunyuan_vl", text_config=words, vision_config=vision, image_token_id=IMAGE)


def _codebook(**more: Any) -> dict[str, Any]:
    sizes = {"embed_dim": 8, "base_channels": 32, "channel_multiplier": [1, 1, 1], "num_res_blocks": 1}
    return {**sizes, "latent_channels": 8, **more}


def emu() -> Any:
    words = {f"<|visual token {i:06d}|>": 10 + i for i in range(8)}
    marks = {"<image>": IMAGE, "<|extra_200|>": 19}
    vq = _codebook(codebook_size=8, hidden_size=32, attn_resolutions=[], temporal_downsample_factor=1)
    return _make("emu3", text_config=_words("emu3_text_model"), vq_config=vq, vocabulary_map={**words, **marks})


def chameleon() -> Any:
    words = {f"IMGIMG{c}Z": 10 + i for i, c in enumerate("ABCDEFGH")}
    vq = _codebook(num_embeddings=8, resolution=16, attn_resolutions=[])
    base = text("llama").to_dict()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    plain = {name: base[name] for name in (*names, "max_position_embeddings", "pad_token_id")}
    return _make("chameleon", **plain, vocab_size=VOCAB, vq_config=vq, vocabulary_map={**words, "<image>": IMAGE})


def molmo() -> Any:
    vision = {**NARROW, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "image_size": [28, 28]}
    adapter = {"vision_feature_layer": [-1, 0], "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    adapter |= {"head_dim": 16, "intermediate_size": 48, "text_hidden_size": 32}
    words = _words("molmo2_text", additional_vocab_size=8)
    ids = {"image_patch_id": IMAGE, "image_start_token_id": START, "image_end_token_id": END}
    return _make("molmo2", text_config=words, vision_config={**vision, "patch_size": 7}, adapter_config=adapter, **ids)


def step() -> Any:
    vision = {**NARROW, "num_attention_heads": 2, "image_size": 64, "patch_size": 4, "mlp_ratio": 1.5}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "share_expert_dim": 24}
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    words = _words(
        "step3p5", layer_types=kinds, sliding_window=20, mlp_layer_types=["dense"] + ["sparse"] * 4, **experts
    )
    return _make("step3p7", text_config=words, vision_config=vision, image_token_id=IMAGE)


def gemma4(kind: str = "gemma4", **words: Any) -> Any:
    """Sliding layers see pictures in both directions; full attention has wider heads."""
    types = ["sliding_attention"] * 3 + ["full_attention", "full_attention"]
    base = {"sliding_window": 12, "global_head_dim": 24, "vocab_size_per_layer_input": VOCAB}
    base |= {"use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 8, "layer_types": types}
    vision = {**NARROW, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4}
    vision |= {"pooling_kernel_size": 2, "position_embedding_size": 64}
    marks = {"boi_token_id": START, "eoi_token_id": END, "audio_token_id": 94}
    return _make(
        kind,
        text_config=_words(f"{kind}_text", **{**base, **words}),
        vision_config=vision,
        audio_config=None,
        **marks,
        **_IDS,
    )


def gemma4_video() -> Any:
    if OLD:
        pytest.skip("transformers before 5.23: forward of Gemma 4 is not told how many frames a video has")
    return gemma4()


def perception() -> Any:
    """With a CLIP tower in place of the one from timm: the same tokens, CLS first."""
    vision = tower(model_args={"embed_dim": 32})
    return _make("perception_lm", text_config=text("llama"), vision_config=vision, **_IDS)


def fast_vlm() -> Any:
    """With a ConvNeXt in place of the network from timm: it gives a map, too."""
    vision = AutoConfig.for_model("convnext", hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4)
    vision.hidden_size = 32
    return _make("fast_vlm", text_config=text("qwen2"), vision_config=vision, image_token_index=IMAGE)
