"""The definition of channel screening, in float64 up to the last step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["screen"]


def screen(features: Sequence[Tensor], channels: int) -> Tensor:
    """[B, n, q] unit rows; see `vlm_pruner.ops.screen.screen`. Copies the features to float64."""
    return torch.stack([_one(f, channels) for f in features])


def _one(features: Tensor, channels: int) -> Tensor:
    x = features.double()  # [n, d]
    spread = (x - x.mean(0)).square().sum(0)  # [d] the variance up to a factor
    best = spread.argsort(descending=True, stable=True)[:channels].sort().values  # [q]
    rows = x[:, best]
    norm = rows.norm(dim=1, keepdim=True)
    unit: Tensor = (rows / norm.where(norm > 0, 1.0)).float()
    return unit
