"""Tiny random models of every family, and prompts for them: from configurations, never from a hub."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from tests.support import blocks, configs
from tests.support.blocks import Blocks, Payload
from tests.support.configs import END, IMAGE, LAYERS, PAD, START, VIDEO
from torch import Tensor
from transformers import AutoModelForImageTextToText

__all__ = ["END", "FAMILIES", "FOUNDATION", "IMAGE", "LAYERS", "PAD", "START", "VIDEO", "Family", "Prompt", "tiny"]


@dataclass
class Prompt:
    """One row: token ids, and the pictures in it."""

    ids: Tensor  # [s]
    tokens: list[int] = field(default_factory=list)  # of every picture
    payload: list[Payload] = field(default_factory=list)

    @property
    def places(self) -> list[Tensor]:
        """[n] places of every picture's tokens, by counting placeholders: no code shared with the library."""
        visual = ((self.ids == IMAGE) | (self.ids == VIDEO)).nonzero().flatten()
        return list(visual.split(self.tokens)) if self.tokens else []


@dataclass(frozen=True)
class Family:
    """How to build a tiny model of a family and its prompts."""

    name: str
    config: Callable[[], Any]
    block: Blocks
    marked: bool = False  # pictures stand between start and end tokens
    types: str = ""  # the name of the tensor that tells pictures from text
    bare: bool = False  # pictures first, then text
    grouped: bool = False  # pixels are grouped by row
    sliding: bool = False
    attentions: tuple[str, ...] = ("sdpa", "eager")
    options: dict[str, Any] = field(default_factory=dict)  # of from_config

    def model(self, attention: str = "sdpa", dtype: torch.dtype = torch.float64) -> Any:
        """Random weights that attend sharply, so that dropping tokens changes the answer."""
        torch.manual_seed(0)
        options = {"attn_implementation": attention, **self.options}
        model = AutoModelForImageTextToText.from_config(self.config(), **options).to(dtype).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(0, 0.16)
        model.generation_config.pad_token_id = PAD
        model.generation_config.eos_token_id = None
        return model

    def prompt(self, seed: int, pictures: int, tail: int = 6) -> Prompt:
        """Three words, `pictures` pictures with two words after each, `tail` words."""
        generator = torch.Generator().manual_seed(seed)
        words = functools.partial(_words, generator)
        parts, out = ([] if self.bare else [words(3)]), Prompt(torch.empty(0))
        for _ in range(pictures):
            token, count, payload = self.block(generator)
            span = torch.full((count,), token)
            parts += [torch.tensor([START]), span, torch.tensor([END])] if self.marked else [span]
            parts += [] if self.bare else [words(2)]
            out.tokens.append(count)
            out.payload.append(payload)
        out.ids = torch.cat([*parts, words(tail)])
        return out

    def inputs(
        self, prompts: Sequence[Prompt], dtype: torch.dtype = torch.float64, mask: bool = True
    ) -> dict[str, Any]:
        """A left-padded batch, as a processor gives it."""
        length = max(len(p.ids) for p in prompts)
        ids = torch.stack([torch.nn.functional.pad(p.ids, (length - len(p.ids), 0), value=PAD) for p in prompts])
        out: dict[str, Any] = {"input_ids": ids}
        if mask:
            out["attention_mask"] = torch.stack([(torch.arange(length) >= length - len(p.ids)).long() for p in prompts])
        payload = [one for p in prompts for one in p.payload]
        for key in {key for one in payload for key in one}:
            if self.grouped:
                value = _by_row([[one[key] for one in p.payload] for p in prompts])
            else:
                value = torch.cat([one[key] for one in payload if key in one])
            out[key] = value.to(dtype) if value.is_floating_point() else value
        if self.types:
            kinds = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
            out[self.types] = torch.zeros_like(kinds) if self.bare else kinds
        return out


def _words(generator: torch.Generator, count: int) -> Tensor:
    return torch.randint(5, 85, (count,), generator=generator)


def _by_row(rows: list[list[Tensor]]) -> Tensor:
    """[rows, most pictures of a row, ...]; pictures that are not there are all zero."""
    most, like = max(map(len, rows)), next(one for row in rows for one in row)
    return torch.cat([torch.cat([*row, *[torch.zeros_like(like)] * (most - len(row))], 1) for row in rows])


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
    )
}

FOUNDATION = ("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl")


@functools.cache
def tiny(name: str, attention: str = "") -> tuple[Family, Any]:
    """A family and its model, built once. Eager attention softmaxes in float32, so that its model is float32."""
    family = FAMILIES[name]
    attention = attention or family.attentions[0]
    return family, family.model(attention, torch.float64 if attention == "sdpa" else torch.float32)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
