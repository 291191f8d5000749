"""Random-weight models of published widths: time and memory depend on shapes, not on what was learnt.

Every shape names the checkpoint whose config its widths are taken from; nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch
from torch import nn

from vlm_pruner.errors import PlanError, unknown_name

__all__ = ["SHAPES", "ModelShape", "model_shape"]

_CLIP_L = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 336,
    "projection_dim": 768,
}
_CLIP_TINY = _CLIP_L | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 32,
}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,  # the last one is left out, and the pooling head
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 384,
    "vision_use_head": False,
}
_SIGLIP_TINY = _SIGLIP | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def _text(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 32768,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


@dataclass(frozen=True)
class ModelShape:
    """A model to build with random weights, and the inputs it takes."""

    name: str
    source: str  # the config that the widths come from
    model_type: str
    text: dict[str, Any]
    vision: dict[str, Any]
    tokens: int  # visual tokens of the default image, or of the video
    extra: dict[str, Any] = field(default_factory=dict)
    frames: int = 0  # of the video that it reads; 0 = it reads an image

    def config(self) -> Any:
        """The transformers config."""
        from transformers import AutoConfig

        text, vocab = dict(self.text), self.text["vocab_size"]
        ids: dict[str, Any] = {"image_token_id": vocab - 1}
        if self.model_type == "qwen2_5_vl":
            ids |= {"video_token_id": vocab - 2, "vision_start_token_id": vocab - 3, "vision_end_token_id": vocab - 4}
        elif self.model_type == "llava_onevision":
            text["model_type"] = "qwen2"
            ids |= {"video_token_id": vocab - 2}
        else:
            text["model_type"] = "llama"
            ids = {"image_token_index": vocab - 1}
        parts = {"text_config": text, "vision_config": dict(self.vision)}
        return AutoConfig.for_model(self.model_type, **parts, **ids, **self.extra)

    def parameters(self) -> int:
        """Number of parameters; nothing is allocated."""
        from transformers import AutoModelForImageTextToText

        with torch.device("meta"):
            model: nn.Module = AutoModelForImageTextToText.from_config(self.config())
        return sum(parameter.numel() for parameter in model.parameters())

    def build(self, device: torch.device, dtype: torch.dtype, seed: int = 0) -> nn.Module:
        """The model in eval mode, initialised on `device` in `dtype`."""
        from transformers import AutoModelForImageTextToText

        torch.manual_seed(seed)
        with torch.device(device):
            model: nn.Module = AutoModelForImageTextToText.from_config(self.config(), dtype=dtype)
        model.generation_config.eos_token_id = None  # type: ignore[union-attr]  # measured lengths are asked for
        return model.eval()

    def inputs(
        self, device: torch.device, dtype: torch.dtype, *, tokens: int | None = None, text: int = 60, seed: int = 0
    ) -> dict[str, torch.Tensor]:
        """One prompt: half of the text, `tokens` visual tokens, the other half.

        Models of native resolution read one square image; the others as many of their images as make up `tokens`.
        Shapes of a video read that.

        Raises:
            PlanError: no image of this model, and no number of them, has that many visual tokens.
        """
        generator = torch.Generator().manual_seed(seed)
        tokens = self.tokens if tokens is None else tokens
        pixels = self._video(tokens, generator) if self.frames else self._pixels(tokens, generator)
        words = torch.randint(3, self.text["vocab_size"] - 8, (text,), generator=generator)
        placeholder = self.text["vocab_size"] - (2 if self.frames else 1)
        shown = torch.full((tokens,), placeholder)
        ids = torch.cat([words[: text // 2], shown, words[text // 2 :]])[None]  # [1, text + tokens]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
        if self.model_type == "qwen2_5_vl":
            inputs["mm_token_type_ids"] = (ids == placeholder).int() * (2 if self.frames else 1)
        return {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in inputs.items()}

    def _video(self, tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if tokens != self.tokens:
            raise PlanError(f"{self.name} is measured on a video of {self.tokens} visual tokens, not of {tokens}")
        side, patch = self.vision.get("image_size", 0), self.vision["patch_size"]
        if self.model_type != "qwen2_5_vl":
            return {"pixel_values_videos": torch.randn(1, self.frames, 3, side, side, generator=generator)}
        t = self.frames // 2
        side = isqrt(tokens // t)
        grid = torch.tensor([[t, 2 * side, 2 * side]])
        pixels = torch.randn(4 * tokens, 3 * 2 * patch * patch, generator=generator)
        return {"pixel_values_videos": pixels, "video_grid_thw": grid, "second_per_grid_ts": torch.ones(1)}

    def _pixels(self, tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        patch = self.vision["patch_size"]
        if self.model_type == "qwen2_5_vl":
            side = isqrt(tokens)
            if side * side != tokens:
                raise PlanError(f"{self.name} is measured on square images; {tokens} tokens are no square number")
            values = 3 * 2 * patch * patch
            grid = torch.tensor([[1, 2 * side, 2 * side]])
            return {"pixel_values": torch.randn(4 * tokens, values, generator=generator), "image_grid_thw": grid}
        images, odd = divmod(tokens, self.tokens)
        if odd or images < 1:
            raise PlanError(
                f"images of {self.name} have {self.tokens} visual tokens each; {tokens} is no multiple of it"
            )
        side = self.vision["image_size"]
        if self.model_type == "llava_next":
            pixels = torch.randn(images, 5, 3, side, side, generator=generator)
            return {"pixel_values": pixels, "image_sizes": torch.tensor([[2 * side, 2 * side]] * images)}
        return {"pixel_values": torch.randn(images, 3, side, side, generator=generator)}


_VICUNA_7B = _text(4096, 11008, 32, 32, 32, 32064)
_QWEN_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "out_hidden_size": 3584,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN_TINY = _QWEN_VISION | {
    "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "fullatt_block_indexes": [1],
}  # fmt: skip
_QWEN_7B = _text(3584, 18944, 28, 28, 4, 152064)
_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}

SHAPES = {
    shape.name: shape
    for shape in (
        ModelShape("tiny", "none: for smoke tests", "llava", _text(64, 128, 4, 4, 2, 256), _CLIP_TINY, 576),
        ModelShape("thin-32", "none: costs next to nothing", "llava", _text(32, 32, 32, 2, 2, 256), _CLIP_TINY, 576),
        ModelShape("wide-8", "none: hidden 1024", "llava", _text(1024, 2816, 8, 16, 16, 1024), _CLIP_TINY, 576),
        ModelShape("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", "llava", _VICUNA_7B, _CLIP_L, 576),
        ModelShape(
            "llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", "llava", _text(5120, 13824, 40, 40, 40, 32064), _CLIP_L, 576
        ),
        ModelShape(
            "llava-next-7b",
            "llava-hf/llava-v1.6-vicuna-7b-hf, image of 672 x 672: 576 + 48 rows of 48 and a newline token",
            "llava_next",
            _VICUNA_7B,
            _CLIP_L,
            576 + 48 * 49,
            {"image_grid_pinpoints": _PINPOINTS},
        ),
        ModelShape(
            "qwen2.5-vl-7b",
            "Qwen/Qwen2.5-VL-7B-Instruct, image of 1008 x 1008",
            "qwen2_5_vl",
            _QWEN_7B | _MROPE,
            _QWEN_VISION,
            1296,
        ),
        ModelShape(
            "wide-8-video",
            "none: hidden 1024, 32 frames of 196 tokens and a newline",
            "llava_onevision",
            _text(1024, 2816, 8, 16, 16, 1024),
            _SIGLIP_TINY,
            32 * 196 + 1,
            frames=32,
        ),
        ModelShape(
            "wide-8-pairs",
            "none: hidden 1024, 64 frames in pairs of 144 tokens",
            "qwen2_5_vl",
            _text(1024, 2816, 8, 8, 8, 1024) | _MROPE,
            _QWEN_TINY | {"out_hidden_size": 1024},
            32 * 144,
            frames=64,
        ),
        ModelShape(
            "llava-onevision-7b-video",
            "llava-hf/llava-onevision-qwen2-7b-ov-hf, 32 frames",
            "llava_onevision",
            _QWEN_7B,
            _SIGLIP,
            32 * 196 + 1,
            frames=32,
        ),
        ModelShape(
            "qwen2.5-vl-7b-video",
            "Qwen/Qwen2.5-VL-7B-Instruct, 64 frames of 336 x 336",
            "qwen2_5_vl",
            _QWEN_7B | _MROPE,
            _QWEN_VISION,
            32 * 144,
            frames=64,
        ),
    )
}
"""Every known shape by name."""


def model_shape(name: str) -> ModelShape:
    """The shape called `name`.

    Raises:
        PlanError: unknown name; the message offers the nearest one.
    """
    if name not in SHAPES:
        raise PlanError(unknown_name("model shape", name, SHAPES))
    return SHAPES[name]
