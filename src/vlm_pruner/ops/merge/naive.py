"""The definition of similarity-weighted aggregation, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["merge"]


def merge(
    features: Sequence[Tensor], index: Tensor, source: Tensor, weight: Tensor, self_weight: float
) -> list[Tensor]:
    """B tensors [k, d]; see `vlm_pruner.ops.merge.merge`. Goes through the kept tokens one by one."""
    return [_one(f, i, s, w, self_weight) for f, i, s, w in zip(features, index, source, weight, strict=True)]


def _one(features: Tensor, index: Tensor, source: Tensor, weight: Tensor, self_weight: float) -> Tensor:
    rows, w = features.double(), weight.double()  # [n, d], [n]
    dropped = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    dropped[index] = False
    merged = rows[index]
    for slot in range(len(index)):
        members = (source == slot) & dropped
        total = w[members].sum()
        if total > 0:
            mean = (w[members, None] * rows[members]).sum(0) / total.clamp(min=1e-8)
            merged[slot] = self_weight * rows[index[slot]] + (1 - self_weight) * mean
    return merged.to(features.dtype)
