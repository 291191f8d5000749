"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and others built like them: any size, 2 x 2 patches merged into one token."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, raster
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Glm4v", "QwenVL", "VideoLlama3"]


class QwenVL(Adapter):
    """`grid_thw` counts patches; tokens are merged ones, so that height and width are divided by the merge size.

    The raster order holds although the tower works in windows (Qwen2.5-VL): it puts the tokens back before it ends.
    """

    model_types: ClassVar[tuple[str, ...]] = (
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen3_vl",
        "qwen3_vl_moe",
        "exaone4_5",
        "paddleocr_vl",
    )

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return self._layouts(config, encoded, "image_grid_thw")

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return self._layouts(config, encoded, "video_grid_thw")

    def _layouts(self, config: Any, encoded: Encoded, name: str) -> list[Layout]:
        merge = config.vision_config.spatial_merge_size
        return [raster(t, h // merge, w // merge) for t, h, w in encoded.rows(name)]

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # fused projections and windows: its attention rows are not offered


class Glm4v(QwenVL):
    """As the Qwen families, pictures only. Frames of a video stand under the token of pictures, not told apart here."""

    model_types = ("glm4v", "glm46v", "glm4v_moe", "glm_ocr", "glmga")

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        raise UnsupportedModelError(f"{config.model_type}: videos stand under the placeholder of pictures; pass frames")


class VideoLlama3(QwenVL):
    """As the Qwen families, with a merge size for every picture: frames are merged further."""

    model_types = ("video_llama_3",)

    def _layouts(self, config: Any, encoded: Encoded, name: str) -> list[Layout]:
        sizes = encoded.rows(name)
        merges = [int(m) for m in encoded.arguments[name.replace("grid_thw", "merge_sizes")]]
        return [raster(t, h // m, w // m) for (t, h, w), m in zip(sizes, merges, strict=True)]
