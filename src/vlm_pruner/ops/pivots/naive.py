"""The definition of max-min pivots, in float64 with direct differences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["farthest_points"]


def farthest_points(keys: Sequence[Tensor], count: int) -> Tensor:
    """[B, count] tokens; see `vlm_pruner.ops.pivots.farthest_points`. Copies the keys to float64."""
    return torch.stack([_one(k, count) for k in keys])


def _one(keys: Tensor, count: int) -> Tensor:
    rows = keys.float().double().transpose(0, 1).flatten(1)  # [n, heads * head_dim]
    chosen = [rows.abs().sum(1).argmax()]
    nearest = rows.new_full((len(rows),), torch.inf)
    while len(chosen) < count:
        nearest = nearest.minimum((rows - rows[chosen[-1]]).square().sum(1))
        nearest[chosen[-1]] = -1.0
        chosen.append(nearest.argmax())
    return torch.stack(chosen)
