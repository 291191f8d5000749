"""Families whose decoders mix attention with recurrences or convolutions: LFM2-VL, MiniCPM-V 4.6 and 4.7, Nemotron."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, Modality, raster

__all__ = ["Lfm2", "MiniCPM", "MiniCPMCanvas", "NemotronOmni"]


class MiniCPM(Adapter):
    """Any size, 4 x 4 patches to a token, or 2 x 2; each slice of a picture and frame of a video has its own budget."""

    model_types: ClassVar[tuple[str, ...]] = ("minicpmv4_6", "minicpm_ocr")

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return self._layouts(config, encoded, encoded.rows("target_sizes"))

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return self._layouts(config, encoded, encoded.rows("target_sizes_videos") * encoded.pixel_shape[0])

    def _layouts(self, config: Any, encoded: Encoded, sizes: list[list[int]]) -> list[Layout]:
        mode = encoded.arguments.get("downsample_mode") or config.downsample_mode
        within = 1 if mode == "4x" else 2  # merged inside the tower
        down, across = (within * side**config.merger_times for side in config.merge_kernel_size)
        return [raster(1, h // down, w // across) for h, w in sizes]

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # all pictures in one sequence, merged half way


class MiniCPMCanvas(MiniCPM):
    """As MiniCPM-V 4.6; a picture, its slices and the marks around them are numbered on one canvas."""

    model_types = ("minicpmv4_7",)
    canvas = True


class Lfm2(Adapter):
    """Any size, squares of patches merged into one token; tiles of a picture have budgets of their own."""

    model_types = ("lfm2_vl",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        factor = config.downsample_factor
        return [raster(1, h // factor, w // factor) for h, w in encoded.rows("spatial_shapes")]

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # padded to the largest picture: its rows are not those of the tokens


class NemotronOmni(Adapter):
    """Any size, 2 x 2 patches to a token. Pictures only: videos stand under their placeholder, not told apart here."""

    model_types = ("nemotron_h_omni",)

    def placeholders(self, config: Any) -> dict[Modality, int]:
        return {} if config.image_token_id is None else {"image": config.image_token_id}

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return [raster(1, h // 2, w // 2) for h, w in encoded.rows("image_grid_hw")]

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # all pictures in one sequence
