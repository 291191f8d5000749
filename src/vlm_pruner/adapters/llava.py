"""LLaVA-1.5 and its siblings: one picture, one grid."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, raster
from vlm_pruner.adapters.towers import Squares, Tower
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Llava", "PictureSized", "any_size", "clip_or_siglip", "vicuna", "with_cls"]


class Llava(Adapter):
    """CLIP or SigLIP grids, or, with a Pixtral encoder, a grid as large as the picture.

    The CLS token that `vision_feature_select_strategy="full"` leaves in front can be chosen like any other. It sees the
    whole picture, so that its place is the centre of the plane.
    """

    model_types: ClassVar[tuple[str, ...]] = ("llava", "vipllava")

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        vision = config.vision_config
        if vision.model_type == "pixtral":
            return any_size(config, encoded)
        height, width = encoded.pixel_shape[-2:]
        h, w = height // vision.patch_size, width // vision.patch_size
        return [with_cls(h, w, n) for n in encoded.lengths or []]

    def tower(self, base: Any) -> Tower | None:
        return clip_or_siglip(base)

    def fixed_tokens(self, config: Any) -> int | None:
        vision = config.vision_config
        if vision.model_type == "pixtral":
            return None
        strategy = getattr(config, "vision_feature_select_strategy", "default")
        has_cls = vision.model_type == "clip_vision_model" and strategy == "full"
        return int((vision.image_size // vision.patch_size) ** 2) + has_cls

    def prompt(self, token: str, images: int, question: str) -> str | None:
        return vicuna(token, images, question)


class PictureSized(Adapter):
    """Mistral 3, LightOnOCR: a Pixtral encoder, then squares of `spatial_merge_size` patches merged into one token."""

    model_types: ClassVar[tuple[str, ...]] = ("mistral3", "lighton_ocr")

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return any_size(config, encoded)

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # all pictures in one sequence: its attention rows are not offered


class MistralLarge4(PictureSized):
    """As Mistral 3. Layers attend to keys that an indexer chose; some go by the choice or the keys of one before."""

    model_types = ("mistral_large4",)
    handed_on = frozenset({"shared_kv_states", "prev_topk_indices"})
    shares = True

    def source(self, config: Any, index: int) -> int:
        return int(config.kv_source_layers[index])

    def allows(self, config: Any, site: int) -> bool:
        layers = range(site, config.num_hidden_layers)
        return chooses_itself(config, site) and all(self.source(config, index) >= site for index in layers)


def chooses_itself(config: Any, site: int) -> bool:
    """Has decoder layer `site` an indexer of its own?"""
    return bool(config.indexer_types[site] == "full")


def vicuna(token: str, images: int, question: str) -> str:
    """The prompt that LLaVA-1.5 was trained with."""
    return f"USER: {(token + chr(10)) * images}{question} ASSISTANT:"


def clip_or_siglip(base: Any, side: int = 1) -> Tower | None:
    """The tower of a model with a CLIP or SigLIP encoder, None with another one.

    Args:
        side: patches along one side of what becomes a token.
    """
    kinds = {"clip_vision_model": False, "siglip_vision_model": True}
    kind = getattr(getattr(base.config, "vision_config", None), "model_type", "")
    return Squares(base.vision_tower, side, kinds[kind]) if kind in kinds else None


def any_size(config: Any, encoded: Encoded) -> list[Layout]:
    """A raster as large as the picture, which the model was told in pixels."""
    cell = config.vision_config.patch_size * getattr(config, "spatial_merge_size", 1)
    return [raster(1, h // cell, w // cell) for h, w in encoded.rows("image_sizes")]


def with_cls(h: int, w: int, tokens: int) -> Layout:
    """An h x w raster, or the same with a CLS token in front of it.

    Raises:
        UnsupportedModelError: `tokens` is neither.
    """
    if tokens == h * w:
        return raster(1, h, w)
    if tokens != h * w + 1:
        raise UnsupportedModelError(f"{tokens} visual tokens do not fill a grid of {h} x {w}")
    i = torch.arange(h * w)
    grid = torch.stack([torch.zeros_like(i), i // w, i % w], 1).float()  # [h*w, 3]
    centre = torch.tensor([[0.0, (h - 1) / 2, (w - 1) / 2]])
    return Layout(tokens, (1, h, w), torch.cat([centre, grid]), torch.arange(-1, h * w))
