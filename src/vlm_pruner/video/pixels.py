"""From frames to the numbers that a vision tower reads, in torch alone: the arithmetic of torchvision, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["bicubic", "cropped", "normalised", "patches"]


def bicubic(pixels: Tensor, height: int, width: int) -> Tensor:
    """[..., 3, h, w] uint8 at another size, by a cubic kernel that grows where pictures shrink.

    Whole numbers go in and come out: in floats the result would be another.
    """
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    done = functional.interpolate(flat, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    return done.reshape(*pixels.shape[:-2], height, width)


def cropped(pixels: Tensor, height: int, width: int) -> Tensor:
    """[..., 3, height, width] the middle of [..., 3, h, w]; black where there is less."""
    high, wide = pixels.shape[-2:]
    down, across = max(0, height - high), max(0, width - wide)
    pixels = functional.pad(pixels, (across // 2, -(-across // 2), down // 2, -(-down // 2)))
    top, left = int((pixels.shape[-2] - height) / 2), int((pixels.shape[-1] - width) / 2)
    return pixels[..., top : top + height, left : left + width]


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float], scale: float = 1 / 255) -> Tensor:
    """float32 (pixels * scale - mean) / std by channel of [..., 3, h, w], the scale taken into mean and std first."""
    centre, spread = (torch.tensor(list(value)) * (1.0 / scale) for value in (mean, std))
    return pixels.to(torch.float32).sub_(centre.view(-1, 1, 1)).div_(spread.view(-1, 1, 1))


def patches(pixels: Tensor, patch: int, merge: int, pair: int) -> tuple[Tensor, tuple[int, int, int]]:
    """[t h w, 3 * pair * patch * patch] patches of a video, and their grid (t, h, w).

    `merge` x `merge` neighbours, which become one token, lie behind one another; the last frame is repeated where their
    number is no multiple of `pair`.

    Args:
        pixels: [frames, 3, height, width], the sides multiples of patch * merge.
    """
    frames, channels, height, width = pixels.shape
    if more := -frames % pair:
        pixels = torch.cat([pixels, pixels[-1:].expand(more, -1, -1, -1)])
    t, h, w = -(-frames // pair), height // patch, width // patch
    apart = pixels.view(t, pair, channels, h // merge, merge, patch, w // merge, merge, patch)
    apart = apart.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return apart.reshape(t * h * w, channels * pair * patch * patch), (t, h, w)
