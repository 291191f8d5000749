"""Tiny configurations of every family: five narrow decoder layers behind a two-layer tower. Built anew at every call,
because models write into theirs."""

from __future__ import annotations

import inspect
from typing import Any

import transformers
from transformers import AutoConfig

IMAGE, VIDEO, PAD, START, END, VOCAB = 90, 91, 0, 92, 93, 100
LAYERS = 5
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
NARROW = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def text(kind: str, **changes: Any) -> Any:
    """A decoder of five layers."""
    base = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": PAD,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "head_dim": 16,
    }
    return AutoConfig.for_model(kind, **{**base, **changes})


def tower(kind: str = "clip_vision_model", size: int = 28, patch: int = 7, **changes: Any) -> Any:
    """A vision tower of two layers."""
    base = {**NARROW, "num_attention_heads": 4, "image_size": size, "patch_size": patch}
    if kind == "siglip_vision_model":
        base["vision_use_head"] = False
    return AutoConfig.for_model(kind, **{**base, **changes})


def llava(decoder: str = "llama", window: int | None = None, **changes: Any) -> Any:
    kind = {"sliding_window": window} if decoder == "mistral" else {}
    return transformers.LlavaConfig(
        text_config=text(decoder, **kind),
        vision_config=tower(),
        image_token_index=IMAGE,
        **{"vision_feature_layer": -2, **changes},
    )


def vipllava() -> Any:
    layers = [-2, -1]
    return transformers.VipLlavaConfig(
        text_config=text("llama"), vision_config=tower(), image_token_index=IMAGE, vision_feature_layers=layers
    )


def pixtral(cls: type, decoder: str = "mistral", **changes: Any) -> Any:
    """Encoders of pictures of any size: LLaVA with Pixtral, Mistral 3, LightOnOCR."""
    kind = {"sliding_window": None} if decoder == "mistral" else {}
    encoder = AutoConfig.for_model("pixtral", **NARROW, num_attention_heads=2, image_size=56, patch_size=7)
    return cls(text_config=text(decoder, **kind), vision_config=encoder, **changes)


def anyres(cls: type) -> Any:
    siglip = cls is transformers.LlavaOnevisionConfig
    return cls(
        text_config=text("qwen2" if siglip else "llama"),
        vision_config=tower("siglip_vision_model") if siglip else tower(),
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1 if siglip else -2,
        **({} if cls is transformers.LlavaNextConfig else {"video_token_index": VIDEO}),
    )


def video_llava() -> Any:
    tokens = {"image_token_index": IMAGE, "video_token_index": VIDEO}
    return transformers.VideoLlavaConfig(
        text_config=text("llama"), vision_config=tower(), vision_feature_layer=-2, **tokens
    )


def video_llava_pixels() -> str:
    """The argument that takes images; transformers 5.19 has a name of its own for it."""
    arguments = inspect.signature(transformers.VideoLlavaForConditionalGeneration.forward).parameters
    return "pixel_values" if "pixel_values" in arguments else "pixel_values_images"


def merged(cls: type, kind: str, decoder: dict[str, Any] | None = None, **encoder: Any) -> Any:
    """Families with `grid_thw` and merged patches."""
    heads = {"rope_parameters": MROPE, "num_attention_heads": 2, "num_key_value_heads": 1}
    words = text(kind, **{**heads, **(decoder or {})}).to_dict()
    words.pop("layer_types", None)
    base = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2}
    names = ("image", "video") if "Glm" in cls.__name__ else ("vision",)
    marks = {f"{name}_{side}_token_id": token for name in names for side, token in (("start", START), ("end", END))}
    return cls(
        text_config=words, vision_config={**base, **encoder}, image_token_id=IMAGE, video_token_id=VIDEO, **marks
    )


def qwen2() -> Any:
    return merged(transformers.Qwen2VLConfig, "qwen2_vl_text", depth=2, embed_dim=32, hidden_size=32, mlp_ratio=2)


def qwen2_5() -> Any:
    encoder = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 16}
    return merged(transformers.Qwen2_5_VLConfig, "qwen2_5_vl_text", fullatt_block_indexes=[1], **encoder)


def qwen3(moe: bool = False) -> Any:
    encoder = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    deep = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
    if not moe:
        return merged(transformers.Qwen3VLConfig, "qwen3_vl_text", **encoder, **deep)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
    return merged(transformers.Qwen3VLMoeConfig, "qwen3_vl_moe_text", experts, **encoder, **deep)


