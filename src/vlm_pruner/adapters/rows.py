"""Families that write a picture row by row: HunyuanVL, Emu3, Molmo 2, Gemma 4."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, Modality, plane, raster
from vlm_pruner.adapters.llava_next import overview
from vlm_pruner.errors import UnsupportedModelError

__all__ = ["Emu3", "Gemma4", "Hunyuan", "Molmo2", "rows_with_ends"]


class Emu3(Adapter):
    """Every row of a picture is closed by a token of its own; they are ordinary candidates on the right edge."""

    model_types = ("emu3",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        cell = 2 ** (len(config.vq_config.channel_multiplier) - 1)
        return [rows_with_ends(h // cell, w // cell) for h, w in encoded.rows("image_sizes")]


class Hunyuan(Adapter):
    """A token opens the picture, one closes every row, one closes the picture: ordinary candidates on its edges."""

    model_types = ("hunyuan_vl",)

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        merge = config.vision_config.spatial_merge_size
        sizes = [(h // merge, w // merge) for _, h, w in encoded.rows("image_grid_thw")]
        return [rows_with_ends(h, w, framed=True) for h, w in sizes]

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # all pictures in one sequence: its attention rows are not offered


class Molmo2(Adapter):
    """An overview spread over the plane, then the picture in full resolution; text closes the rows. Pictures only."""

    model_types = ("molmo2",)

    def placeholders(self, config: Any) -> dict[Modality, int]:
        return {"image": config.image_patch_id}

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        layouts = []
        for rows, columns, h, w in encoded.rows("image_grids"):
            if not h * w:
                raise UnsupportedModelError("molmo2: videos stand under the placeholder of pictures; pass frames")
            place = torch.cat([overview((rows, columns), (h, w)), plane(1, h, w)])
            layouts.append(Layout(len(place), (1, h, w), place))
        return layouts

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # tokens are pooled from several patches


class Gemma4(Adapter):
    """The places of the patches are told to the model; squares of them are pooled into one token."""

    model_types = ("gemma4", "gemma4_unified")
    per_token = frozenset({"per_layer_input"})
    handed_on = frozenset({"shared_kv_states"})

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        return [raster(1, *size) for size in self._sizes(config, encoded, "image_position_ids")]

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        sizes = self._sizes(config, encoded, "video_position_ids")
        layouts, first = [], 0
        for count in (int(n) for n in encoded.arguments["num_frames_per_video"]):
            layouts.append(raster(count, *sizes[first]))
            first += count
        return layouts

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # tokens are pooled from several patches

    def _sizes(self, config: Any, encoded: Encoded, name: str) -> list[tuple[int, int]]:
        """(rows, columns) of tokens of every picture or frame, from the (x, y) of its patches; padding is -1."""
        pooled = config.vision_config.pooling_kernel_size if config.model_type == "gemma4" else 1
        corners = (encoded.arguments[name].amax(1) + 1).tolist()
        return [(int(y) // pooled, int(x) // pooled) for x, y in corners]


def rows_with_ends(h: int, w: int, framed: bool = False) -> Layout:
    """h rows of w tokens and one that ends the row, on the right edge (x = w - 1/2). `framed`: with one token before
    everything and one behind it, in the first and the last corner."""
    y, x = torch.arange(h).repeat_interleave(w + 1), torch.arange(w + 1).repeat(h)
    place = torch.stack([torch.zeros(len(y)), y.float(), torch.where(x == w, w - 0.5, x.float())], 1)
    if framed:
        corners = torch.tensor([[0.0, -0.5, -0.5], [0.0, h - 0.5, w - 0.5]])
        place = torch.cat([corners[:1], place, corners[1:]])
    return Layout(len(place), (1, h, w), place)
