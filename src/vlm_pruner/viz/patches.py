"""Pictures that a processor hands over as lists of patches, put together again, and the pixels of all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["pixels_of"]


def pixels_of(made: Mapping[str, Any], grid: tuple[int, int, int] | None = None) -> list[Any]:
    """Of what a processor has made, the pixels, in the order of their tokens: tiles that stand apart come first.

    Lists of patches are pictures [1, 3, H, W] again where they may show several views of an image, or more than it:
    those of LFM2-VL, MiniCPM-V, Fuyu and Inkling. Tiles that make one plane of tokens are one picture (Unlimited-OCR).

    Args:
        grid: (t, h, w) of the tokens, which alone tells how wide a picture is that Fuyu or Inkling sees.
    """
    names = ("pixel_values_local", "pixel_values", "pixel_values_images")
    found = [made[name] for name in names if made.get(name) is not None]
    if made.get("spatial_shapes") is not None:
        sizes = torch.as_tensor(made["spatial_shapes"]).tolist()
        return [_by_patch(rows[: h * w], h, w) for rows, (h, w) in zip(torch.as_tensor(found[0]), sizes, strict=True)]
    if made.get("target_sizes") is not None:
        return _from_strip(torch.as_tensor(found[0])[0], torch.as_tensor(made["target_sizes"]).tolist())
    if made.get("patches_grid") is not None and made.get("pixel_values_local") is not None:
        return [_by_tile(torch.as_tensor(found[0]), *made["patches_grid"][0]), found[1]]
    if made.get("image_patches") is not None and grid is not None:
        return [_by_patch(torch.as_tensor(made["image_patches"]), *grid[1:])]
    if grid is not None and found and _are_patches(torch.as_tensor(found[0])):
        return [_by_patch(torch.as_tensor(found[0])[:, 0].flatten(1), *grid[1:])]
    return found


def _are_patches(pixels: Tensor) -> bool:
    """[n, t, p, p, 3] in place of pictures?"""
    return pixels.dim() == 5 and pixels.shape[-1] == 3


def _by_patch(rows: Tensor, h: int, w: int) -> Tensor:
    """[h w, p p 3] -> [1, 3, h p, w p]."""
    side = round((rows.shape[-1] / 3) ** 0.5)
    return rows.view(h, w, side, side, 3).permute(4, 0, 2, 1, 3).reshape(1, 3, h * side, w * side)


def _by_tile(tiles: Tensor, columns: int, rows: int) -> Tensor:
    """[rows columns, 3, s, s] -> [1, 3, rows s, columns s]."""
    side = tiles.shape[-1]
    apart = tiles.view(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4)
    return apart.reshape(1, 3, rows * side, columns * side)


def _from_strip(strip: Tensor, sizes: list[list[int]]) -> list[Tensor]:
    """Patches of all pictures behind one another, [3, p, n p] -> [1, 3, h p, w p] each."""
    side = strip.shape[1]
    parts = torch.split(strip, [h * w * side for h, w in sizes], dim=2)
    apart = [part.view(3, side, h, w, side) for part, (h, w) in zip(parts, sizes, strict=True)]
    return [part.permute(0, 2, 1, 3, 4).reshape(1, 3, part.shape[2] * side, -1) for part in apart]