def glm(cls: type, kind: str = "glm4v_text", **decoder: Any) -> Any:
    encoder = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "image_size": 32}
    if kind != "glm4v_text":  # these turn half of a head
        decoder["rope_parameters"] = {**MROPE, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5}
    return merged(cls, kind, decoder, **encoder)


def glm_moe() -> Any:
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_shared_experts": 1}
    groups = {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
    return glm(transformers.Glm4vMoeConfig, "glm4v_moe_text", **experts, **groups)


def exaone() -> Any:
    encoder = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 16}
    merge = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "fullatt_block_indexes": [1]}
    return transformers.Exaone4_5_Config(
        text_config=text("exaone4", sliding_window=20),
        vision_config={**encoder, **merge, "num_heads": 2, "num_key_value_heads": 2},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def paddle() -> Any:
    encoder = {**NARROW, "num_attention_heads": 4, "image_size": 32, "patch_size": 4, "spatial_merge_size": 2}
    words = text("paddleocr_vl_text", rope_parameters=MROPE, num_attention_heads=2, num_key_value_heads=1).to_dict()
    words.pop("layer_types", None)
    marks = {"vision_start_token_id": START, "vision_end_token_id": END}
    return transformers.PaddleOCRVLConfig(
        text_config=words, vision_config=encoder, image_token_id=IMAGE, video_token_id=VIDEO, **marks
    )


def video_llama() -> Any:
    return transformers.VideoLlama3Config(
        text_config=text("qwen2"),
        vision_config={**NARROW, "num_attention_heads": 4, "patch_size": 4},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
    )


def internvl(cls: type = transformers.InternVLConfig, decoder: str = "qwen2") -> Any:
    encoder = {**NARROW, "num_attention_heads": 4, "image_size": [32, 32], "patch_size": [4, 4]}
    return cls(vision_config=encoder, text_config=text(decoder), image_token_id=IMAGE, image_seq_length=16)


def ovis() -> Any:
    encoder = {**NARROW, "num_attention_heads": 4, "image_size": 28, "patch_size": 7, "hidden_stride": 1}
    marks = {"visual_indicator_token_ids": [START, END], "vocab_size": VOCAB, "hidden_size": 32}
    return transformers.Ovis2Config(
        text_config=text("qwen2"),
        vision_config={**encoder, "vocab_size": 20, "num_visual_indicator_tokens": 2},
        image_token_id=IMAGE,
        **marks,
    )


def got() -> Any:
    encoder = {"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    size = {"image_size": 256, "patch_size": 16, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 48}
    return transformers.GotOcr2Config(
        vision_config={**encoder, **size}, text_config=text("qwen2"), image_token_index=IMAGE, image_seq_length=16
    )


def shuffled(cls: type, decoder: str, **changes: Any) -> Any:
    """SigLIP, then 2 x 2 patches shuffled into one token."""
    kind = {"sliding_window": 20} if decoder == "cohere2" else {}
    return cls(
        vision_config=tower("siglip_vision_model", 32, 4),
        text_config=text(decoder, **kind),
        downsample_factor=2,
        **changes,
    )


def idefics(cls: type) -> Any:
    encoder = {**NARROW, "num_attention_heads": 4, "image_size": 32, "patch_size": 4}
    return cls(vision_config=encoder, text_config=text("llama"), image_token_id=IMAGE, scale_factor=2)


def deepseek() -> Any:
    encoder = tower("siglip_vision_model")
    return transformers.DeepseekVLConfig(text_config=text("llama"), vision_config=encoder, image_token_id=IMAGE)


def paligemma(decoder: str = "gemma") -> Any:
    return transformers.PaliGemmaConfig(
        vision_config=tower("siglip_vision_model", projection_dim=32),
        text_config=text(decoder, **({"sliding_window": 12} if decoder == "gemma2" else {})),
        image_token_index=IMAGE,
        projection_dim=32,
        hidden_size=32,
        vocab_size=VOCAB,
    )


def gemma3() -> Any:
    # Full attention stands in layer 3 alone: masks are sized from a layer that is pruned.
    types = ["sliding_attention"] * 3 + ["full_attention", "sliding_attention"]
    return transformers.Gemma3Config(
        vision_config=tower("siglip_vision_model", 32, 4),
        text_config=text("gemma3_text", sliding_window=12, layer_types=types),
        image_token_index=IMAGE,
        mm_tokens_per_image=16,
        boi_token_index=START,
        eoi_token_index=END,
    )
