"""The definition of max-min diversity, with the full matrix in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlm_pruner.ops.basic import STEP

__all__ = ["spread"]


def spread(features: Sequence[Tensor], keep: int, start: int | None, weight: Sequence[Tensor] | None) -> Tensor:
    """[B, keep] tokens; see `vlm_pruner.ops.maxmin.spread`. Holds all [n, n] cosines of an image."""
    weights = [torch.ones_like(f[:, 0]) for f in features] if weight is None else weight
    return torch.stack([_one(f, keep, start, w.double()) for f, w in zip(features, weights, strict=True)])


def _one(features: Tensor, keep: int, start: int | None, weight: Tensor) -> Tensor:
    rows = features.float().double()
    norm = rows.norm(dim=1, keepdim=True)
    unit = (rows * (1 / norm).where(norm > 0, 0.0) / STEP).round() * STEP
    unit = unit.float().double()
    cosine = unit @ unit.T  # [n, n], without rounding
    closest = cosine.clone().fill_diagonal_(-torch.inf).amax(1)  # [n] cosine of the nearest neighbour
    chosen = [int(closest.argmin()) if start is None else start]
    while len(chosen) < keep:
        distance = weight * (1 - cosine[chosen].amax(0))
        distance[chosen] = -torch.inf
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen, device=features.device)
