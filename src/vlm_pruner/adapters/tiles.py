"""Families that send a picture as one or several squares of equal size: every encoded square is h x h tokens.

How the squares of one picture lie next to each other is not in the inputs of these models (it was decided by the
processor, and at most written into the prompt as text). So a place means the square (t), then row and column inside it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, raster, square_side

__all__ = ["OneSquare", "SampleSquares", "TileRun"]


class OneSquare(Adapter):
    """One square per picture. Gemma 3's pan-and-scan crops stand apart in the prompt: each is a picture of its own."""

    model_types: ClassVar[tuple[str, ...]] = ("paligemma", "gemma3", "shieldgemma2", "deepseek_vl", "janus")

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        sides = [square_side(n, config.model_type) for n in encoded.lengths or []]
        return [raster(1, side, side) for side in sides]

    def fixed_tokens(self, config: Any) -> int | None:
        per_picture: int | None = getattr(config, "mm_tokens_per_image", None)
        if per_picture is None and config.model_type == "paligemma":
            per_picture = int((config.vision_config.image_size // config.vision_config.patch_size) ** 2)
        return per_picture


class TileRun(OneSquare):
    """The tiles of a picture follow each other without text between them, the thumbnail last: an unbroken run of
    placeholders is one picture of `t` squares with one budget."""

    model_types = ("internvl", "aya_vision", "cohere2_vision", "got_ocr2", "pp_chart2table", "qianfan_ocr", "ovis2")
    joins = True


class SampleSquares(Adapter):
    """Features come grouped by sample, without the pictures that only pad the batch. Text stands between the squares of
    a picture (Idefics3, SmolVLM): each has a budget of its own."""

    model_types = ("idefics3", "smolvlm")

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        side = self._side(config)
        return [raster(1, side, side)] * (sum(encoded.lengths or []) // side**2)

    def fixed_tokens(self, config: Any) -> int | None:
        return self._side(config) ** 2

    def _side(self, config: Any) -> int:
        vision = config.vision_config
        return int(vision.image_size // vision.patch_size // config.scale_factor)
