"""Tiny random models of every family, and prompts for them: from configurations, never from a hub."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

IMAGE, VIDEO, PAD, START, END, VOCAB = 90, 91, 0, 92, 93, 100
LAYERS = 5
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
SIZES = [(40, 50), (28, 56), (50, 23), (56, 30)]  # (height, width) of anyres pictures
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}

Payload = dict[str, Tensor]
Block = tuple[int, int, Payload]  # placeholder id, number of tokens, what the processor would add


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
    block: Callable[[torch.Generator], Block]
    marked: bool = False  # pictures stand between start and end tokens
    mrope: bool = False
    sliding: bool = False

    def model(self, attention: str = "sdpa", dtype: torch.dtype = torch.float64) -> Any:
        """Random weights that attend sharply, so that dropping tokens changes the answer."""
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(self.config(), attn_implementation=attention).to(dtype).eval()
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
        parts, out = [words(3)], Prompt(torch.empty(0))
        for _ in range(pictures):
            token, count, payload = self.block(generator)
            span = torch.full((count,), token)
            marks = [torch.tensor([START]), span, torch.tensor([END])] if self.marked else [span]
            parts += [*marks, words(2)]
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
            value = torch.cat([one[key] for one in payload if key in one])
            out[key] = value.to(dtype) if value.is_floating_point() else value
        if self.mrope:
            out["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
        return out


def _text(kind: str, **changes: Any) -> Any:
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


def _tower(kind: str = "clip_vision_model", size: int = 28, patch: int = 7, **changes: Any) -> Any:
    base = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": size,
        "patch_size": patch,
    }
    if kind == "siglip_vision_model":
        base["vision_use_head"] = False
    return AutoConfig.for_model(kind, **{**base, **changes})


def _words(generator: torch.Generator, count: int) -> Tensor:
    return torch.randint(5, 85, (count,), generator=generator)


def _noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _square(generator: torch.Generator) -> Block:
    return IMAGE, 16, {"pixel_values": _noise(generator, 1, 3, 28, 28)}


def _frames(tokens: int) -> Callable[[torch.Generator], Block]:
    return lambda generator: (VIDEO, tokens, {"pixel_values_videos": _noise(generator, 1, 3, 3, 28, 28)})


def _anyres(generator: torch.Generator) -> Block:
    size = SIZES[int(torch.randint(0, len(SIZES), (1,), generator=generator))]
    rows, columns = get_anyres_image_grid_shape(size, PINPOINTS, 28)
    _, h, w = unpad_image(torch.empty(1, rows * 4, columns * 4), size).shape
    seen = image_size_to_num_patches(size, PINPOINTS, 28)
    pixels = torch.zeros(1, 5, 3, 28, 28, dtype=torch.float64)
    pixels[:, :seen] = _noise(generator, 1, seen, 3, 28, 28)
    return IMAGE, 16 + h * (w + 1), {"pixel_values": pixels, "image_sizes": torch.tensor([size])}


def _patches(generator: torch.Generator) -> Block:
    h, w = [(4, 6), (8, 4), (6, 6)][int(torch.randint(0, 3, (1,), generator=generator))]
    pixels = _noise(generator, h * w, 3 * 2 * 16)
    return IMAGE, h * w // 4, {"pixel_values": pixels, "image_grid_thw": torch.tensor([[1, h, w]])}


def _patch_frames(generator: torch.Generator) -> Block:
    pixels = _noise(generator, 3 * 4 * 6, 3 * 2 * 16)
    return VIDEO, 18, {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[3, 4, 6]])}


def _llava(text: Any = None, tower: Any = None, **changes: Any) -> Any:
    return transformers.LlavaConfig(
        text_config=text or _text("llama"),
        vision_config=tower or _tower(),
        image_token_index=IMAGE,
        **{"vision_feature_layer": -2, **changes},
    )


def _vipllava() -> Any:
    layers = [-2, -1]
    return transformers.VipLlavaConfig(
        text_config=_text("llama"), vision_config=_tower(), image_token_index=IMAGE, vision_feature_layers=layers
    )


def _pixtral() -> Any:
    tower = AutoConfig.for_model(
        "pixtral",
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=7,
    )
    return _llava(
        _text("mistral", sliding_window=None), tower, vision_feature_layer=-1, vision_feature_select_strategy="full"
    )


def _pixtral_block(generator: torch.Generator) -> Block:
    return IMAGE, 24, {"pixel_values": _noise(generator, 1, 3, 42, 28), "image_sizes": torch.tensor([[42, 28]])}


def _next(cls: type) -> Any:
    siglip = cls is transformers.LlavaOnevisionConfig
    return cls(
        text_config=_text("qwen2" if siglip else "llama"),
        vision_config=_tower("siglip_vision_model") if siglip else _tower(),
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1 if siglip else -2,
        **({} if cls is transformers.LlavaNextConfig else {"video_token_index": VIDEO}),
    )


def _qwen(cls: type, kind: str, **tower: Any) -> Any:
    text = _text(kind, rope_parameters=MROPE, num_attention_heads=2, num_key_value_heads=1).to_dict()
    text.pop("layer_types", None)
    base = {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2}
    return cls(
        text_config=text,
        vision_config={**base, **tower},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )


def _qwen2() -> Any:
    return _qwen(transformers.Qwen2VLConfig, "qwen2_vl_text", depth=2, embed_dim=32, hidden_size=32, mlp_ratio=2)


def _qwen2_5() -> Any:
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 16}
    return _qwen(transformers.Qwen2_5_VLConfig, "qwen2_5_vl_text", fullatt_block_indexes=[1], **tower)


def _qwen3() -> Any:
    tower = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32}
    deep = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1, 2]}
    return _qwen(transformers.Qwen3VLConfig, "qwen3_vl_text", **tower, **deep)


def _sliding() -> Any:
    return _llava(_text("mistral", sliding_window=12))  # a configuration of its own: models write into theirs


_full = functools.partial(_llava, vision_feature_select_strategy="full")


def _square_and_cls(generator: torch.Generator) -> Block:
    return IMAGE, 17, _square(generator)[2]


FAMILIES = {
    family.name: family
    for family in (
        Family("llava", _llava, _square),
        Family("llava-cls", _full, _square_and_cls),
        Family("llava-mistral", _sliding, _square, sliding=True),
        Family("llava-pixtral", _pixtral, _pixtral_block),
        Family("vipllava", _vipllava, _square),
        Family("llava_next", functools.partial(_next, transformers.LlavaNextConfig), _anyres),
        Family("llava_onevision", functools.partial(_next, transformers.LlavaOnevisionConfig), _anyres),
        Family("llava_onevision-video", functools.partial(_next, transformers.LlavaOnevisionConfig), _frames(13)),
        Family("qwen2_vl", _qwen2, _patches, marked=True, mrope=True),
        Family("qwen2_vl-video", _qwen2, _patch_frames, marked=True, mrope=True),
        Family("qwen2_5_vl", _qwen2_5, _patches, marked=True, mrope=True),
    )
}

FOUNDATION = ("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl")


@functools.cache
def tiny(name: str, attention: str = "sdpa") -> tuple[Family, Any]:
    """A family and its model, built once. Eager attention softmaxes in float32, so that its model is float32."""
    family = FAMILIES[name]
    return family, family.model(attention, torch.float64 if attention == "sdpa" else torch.float32)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
