"""LLaVA-NeXT and LLaVA-OneVision: an overview of the picture, then its tiles in full resolution.

All tokens of a picture lie in one plane, so that distances compare. Its unit is one token of the full-resolution view,
whose padding the model has cut away. The overview shows the same picture squeezed into a square: its b x b tokens are
spread over the whole plane, each at the centre of the area it shows. A newline token ends a row: it is an ordinary
candidate, on the right edge of its row (x = w - 1/2, where cell centres are whole numbers).

Of a picture that is much longer than it is wide the models may cut away every column, so that each row is its newline
alone, or every row. The plane is one token wide there (or high), for the overview still shows something.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from vlm_pruner.adapters.base import Adapter, Encoded, Layout, plane, raster
from vlm_pruner.adapters.llava import clip_or_siglip
from vlm_pruner.adapters.towers import Tower

__all__ = ["Granite4Vision", "LlavaNext", "LlavaOnevision", "anyres", "overview", "unpadded"]


class LlavaNext(Adapter):
    """Base view, then the unpadded rows of the tiled view, each closed by a newline."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next", "llava_next_video")

    def image_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        vision, side = config.vision_config, self._side(config)
        sizes = encoded.rows("image_sizes")
        layouts = []
        for (height, width), tiled in zip(sizes, self._tiled(encoded, len(sizes)), strict=True):
            if not tiled:
                layouts.append(overview_alone(side))
                continue
            tiles = get_anyres_image_grid_shape((height, width), config.image_grid_pinpoints, vision.image_size)
            window = unpadded((tiles[0] * side, tiles[1] * side), (height, width))
            layouts.append(anyres(side, tiles, window, self._shrunk(config, encoded, side, window)))
        return layouts

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        videos, frames, _, height, width = encoded.pixel_shape
        stride = config.vision_config.patch_size * getattr(config, "spatial_pool_stride", 2)
        return [replace(raster(frames, height // stride, width // stride), mixed=True)] * videos

    def tower(self, base: Any) -> Tower | None:
        return clip_or_siglip(base)

    def _side(self, config: Any) -> int:
        return int(config.vision_config.image_size // config.vision_config.patch_size)

    def _tiled(self, encoded: Encoded, images: int) -> list[bool]:
        return [True] * images

    def _shrunk(self, config: Any, encoded: Encoded, side: int, window: Window) -> tuple[int, int]:
        return window[2], window[3]


class Granite4Vision(LlavaNext):
    """As LLaVA-NeXT, downsampled; further features of the same picture are added before several decoder layers."""

    model_types = ("granite4_vision",)
    adds = ("deepstack_features", "vision_mask")

    def _side(self, config: Any) -> int:
        return int(super()._side(config) * Fraction(config.downsample_rate))

    def tower(self, base: Any) -> Tower | None:
        return None

    def vision_tower(self, base: nn.Module) -> nn.Module | None:
        return None  # tokens are made of windows of patches


class LlavaOnevision(LlavaNext):
    """As LLaVA-NeXT, but very large pictures are interpolated down to a token limit, several pictures in a row are sent
    as overviews only, and a video is pooled frames with one newline at its very end."""

    model_types = ("llava_onevision",)

    def video_layouts(self, config: Any, encoded: Encoded) -> list[Layout]:
        videos, frames = encoded.pixel_shape[:2]
        side = math.ceil(config.vision_config.image_size // config.vision_config.patch_size / 2)
        place = torch.cat([plane(frames, side, side), torch.tensor([[frames - 1, side - 1, side - 0.5]])])
        return [Layout(len(place), (frames, side, side), place, tiles=frames, mixed=True)] * videos

    def _tiled(self, encoded: Encoded, images: int) -> list[bool]:
        per_row = encoded.arguments.get("batch_num_images")
        if per_row is None:
            return [True] * images
        return [int(n) == 1 for n in per_row for _ in range(int(n))]

    def _shrunk(self, config: Any, encoded: Encoded, side: int, window: Window) -> tuple[int, int]:
        limit = encoded.arguments.get("vision_aspect_ratio") or config.vision_aspect_ratio  # "anyres_max_9"
        h, w = window[2:]
        ratio = math.sqrt(h * w / (int(limit.rpartition("_")[2]) * side**2))
        return (int(h // ratio), int(w // ratio)) if ratio > 1.1 else (h, w)


Window = tuple[int, int, int, int]
"""(top, left, height, width) of what is left of a padded view."""


def unpadded(padded: tuple[int, int], picture: tuple[int, int]) -> Window:
    """What of a `padded` (rows, columns) view shows a picture of (height, width), rounded as the models do."""
    rows, columns = padded
    height, width = picture
    if width / height > columns / rows:
        top = (rows - int(round(height * (columns / width), 7))) // 2
        return top, 0, rows - 2 * top, columns
    left = (columns - int(round(width * (rows / height), 7))) // 2
    return 0, left, rows, columns - 2 * left


def overview(size: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """[n, 3] places of `size` rows and columns that show all of a plane of `shape`: each at the centre of its area."""
    squeeze = torch.tensor([1.0, shape[0] / size[0], shape[1] / size[1]])
    place = (plane(1, *size) + 0.5) * squeeze - 0.5
    place[:, 0] = 0
    return place


def anyres(side: int, tiles: tuple[int, int], window: Window, shape: tuple[int, int]) -> Layout:
    """Overview, then `shape` rows and columns of the tiled view with a newline after each row.

    Args:
        side: tokens along one side of the overview and of every tile.
        tiles: rows and columns of tiles.
        window: the unpadded part of the tiled view.
        shape: its size after the model has interpolated it down (usually the window's own).
    """
    (h, w), (top, left, height, width) = shape, window
    down, across = max(h, 1), max(w, 1)  # nothing may be left of a very long picture
    base = overview((side, side), (down, across))
    y, x = torch.arange(h).repeat_interleave(w + 1), torch.arange(w + 1).repeat(h)
    newline = x == w
    rows = torch.stack([torch.zeros_like(y).float(), y.float(), torch.where(newline, across - 0.5, x.float())], 1)
    # The patch behind a token: nearest where the view was interpolated.
    row, column = top + (2 * y + 1) * height // (2 * down), left + (2 * x + 1) * width // (2 * across)
    tile = 1 + row // side * tiles[1] + column // side
    patch = torch.where(newline, -1, (tile * side + row % side) * side + column % side)
    return Layout(
        tokens=side * side + h * (w + 1),
        grid=(1, down, across),
        position=torch.cat([base, rows]),
        patch=torch.cat([torch.arange(side * side), patch]),
        tiles=1 + tiles[0] * tiles[1],
        mixed=shape != (height, width),
    )


def overview_alone(side: int) -> Layout:
    """A picture among several: its overview, closed by one newline."""
    end = torch.tensor([[0.0, side - 1, side - 0.5]])
    patch = torch.cat([torch.arange(side * side), torch.tensor([-1])])
    return Layout(side * side + 1, (1, side, side), torch.cat([plane(1, side, side), end]), patch)
