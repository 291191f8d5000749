"""Tiny random models of every family, and prompts for them: from configurations, never from a hub."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from tests.support import blocks, configs
from tests.support import configs_hybrid as hybrid
from tests.support import configs_kinds as kinds
from tests.support import configs_more as more
from tests.support.configs import END, IMAGE, LAYERS, PAD, START, VIDEO
from tests.support.family import Family, Prompt
from tests.support.slowly import the_rest_slowly

__all__ = [
    "END", "FAMILIES", "FOUNDATION", "IMAGE", "LAYERS", "OF_EACH_KIND", "PAD", "START", "VIDEO", "Family", "Prompt",
    "of_each_kind", "of_each_pair", "tiny",
]  # fmt: skip

_llava = configs.llava
_plane: dict[str, Any] = {"marked": True, "types": "mm_token_type_ids"}
_experts = {"experts_implementation": "eager"}  # the grouped product knows no float64
_gemma: dict[str, Any] = {"types": "token_type_ids", "bare": True}

FAMILIES = {
    family.name: family
    for family in (
        Family("llava", _llava, blocks.square()),
        Family("llava-cls", partial(_llava, vision_feature_select_strategy="full"), blocks.square(tokens=17)),
        Family("llava-mistral", partial(_llava, "mistral", 12), blocks.square(), sliding=True),
        Family(
            "llava-pixtral",
            partial(
                configs.pixtral,
                transformers.LlavaConfig,
                image_token_index=IMAGE,
                vision_feature_layer=-1,
                vision_feature_select_strategy="full",
            ),
            blocks.any_size(24),
        ),
        Family("vipllava", configs.vipllava, blocks.square()),
        Family("llava_next", partial(configs.anyres, transformers.LlavaNextConfig), blocks.anyres),
        Family("llava_next_video", partial(configs.anyres, transformers.LlavaNextVideoConfig), blocks.frames(12)),
        Family("llava_onevision", partial(configs.anyres, transformers.LlavaOnevisionConfig), blocks.anyres),
        Family("llava_onevision-video", partial(configs.anyres, transformers.LlavaOnevisionConfig), blocks.frames(13)),
        Family("video_llava", configs.video_llava, blocks.square(key=configs.video_llava_pixels())),
        Family("video_llava-video", configs.video_llava, blocks.frames(51)),
        Family("qwen2_vl", configs.qwen2, blocks.patches, **_plane),
        Family("qwen2_vl-video", configs.qwen2, blocks.patch_frames, **_plane),
        Family("qwen2_5_vl", configs.qwen2_5, blocks.patches, **_plane),
        Family("qwen3_vl", configs.qwen3, blocks.patches, **_plane),
        Family("qwen3_vl_moe", partial(configs.qwen3, moe=True), blocks.patches, options=_experts, **_plane),
        Family("glm4v", partial(configs.glm, transformers.Glm4vConfig), blocks.patches, **_plane),
        Family("glm46v", partial(configs.glm, transformers.Glm46VConfig), blocks.patches, **_plane),
        Family("glm4v_moe", configs.glm_moe, blocks.patches, options=_experts, **_plane),
        Family("glm_ocr", partial(configs.glm, transformers.GlmOcrConfig, "glm_ocr_text"), blocks.patches, **_plane),
        Family("exaone4_5", configs.exaone, blocks.patches, sliding=True),
        Family("paddleocr_vl", configs.paddle, blocks.flat_patches(), **_plane),
        Family(
            "video_llama_3",
            configs.video_llama,
            blocks.flat_patches(square=False, image_merge_sizes=torch.tensor([2])),
        ),
        Family(
            "mistral3",
            partial(configs.pixtral, transformers.Mistral3Config, image_token_index=IMAGE, spatial_merge_size=2),
            blocks.merged_size,
        ),
        Family(
            "lighton_ocr",
            partial(configs.pixtral, transformers.LightOnOcrConfig, "qwen3", image_token_id=IMAGE),
            blocks.merged_size,
        ),
        Family("internvl", configs.internvl, blocks.tiles),
        Family("qianfan_ocr", partial(configs.internvl, transformers.QianfanOCRConfig, "qwen3"), blocks.tiles),
        Family("ovis2", configs.ovis, blocks.square()),
        Family("got_ocr2", configs.got, blocks.square(256), attentions=("eager",)),
        Family(
            "aya_vision",
            partial(configs.shuffled, transformers.AyaVisionConfig, "cohere2", image_token_index=IMAGE),
            blocks.tiles,
            sliding=True,
        ),
        Family(
            "cohere2_vision",
            partial(configs.shuffled, transformers.Cohere2VisionConfig, "cohere2", image_token_id=IMAGE),
            blocks.tiles,
            sliding=True,
        ),
        Family("deepseek_vl", configs.deepseek, blocks.square()),
        Family("idefics3", partial(configs.idefics, transformers.Idefics3Config), blocks.sample, grouped=True),
        Family("smolvlm", partial(configs.idefics, transformers.SmolVLMConfig), blocks.sample, grouped=True),
        Family("paligemma", configs.paligemma, blocks.square(), **_gemma),
        Family(
            "paligemma2",
            partial(configs.paligemma, "gemma2"),
            blocks.square(),
            sliding=True,
            attentions=("eager",),
            **_gemma,
        ),
        Family("gemma3", configs.gemma3, blocks.square(32), marked=True, types="token_type_ids", sliding=True),
        Family("gemma4", more.gemma4, blocks.placed(), sliding=True, **_plane),
        Family("gemma4-video", more.gemma4_video, blocks.placed(frames=2), apart=2, sliding=True, **_plane),
        Family("gemma4_unified", partial(more.gemma4, "gemma4_unified"), blocks.placed(1), sliding=True, **_plane),
        Family("qwen3_vl-video", configs.qwen3, blocks.patch_frames, apart=3, **_plane),
        Family("qwen2_5_omni_thinker", more.qwen_omni, blocks.patches, marked=True),
        Family("qwen3_omni_moe_thinker", more.qwen_omni_moe, blocks.patches, marked=True, options=_experts),
        Family("hyperclovax_vision_v2", more.hyperclovax, blocks.patches),
        Family("kimi_k25", more.kimi, blocks.flat_patches(), options=_experts),
        Family("cosmos3_edge", more.cosmos_edge, blocks.flat_patches(square=False), **_plane),
        Family("cosmos3_omni", more.cosmos_omni, blocks.patches, **_plane),
        Family("cohere_compass", more.compass, blocks.patches, sliding=True, **_plane),
        Family("muse_glimmer", partial(more.muse, "muse_glimmer"), blocks.patches, sliding=True),
        Family("muse_spark", more.muse_spark, blocks.patches, sliding=True, options=_experts),
        Family(
            "ernie4_5_vl_moe",
            more.ernie,
            blocks.flat_patches(square=False),
            marked=True,
            types="mm_token_type_ids moe_mm_token_type_ids",
            options=_experts,
        ),
        Family("hunyuan_vl", more.hunyuan, blocks.framed_rows, counts=True, **_plane),
        Family("molmo2", more.molmo, blocks.pooled, finish=blocks.offset_pooling, **_plane),
        Family("step3p7", more.step, blocks.crops, sliding=True, options=_experts),
        Family("emu3", more.emu, blocks.coded_rows),
        Family("chameleon", more.chameleon, blocks.square(16)),
        Family("deepseek_vl_hybrid", more.deepseek_hybrid, blocks.twice),
        Family("janus", more.janus, blocks.square()),
        Family("granite_docling", more.granite_docling, blocks.masked_sample, grouped=True),
        Family("perception_lm", more.perception, blocks.two_tiles),
        Family("qwen3_5", hybrid.qwen3_5, blocks.patches, **_plane),
        Family("qwen3_5_moe", partial(hybrid.qwen3_5, moe=True), blocks.patches, options=_experts, **_plane),
        Family("lfm2_vl", hybrid.lfm2, blocks.shaped),
        Family("lfm3_vl", hybrid.lfm3, blocks.patches, sliding=True),
        Family("minicpmv4_6", hybrid.minicpm, blocks.packed(4), along=3),
        Family("minicpmv4_7", partial(hybrid.minicpm, "minicpmv4_7"), blocks.packed(4), along=3, **_plane),
        Family("minicpm_ocr", partial(hybrid.minicpm, "minicpm_ocr"), blocks.packed(2), along=3),
        Family("nemotron_h_omni", hybrid.nemotron, blocks.flat_grid, options=_experts),
        Family(
            "gemma3n",
            kinds.gemma3n,
            blocks.square(32),
            marked=True,
            sliding=True,
            readers=(3, 4),
            streams=0,
            encoder="eager",
        ),
        Family("gemma4-shared", kinds.gemma4_shared, blocks.placed(), sliding=True, sites=(0, 1, 2), **_plane),
        Family("llama4", kinds.llama4, blocks.square(32), marked=True, sliding=True),
        Family("granite4_vision", kinds.granite4, blocks.downsampled),
        Family("apertus1p5", kinds.apertus, blocks.mapped, encoder="eager"),
        Family(
            "dots3_note", kinds.dots3, blocks.flat_patches(square=False), sliding=True, untapped=True, options=_experts
        ),
        Family(
            "hy_v4_vl",
            kinds.hy_v4,
            blocks.closed_rows,
            sites=(0, 2, 3, 4),
            streams=2,
            untapped=True,
            options=_experts,
            attentions=("eager",),
            **_plane,
        ),
        Family(
            "mistral_large4",
            kinds.mistral_large4,
            blocks.merged_size,
            sites=(0, 2, 4),
            readers=(1, 3),
            options=_experts,
        ),
        Family("inkling_mm_model", kinds.inkling, blocks.padded, sliding=True, options=_experts),
        Family("fuyu", kinds.fuyu, blocks.three_rows, apart=3, closed=True, along=1),
        Family("qwen4_exp", hybrid.qwen4, blocks.patches, options=_experts, **_plane),
        Family("glm5_next", hybrid.glm5, blocks.patches, streams=2, untapped=True, options=_experts, **_plane),
        Family("minimax_m3_vl", kinds.minimax, blocks.patches, untapped=True, alone=True, options=_experts),
        Family(
            "unlimited_ocr", kinds.unlimited, blocks.tiled_plane, sliding=True, options=_experts, finish=blocks.listed
        ),
        Family("fast_vlm", more.fast_vlm, blocks.square(32), encoder="eager"),
    )
}

FOUNDATION = ("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl")

OF_EACH_KIND = {  # one family for every way in which the engine or an adapter treats some of them apart
    *FOUNDATION, "qwen3_vl", "qwen2_vl-video", "llava-mistral", "gemma3", "gemma3n", "gemma4-shared", "internvl",
    "idefics3", "paligemma2", "video_llava", "ernie4_5_vl_moe", "hunyuan_vl", "qwen3_5", "lfm2_vl", "nemotron_h_omni",
    "dots3_note", "mistral_large4", "llama4", "granite4_vision", "minimax_m3_vl", "glm5_next", "unlimited_ocr",
    "inkling_mm_model", "fuyu",
}  # fmt: skip


def of_each_kind(names: Iterable[str]) -> list[Any]:
    """Parameters of a test: one family of each kind always, those that run the same code when slow tests run, too."""
    return the_rest_slowly(names, OF_EACH_KIND)


def of_each_pair() -> list[Any]:
    """Parameters `name, attention`: every family with its first backend always, one of each kind with all."""
    pairs = [(family.name, attention) for family in FAMILIES.values() for attention in family.attentions]
    always = {pair for pair in pairs if pair[0] in OF_EACH_KIND or pair[1] == FAMILIES[pair[0]].attentions[0]}
    return [pair if pair in always else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


@functools.cache
def tiny(name: str, attention: str = "") -> tuple[Family, Any]:
    """A family and its model, built once. Eager attention softmaxes in float32, so that its model is float32."""
    family = FAMILIES[name]
    attention = attention or family.attentions[0]
    return family, family.model(attention, torch.float64 if attention == "sdpa" else torch.float32)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
