"""Video-LLaVA: square pictures without their CLS token, and video frames that keep theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vlm_pruner.adapters.base import Adapter, Encoded, Layout
from vlm_pruner.adapters.llava import vicuna, with_cls

__all__ = ["VideoLlava"]


class VideoLlava(Adapter):
    """The CLS token of every frame lies at the centre of the frame and can be chosen like any other."""

    model_types = ("video_llava",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        side = self._side(config)
        return [with_cls(side, side, n) for n in encoded.lengths or []]

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        videos, frames = encoded.pixel_shape[:2]
        side = self._side(config)
        one = with_cls(side, side, side * side + 1)
        assert one.position is not None
        assert one.patch is not None
        place = one.position.repeat(frames, 1)
        place[:, 0] = torch.arange(frames).repeat_interleave(one.tokens)
        patch = one.patch + torch.arange(frames)[:, None] * side * side  # [frames, n]
        patch = patch.where(one.patch >= 0, -1).flatten()
        return [Layout(len(place), (frames, side, side), place, patch, tiles=frames)] * videos

    def video_tower(self, base: nn.Module) -> nn.Module | None:
        tower = getattr(base, "video_tower", None)
        return tower if isinstance(tower, nn.Module) else None

    def prompt(self, token: str, images: int, question: str) -> str | None:
        return vicuna(token, images, question)

    def _side(self, config: Any) -> int:
        return int(config.vision_config.image_size // config.vision_config.patch_size)
