"""The definition of channel screening, in float64 up to the last step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.basic import STEP

__all__ = ["screen"]


def screen(features: Sequence[Tensor], channels: int) -> Tensor:
    """[B, n, q] unit rows; see `vlm_pruner.ops.screen.screen`. Copies the features to float64."""
    return torch.stack([_one(f, channels) for f in features])


def _one(features: Tensor, channels: int) -> Tensor:
    x = features.float().double()  # [n, d]
    apart = (x - x[0]).T.contiguous()  # [d, n]; of channels that do not vary exactly zero
    spread = apart.square().sum(1) - apart.sum(1).square() / len(x)  # [d] the variance up to a factor
    best = spread.argsort(descending=True, stable=True)[:channels].sort().values  # [q]
    rows = x[:, best]
    norm = rows.norm(dim=1, keepdim=True)
    unit: Tensor = (rows * (1 / norm).where(norm > 0, 0.0) / STEP).round() * STEP
    return unit.float()
